"""Which windows of the membrane deserve the classifier: a rule over their statistics, learned from picks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.errors import InputError, ModelError
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.normalise import PreparedTomogram
from t3ssfast.segment import search_region
from t3ssfast.statistics import window_statistics
from t3ssfast.types import Candidates, DetectConfig, Tomogram
from t3ssfast.windows import pad_for_windows

__all__ = [
    "DEFAULT_STATISTICS",
    "PreselectRule",
    "apply_rule",
    "learn_rule",
    "preselect",
    "rule_keeps",
]

# The statistics that the field looks at first.
DEFAULT_STATISTICS = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")

# Windows this close to a pick show the same particle: about what separates its score from half of it.
PICK_REACH_Z_NM = 8.0
PICK_REACH_NM = 3.0
# So many windows of the membrane, evenly spread, stand for all of them in a rule's figures.
NEGATIVE_WINDOWS = 20_000
# So many slices are prepared and looked at together; the answer does not depend on it.
SLAB_SLICES = 16

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


def preselect(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    picks: Candidates | None = None,
    *,
    classifier: str | os.PathLike[str] | nn.Module | LoadedModel | None = None,
    contrast_sign: int = 1,
    config: DetectConfig | None = None,
    keep: float = 0.995,
    margin: float = 0.25,
) -> tuple[npt.NDArray[np.uint8], PreselectRule]:
    """Say which windows near the membrane are worth the classifier, and by which rule.

    Parameters
    ----------
    tomogram
        To look at.
    membrane
        (z, y, x) mask of its shape.
    picks
        T3SS of this tomogram, to learn the rule from; None applies the rule that the classifier carries.
    classifier
        Model (file) whose grid, window and normalisation count; None is the bundled one.
    contrast_sign
        +1 where protein is dark, -1 where it is bright.
    config
        Of it, the search distance and the memory budget count.
    keep, margin
        As in `learn_rule`.

    Returns
    -------
    mask
        (z, y, x) uint8 of the tomogram's shape: centres of windows that pass.
    rule
        The rule they pass.

    Raises
    ------
    InputError
        If the mask has another shape or is empty, or no pick has a whole window about it.
    ModelError
        If there are no picks and the classifier carries no rule.
    """
    config = DetectConfig() if config is None else config
    model = load_model(classifier, kind="classifier")
    if not np.any(membrane):
        raise InputError("The membrane mask is empty; give one with the membranes set to 1.")
    prepared = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=model.metadata.voxel_size_angstrom,
        normalisation=model.metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    depth = prepared.shape[0]
    on_grid = prepared.mask_from_tomogram(membrane, 0, depth)
    region = search_region(on_grid, prepared.voxel_size_angstrom, config.search_distance_nm)
    if picks is not None:
        size = model.metadata.window_px or 50
        rule = _learn_from_picks(prepared, region, picks, size, keep=keep, margin=margin)
    elif model.metadata.preselect is not None:
        rule = PreselectRule.from_dict(model.metadata.preselect)
    else:
        raise ModelError(f"{model.path} carries no preselection rule; give picks to learn one from.")
    for z0 in range(0, depth, SLAB_SLICES):
        z1 = min(depth, z0 + SLAB_SLICES)
        if region[z0:z1].any():
            slab = pad_for_windows(prepared.slab(z0, z1), rule.size)
            region[z0:z1] = apply_rule(rule, slab, region[z0:z1])
    return prepared.mask_to_tomogram(region), rule


def _learn_from_picks(
    prepared: PreparedTomogram,
    region: npt.NDArray[np.uint8],
    picks: Candidates,
    size: int,
    *,
    keep: float,
    margin: float,
) -> PreselectRule:
    """The rule of the windows about picks, with its figures on the rest of the windows near the membrane."""
    nm_per_voxel = prepared.voxel_size_angstrom / 10
    zyx = prepared.from_tomogram(picks.centre_zyx[picks.kind == "t3ss"])
    reach = np.array([PICK_REACH_Z_NM, PICK_REACH_NM, PICK_REACH_NM]) / nm_per_voxel
    positive, negative = [], []
    depth, height, width = prepared.shape
    grid_y, grid_x = np.ogrid[:height, :width]
    spacing = 1
    for z in range(depth):
        near = np.zeros((1, height, width), bool)
        for centre in zyx:
            scaled = ((z - centre[0]) / reach[0]) ** 2
            if scaled <= 1:
                in_plane = ((grid_y - centre[1]) / reach[1]) ** 2 + ((grid_x - centre[2]) / reach[2]) ** 2
                near[0] |= in_plane <= 1 - scaled
        others = np.flatnonzero((region[z] != 0) & ~near[0])
        spacing = max(spacing, len(others) * depth // NEGATIVE_WINDOWS, 1)
        sample = np.zeros(near.size, bool)
        sample[others[::spacing]] = True
        wanted = sample.reshape(near.shape) | near
        if wanted.any():
            image = pad_for_windows(prepared.slab(z, z + 1), size)
            values = np.asarray(window_statistics(image, size, DEFAULT_STATISTICS, mask=wanted))
            positive.append(values[:, near[wanted]])
            negative.append(values[:, ~near[wanted]])
    positives = np.concatenate(positive, axis=1) if positive else np.zeros((len(DEFAULT_STATISTICS), 0))
    positives = positives[:, np.isfinite(positives).all(axis=0)]
    if positives.shape[1] == 0:
        raise InputError(
            f"None of the {len(picks)} picks is a T3SS inside {prepared.tomogram.name}; give picks in voxels "
            f"of this tomogram, 0-based."
        )
    negatives = np.concatenate(negative, axis=1)
    return learn_rule(positives, DEFAULT_STATISTICS, negatives, size=size, keep=keep, margin=margin)
