"""Preselection by bounds on the statistics of a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.preselect.stored import StoredPreselection, tuple_of
from t3ssfast.errors import InputError
from t3ssfast.kernels.window_statistics import window_statistics

__all__ = ["DEFAULT_STATISTICS", "PreselectRule", "learn_rule"]

# The statistics that the field uses first.
DEFAULT_STATISTICS = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PreselectRule(StoredPreselection):
    """Keep the windows whose statistics all lie within bounds.

    Parameters
    ----------
    size
        Side of the windows in pixels.
    statistics
        Names known to `window_statistics`.
    low, high
        Inclusive bounds of each statistic, in units of the normalised grey values.
    margin
        By how many robust standard deviations of the positives the bounds were widened.
    positives, negatives
        Numbers of windows that the rule was learned from.
    positives_kept, negatives_kept
        Fractions of them that are kept; None without negatives.
    """

    REQUIRED: ClassVar = {
        "size": int,
        "statistics": tuple_of(str),
        "low": tuple_of(float),
        "high": tuple_of(float),
    }

    size: int
    statistics: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    margin: float = 0.0
    positives: int = 0
    negatives: int = 0
    positives_kept: float = 1.0
    negatives_kept: float | None = None

    def __post_init__(self) -> None:
        if not len(self.statistics) == len(self.low) == len(self.high) >= 1:
            raise InputError(
                f"A rule over {len(self.statistics)} statistics has {len(self.low)} lower and "
                f"{len(self.high)} upper bounds; give one of each for every statistic."
            )
        for name, low, high in zip(self.statistics, self.low, self.high, strict=True):
            if not low <= high:
                raise InputError(
                    f"The bounds of {name!r} are {low} and {high}; the lower must not exceed the upper."
                )

    def keeps(self, statistics: npt.NDArray[Any]) -> BoolArray:
        """Return which of n windows are kept, from their (S, n) statistics; a NaN is never within bounds."""
        return _within(statistics, np.array(self.low), np.array(self.high))

    def apply(self, image: npt.NDArray[Any], mask: npt.NDArray[Any]) -> BoolArray:
        """Remove from a mask the windows that are not kept.

        Parameters
        ----------
        image
            (H, W) or (N, H, W) normalised grey values.
        mask
            (..., H - size + 1, W - size + 1) windows, indexed by their top-left corners. Statistics are
            computed for these only.

        Returns
        -------
        A new boolean mask of the same shape.
        """
        kept = np.array(mask, dtype=bool)
        if kept.any():
            kept[kept] = self.keeps(
                np.asarray(window_statistics(image, self.size, self.statistics, mask=kept))
            )
        return kept


def _within(statistics: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]) -> BoolArray:
    """Return which of n windows have all of their (S, n) statistics within inclusive bounds."""
    with np.errstate(invalid="ignore"):
        within = (statistics >= low[:, None]) & (statistics <= high[:, None])
    return np.asarray(within.all(axis=0))


def learn_rule(
    positives: npt.ArrayLike,
    names: Sequence[str] = DEFAULT_STATISTICS,
    negatives: npt.ArrayLike | None = None,
    *,
    size: int = 50,
    keep: float = 0.995,
    margin: float = 0.25,
) -> PreselectRule:
    """Learn bounds that keep nearly all positives.

    The same fraction is cut from both tails of every statistic: the largest with which `keep` of the
    positives still meet all bounds. Then each bound is widened by `margin` robust standard deviations
    (interquartile range / 1.349), because the picks are a sample.

    Parameters
    ----------
    positives
        (S, n) statistics of windows on particles, n >= 1.
    names
        Names of the S statistics, known to `window_statistics`.
    negatives
        (S, m) statistics of other windows near the membrane; only their kept fraction is reported.
    size
        Side of the windows in pixels.
    keep
        Fraction of the positives to keep.
    margin
        Widening of the bounds, in robust standard deviations of the positives.

    Raises
    ------
    InputError
        The shapes do not match, or the statistics of a positive are not finite.
    """
    positive = np.asarray(positives, dtype=np.float64)
    if positive.ndim != 2 or len(positive) != len(names) or positive.shape[1] == 0:
        raise InputError(
            f"The statistics of the positives have shape {positive.shape} for {len(names)} names; give "
            "(statistics, windows) with at least one window."
        )
    if not np.isfinite(positive).all():
        raise InputError(
            f"{int((~np.isfinite(positive)).any(axis=0).sum())} of {positive.shape[1]} positive windows have "
            "statistics that are not finite, as constant windows do; leave them out."
        )
    if not 0 < keep <= 1 or margin < 0:
        raise InputError(f"keep is {keep} and margin {margin}; give 0 < keep <= 1 and a margin of 0 or more.")
    ordered = np.sort(positive, axis=1)
    n = positive.shape[1]
    # The largest number of windows to cut from each tail, by bisection: the kept fraction falls with it.
    enough, too_many = 0, (n + 1) // 2
    while too_many - enough > 1:
        cut = (enough + too_many) // 2
        if _within(positive, ordered[:, cut], ordered[:, n - 1 - cut]).mean() >= keep:
            enough = cut
        else:
            too_many = cut
    quartiles = np.percentile(positive, [25, 75], axis=1)
    widening = margin * (quartiles[1] - quartiles[0]) / 1.349
    low, high = ordered[:, enough] - widening, ordered[:, n - 1 - enough] + widening
    rule = PreselectRule(size, tuple(names), tuple(low.tolist()), tuple(high.tolist()), margin, n)
    rule = replace(rule, positives_kept=float(rule.keeps(positive).mean()))
    negative = np.zeros((len(names), 0)) if negatives is None else np.asarray(negatives, dtype=np.float64)
    if negative.size:
        kept = float(rule.keeps(negative).mean())
        rule = replace(rule, negatives=negative.shape[1], negatives_kept=kept)
    return rule
