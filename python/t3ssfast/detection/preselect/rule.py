"""The robust rule: every statistic of a window between two bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, ModelError
from t3ssfast.kernels.window_statistics import window_statistics

__all__ = [
    "DEFAULT_STATISTICS",
    "PreselectRule",
    "apply_rule",
    "learn_rule",
    "rule_keeps",
]

# The statistics that the field looks at first.
DEFAULT_STATISTICS = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PreselectRule:
    """A window passes when each of its statistics lies between two bounds.

    Parameters
    ----------
    size
        Edge of the windows, px.
    statistics
        Names as `window_statistics` knows them.
    low, high
        Bounds, inclusive, one for each statistic, in units of the normalised grey values.
    margin
        By how many robust standard deviations of the positives the bounds were widened.
    positives, negatives
        How many windows it was learned from.
    positives_kept, negatives_kept
        Which fraction of them passes; None where there were no negatives.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> PreselectRule:
        """Inverse of `to_dict`.

        Raises
        ------
        ModelError
            If an entry is missing, unknown or of the wrong kind.
        """
        try:
            values = dict(entries)
            values["size"] = int(values["size"])
            values["statistics"] = tuple(str(name) for name in values["statistics"])
            for bound in ("low", "high"):
                values[bound] = tuple(float(x) for x in values[bound])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"A preselection rule cannot be read ({error}); learn it again with preselect()."
            ) from error


def rule_keeps(rule: PreselectRule, statistics: npt.NDArray[Any]) -> BoolArray:
    """Which of n windows pass, from their (S, n) statistics; NaN (a constant window) never does."""
    return _between(statistics, np.array(rule.low), np.array(rule.high))


def _between(statistics: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]) -> BoolArray:
    """Which of n windows lie between bounds, inclusive, in each of their (S, n) statistics."""
    with np.errstate(invalid="ignore"):
        passes = (statistics >= low[:, None]) & (statistics <= high[:, None])
    kept: BoolArray = np.logical_and.reduce(passes, axis=0)
    return kept


def learn_rule(
    positives: npt.ArrayLike,
    names: Sequence[str] = DEFAULT_STATISTICS,
    negatives: npt.ArrayLike | None = None,
    *,
    size: int = 50,
    keep: float = 0.995,
    margin: float = 0.25,
) -> PreselectRule:
    """Learn bounds that nearly all positives meet.

    The same small fraction is cut from both tails of every statistic, the largest with which at least `keep`
    of the positives still meet all bounds together; then each bound is moved outwards by `margin` robust
    standard deviations (interquartile range / 1.349), because the picks are a sample.

    Parameters
    ----------
    positives
        (S, n) statistics of windows on particles, n >= 1.
    names
        The S statistics, as `window_statistics` knows them.
    negatives
        (S, m) statistics of other windows on the membrane; only reported on.
    size
        Edge of the windows, px.
    keep
        Fraction of the positives that must pass.
    margin
        In robust standard deviations of the positives.

    Raises
    ------
    InputError
        If the shapes do not fit, or a positive has a statistic that is not finite.
    """
    positive = np.asarray(positives, dtype=np.float64)
    if positive.ndim != 2 or len(positive) != len(names) or positive.shape[1] == 0:
        raise InputError(
            f"The statistics of the positives have shape {positive.shape} for {len(names)} names; give "
            f"(statistics, windows) with at least one window."
        )
    if not np.isfinite(positive).all():
        raise InputError(
            f"{int((~np.isfinite(positive)).any(axis=0).sum())} of {positive.shape[1]} positive windows have "
            f"statistics that are not finite, as constant windows do; leave them out."
        )
    if not 0 < keep <= 1 or margin < 0:
        raise InputError(f"keep is {keep} and margin {margin}; give 0 < keep <= 1 and a margin of 0 or more.")
    ordered = np.sort(positive, axis=1)
    n = positive.shape[1]

    def bounds(cut: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return ordered[:, cut], ordered[:, n - 1 - cut]

    def kept(cut: int) -> float:
        return float(_between(positive, *bounds(cut)).mean())

    # Windows cut from a tail: the largest count that keeps enough, found by bisection (kept falls with it).
    enough, too_many = 0, (n + 1) // 2
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if kept(middle) >= keep:
            enough = middle
        else:
            too_many = middle
    low, high = bounds(enough)
    quartiles = np.percentile(positive, [25, 75], axis=1)
    spread = margin * (quartiles[1] - quartiles[0]) / 1.349
    rule = PreselectRule(
        size=size,
        statistics=tuple(names),
        low=tuple((low - spread).tolist()),
        high=tuple((high + spread).tolist()),
        margin=margin,
        positives=n,
    )
    negative = None if negatives is None else np.asarray(negatives, dtype=np.float64)
    figures: dict[str, Any] = {"positives_kept": float(rule_keeps(rule, positive).mean())}
    if negative is not None and negative.size:
        figures |= {
            "negatives": negative.shape[1],
            "negatives_kept": float(rule_keeps(rule, negative).mean()),
        }
    return PreselectRule(**{**asdict(rule), **figures})


def apply_rule(rule: PreselectRule, image: npt.NDArray[Any], mask: npt.NDArray[Any]) -> BoolArray:
    """Drop the windows that a rule excludes; statistics are computed at the masked windows only.

    Parameters
    ----------
    rule
        What passes.
    image
        (H, W) or (N, H, W) normalised grey values, padded so that every window wanted is a valid one.
    mask
        Of valid-window shape (..., H - size + 1, W - size + 1); index = top-left corner.

    Returns
    -------
    A new boolean mask of the same shape.
    """
    smaller = np.array(mask, dtype=bool)
    if smaller.any():
        statistics = window_statistics(image, rule.size, rule.statistics, mask=smaller)
        smaller[smaller] = rule_keeps(rule, np.asarray(statistics))
    return smaller
