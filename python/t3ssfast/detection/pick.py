"""Picking: peaks of the smoothed scores in 3D, one for each particle."""

from __future__ import annotations

from itertools import product
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

    Scores, sparse or a dense (z, y, x) volume, are smoothed by a `ScoreSmoother` of the same options, unless
    that was done already. Local maxima are accepted from the highest down, none closer than `min_distance_nm`
    to one already accepted, and at most `max_candidates`.

    Returns
    -------
    centre_zyx
        (n, 3) float32 sub-voxel centres on the grid: the centroid of the scores above half of the peak.
    score
        (n,) float32 in [0, 1], highest first; equal scores in C order of their peaks.
    """
    if not isinstance(scores, SparseScores):
        scores = SparseScores.from_dense(scores)
    if not scores.smoothed:
        smoother = ScoreSmoother(scores.shape, voxel_size_angstrom, smoothing_nm, threshold)
        smoother.add(scores.index, scores.value)
        scores = smoother.finish()
    nm_per_voxel = voxel_size_angstrom / 10
    index, value = _local_maxima(scores, threshold)
    position = np.stack(np.unravel_index(index, scores.shape), axis=1)
    kept = separate(position, min_distance_nm / nm_per_voxel)[:max_candidates]
    index, value = index[kept], value[kept]
    # Up to half the distance to the next candidate.
    radius = max(1, int(min_distance_nm / nm_per_voxel / 2))
    peaks = zip(index.tolist(), value.tolist(), strict=True)
    centres = [_centroid(scores, peak, height, radius) for peak, height in peaks]
    return np.array(centres, np.float32).reshape(-1, 3), np.clip(value, 0, 1)


def _local_maxima(scores: SparseScores, threshold: float) -> tuple[IndexArray, FloatArray]:
    """Voxels at or above `threshold` that none of their 26 neighbours exceeds, highest first.

    On a plateau the first voxel in C order counts as the maximum.
    """
    keep = (scores.value >= threshold) & (scores.value > 0)
    index, value = scores.index[keep], scores.value[keep]
    position = np.stack(np.unravel_index(index, scores.shape), axis=1)
    is_maximum = np.ones(len(index), bool)
    for shift in product((-1, 0, 1), repeat=3):
        other = position + shift
        there = np.flatnonzero(((other >= 0) & (other < scores.shape)).all(axis=1))
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
    tree = cKDTree(position_zyx)
    for i, position in enumerate(position_zyx):
        if available[i]:
            kept.append(i)
            # Slightly less than the distance: two at exactly the distance are both kept.
            available[tree.query_ball_point(position, distance * (1 - 1e-9))] = False
    return np.array(kept, np.int64)


def _centroid(scores: SparseScores, peak: int, value: float, radius: int) -> npt.NDArray[np.float64]:
    """Centroid of the scores above half of a peak, within `radius` voxels of it."""
    centre = np.array(np.unravel_index(peak, scores.shape))
    low = np.maximum(centre - radius, 0)
    high = np.minimum(centre + radius + 1, scores.shape)
    rows = np.arange(low[0], high[0])[:, None] * scores.shape[1] + np.arange(low[1], high[1])
    bounds = np.searchsorted(scores.index, rows.reshape(-1, 1) * scores.shape[2] + [low[2], high[2]])
    entries = np.concatenate([np.arange(a, b) for a, b in bounds])
    offset = np.stack(np.unravel_index(scores.index[entries], scores.shape), axis=1) - centre
    weight = np.maximum(scores.value[entries].astype(np.float64) - value / 2, 0)
    weight[(offset**2).sum(axis=1) > radius**2] = 0
    total = weight.sum()
    return centre + (weight @ offset / total if total > 0 else 0)
