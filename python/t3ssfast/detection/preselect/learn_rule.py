"""Learning a preselection rule: bounds on the statistics of a window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.preselections import PreselectRule, within_bounds
from t3ssfast.errors import InputError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import DEFAULT_STATISTICS, window_statistics
from t3ssfast.tomogram import Tomogram

__all__ = ["WindowSample", "learn_rule", "near_particles", "particle_windows"]

# Windows this close to a pick show the same particle: their scores stay above about half of its score.
PICK_RADIUS_ZYX_NM = (8.0, 3.0, 3.0)
# Sampled windows near the membrane that give the fraction of negatives that a rule keeps.
NEGATIVE_WINDOWS = 20_000


def learn_rule(
    positives: npt.ArrayLike,
    names: Sequence[str] = DEFAULT_STATISTICS,
    negatives: npt.ArrayLike | None = None,
    *,
    size: int = 50,
    keep: float = 0.995,
    margin: float = 0.25,
) -> PreselectRule:
    """Learn bounds that keep nearly all positives: (S, n) finite statistics of windows on particles.

    The same fraction is cut from both tails of every statistic: the largest with which a fraction `keep` of
    the positives still meets all bounds. Then each bound is widened by `margin` robust standard deviations
    (interquartile range / 1.349), because the picks are a sample. Of the negatives, (S, m) statistics of
    other windows near the membrane, only the kept fraction is reported.
    """
    positive = np.asarray(positives, np.float64)
    negative = np.zeros((len(names), 0)) if negatives is None else np.asarray(negatives, np.float64)
    if positive.ndim != 2 or len(positive) != len(names) or positive.shape[1] == 0:
        raise InputError(
            f"The statistics of the positives have shape {positive.shape} for {len(names)} names; give "
            "(statistics, windows) with at least one window."
        )
    if not np.isfinite(positive).all():
        raise InputError("Some positive windows have statistics that are not finite; leave them out.")
    if not 0 < keep <= 1 or margin < 0:
        raise InputError(f"keep is {keep} and margin {margin}; give 0 < keep <= 1 and a margin of 0 or more.")
    ordered, n = np.sort(positive, axis=1), positive.shape[1]

    def kept(cut: int) -> float:
        return float(within_bounds(positive, ordered[:, cut], ordered[:, n - 1 - cut]).mean())

    # The largest number of windows to cut from each tail: the kept fraction falls with it.
    cut = bisect_right(range((n + 1) // 2), -keep, key=lambda k: -kept(k)) - 1
    quartiles = np.percentile(positive, [25, 75], axis=1)
    widening = margin * (quartiles[1] - quartiles[0]) / 1.349
    low, high = ordered[:, cut] - widening, ordered[:, n - 1 - cut] + widening
    rule = PreselectRule(size, tuple(names), tuple(low.tolist()), tuple(high.tolist()), margin, n)
    return replace(
        rule,
        negatives=negative.shape[1],
        positives_kept=float(rule.keeps(positive).mean()),
        negatives_kept=float(rule.keeps(negative).mean()) if negative.size else None,
    )


@dataclass(frozen=True)
class WindowSample:
    """Statistics (S, n) of the windows on particles, and (S, m) of a sample of the others in the region."""

    size: int
    names: tuple[str, ...]
    on_particles: npt.NDArray[np.float32]
    others: npt.NDArray[np.float32]

    @classmethod
    def measure(
        cls, grid: PreparedTomogram, region: npt.NDArray[Any], picks: Candidates, size: int
    ) -> WindowSample:
        """Measure the windows of a (z, y, x) search region; InputError where none shows a picked T3SS."""
        centres = grid.from_tomogram(picks.centre_zyx[picks.kind == "t3ss"])
        near_picks = near_particles(grid.shape, grid.voxel_size_angstrom, centres)
        none = np.zeros((len(DEFAULT_STATISTICS), 0), np.float32)
        positive, negative = [none], [none]
        spacing = 1
        for z, near in enumerate(near_picks):
            others = np.flatnonzero((region[z] != 0) & ~near)
            spacing = max(spacing, len(others) * len(region) // NEGATIVE_WINDOWS)
            chosen = near.copy()
            chosen.flat[others[::spacing]] = True
            if chosen.any():
                image = pad_for_windows(grid.slab(z, z + 1), size)
                values = np.asarray(window_statistics(image, size, DEFAULT_STATISTICS, mask=chosen[None]))
                positive.append(values[:, near[chosen]])
                negative.append(values[:, ~near[chosen]])
        positives = np.concatenate(positive, axis=1)
        positives = positives[:, np.isfinite(positives).all(axis=0)]
        if positives.shape[1] == 0:
            raise InputError(
                f"None of the {len(picks)} picks is a T3SS inside {grid.tomogram.name}; give picks in voxels "
                "of this tomogram, 0-based."
            )
        return cls(size, DEFAULT_STATISTICS, positives, np.concatenate(negative, axis=1))

    def learn(self, keep: float, margin: float) -> PreselectRule:
        """Learn a rule from the windows on particles."""
        return learn_rule(
            self.on_particles, self.names, self.others, size=self.size, keep=keep, margin=margin
        )


def particle_windows(tomogram: Tomogram, particles: Candidates) -> npt.NDArray[np.bool_]:
    """Return a (z, y, x) mask of the windows that show a particle: those centred close to it."""
    scale = particles.voxel_size_angstrom / tomogram.voxel_size_angstrom
    centres = (particles.centre_zyx.astype(np.float64) + 0.5) * scale - 0.5
    return near_particles(tomogram.shape, tomogram.voxel_size_angstrom, centres)


def near_particles(
    shape: tuple[int, int, int], voxel_size_angstrom: float, centres_zyx: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return a (z, y, x) mask of the voxels close to (n, 3) centres, in ellipsoids around them."""
    radius = np.array(PICK_RADIUS_ZYX_NM) * 10 / voxel_size_angstrom
    mask = np.zeros(shape, bool)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for centre in centres_zyx:
        first, last = np.clip([centre[0] - radius[0], centre[0] + radius[0] + 2], 0, shape[0]).astype(int)
        along_z = ((z[first:last] - centre[0]) / radius[0]) ** 2
        in_plane = ((y - centre[1]) / radius[1]) ** 2 + ((x - centre[2]) / radius[2]) ** 2
        mask[first:last] |= in_plane <= 1 - along_z
    return mask
