"""Picking: peaks of the smoothed scores in 3D, one for each particle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from t3ssfast.detection.smooth_scores import FloatArray, IndexArray, ScoreSmoother, SparseScores
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["pick", "separate"]


@retry_on_oom("picking")
def pick(
    scores: SparseScores | npt.NDArray[Any],
    *,
    voxel_size_angstrom: float,
    smoothing_nm: float = 5.0,
    threshold: float = 0.5,
    min_distance_nm: float = 24.0,
    max_candidates: int = 10_000,
) -> tuple[FloatArray, FloatArray]:
    """Find the peaks of the scores.

    Scores are smoothed (`ScoreSmoother`), and local maxima are accepted from the highest down, none closer
    than `min_distance_nm` to one already accepted.

    Parameters
    ----------
    scores
        `SparseScores`, or a dense (z, y, x) volume of probabilities. Those that are smoothed already must
        have been smoothed with the same options.
    voxel_size_angstrom
        Of the grid of the scores.
    smoothing_nm
        Sigma of the Gaussian along z; a quarter of it is used in the plane.
    threshold
        Lowest smoothed score of a peak.
    min_distance_nm
        Smallest distance of two peaks.
    max_candidates
        Largest number of peaks; the highest are returned.

    Returns
    -------
    centre_zyx
        (n, 3) float32 sub-voxel centres on the grid: the centroid of the scores above half of the peak.
    score
        (n,) float32 in [0, 1], highest first; equal scores in C order of their peaks.
    """
    if not isinstance(scores, SparseScores):
        scores = SparseScores.from_dense(scores)
    nm_per_voxel = voxel_size_angstrom / 10
    if not scores.smoothed:
        smoother = ScoreSmoother(
            scores.shape,
            voxel_size_angstrom=voxel_size_angstrom,
            smoothing_nm=smoothing_nm,
            threshold=threshold,
        )
        smoother.add(scores.index, scores.value)
        scores = smoother.finish()
    index, value = _local_maxima(scores, threshold)
    position = np.stack(np.unravel_index(index, scores.shape), axis=1)
    kept = separate(position, min_distance_nm / nm_per_voxel)[:max_candidates]
    peaks = index[kept], value[kept]
    # Up to half the distance to the next candidate.
    radius = max(1, int(min_distance_nm / nm_per_voxel / 2))
    centres = [
        _centroid(scores, index, value, radius)
        for index, value in zip(peaks[0].tolist(), peaks[1].tolist(), strict=True)
    ]
    return np.array(centres, np.float32).reshape(-1, 3), np.clip(peaks[1], 0, 1)


def _local_maxima(scores: SparseScores, threshold: float) -> tuple[IndexArray, FloatArray]:
    """Voxels at or above `threshold` that none of their 26 neighbours exceeds, highest first.

    On a plateau the first voxel in C order counts as the maximum.
    """
    keep = (scores.value >= threshold) & (scores.value > 0)
    index, value = scores.index[keep], scores.value[keep]
    position = np.stack(np.unravel_index(index, scores.shape), axis=1)
    is_maximum = np.ones(len(index), bool)
    limits = np.array(scores.shape)
    for offset in np.ndindex(3, 3, 3):
        shift = np.array(offset) - 1
        if not shift.any() or not len(index):
            continue
        other = position + shift
        there = np.flatnonzero(((other >= 0) & (other < limits)).all(axis=1))
        wanted = np.ravel_multi_index(tuple(other[there].T), scores.shape)
        found = np.minimum(np.searchsorted(index, wanted), len(index) - 1)
        same = index[found] == wanted
        here, found = there[same], found[same]
        beaten = (value[found] > value[here]) | ((value[found] == value[here]) & (found < here))
        is_maximum[here[beaten]] = False
    index, value = index[is_maximum], value[is_maximum]
    order = np.lexsort((index, -value))
    return index[order], value[order]


def separate(position_zyx: npt.NDArray[Any], distance: float) -> IndexArray:
    """Indices of (n, 3) positions to keep, in order, so that no two are closer than `distance`."""
    available = np.ones(len(position_zyx), bool)
    kept: list[int] = []
    if not len(position_zyx):
        return np.array(kept, np.int64)
    tree = cKDTree(position_zyx)
    for i in range(len(position_zyx)):
        if available[i]:
            kept.append(i)
            # Slightly less than the distance: two at exactly the distance are both kept.
            available[tree.query_ball_point(position_zyx[i], distance * (1 - 1e-9))] = False
    return np.array(kept, np.int64)


def _centroid(scores: SparseScores, peak: int, value: float, radius: int) -> npt.NDArray[np.float64]:
    """Centroid of the scores above half of a peak, within `radius` voxels of it."""
    centre = np.array(np.unravel_index(peak, scores.shape))
    low = np.maximum(centre - radius, 0)
    high = np.minimum(centre + radius + 1, scores.shape)
    rows = np.arange(low[0], high[0])[:, None] * scores.shape[1] + np.arange(low[1], high[1])
    starts = np.searchsorted(scores.index, rows.reshape(-1) * scores.shape[2] + low[2])
    stops = np.searchsorted(scores.index, rows.reshape(-1) * scores.shape[2] + high[2])
    entries = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    offset = np.stack(np.unravel_index(scores.index[entries], scores.shape), axis=1) - centre
    weight = np.maximum(scores.value[entries].astype(np.float64) - value / 2, 0)
    weight[(offset**2).sum(axis=1) > radius**2] = 0
    total = weight.sum()
    return centre + (weight @ offset / total if total > 0 else 0)
