"""Picking: peaks of the smoothed scores in 3D, one for each particle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from t3ssfast.detection.smooth_scores import FloatArray, IndexArray, ScoreSmoother, SparseScores
from t3ssfast.kernels import _native
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
    peak = _local_maxima(scores, threshold)
    position = np.stack(np.unravel_index(scores.index[peak], scores.shape), axis=1)
    peak = peak[separate(position, min_distance_nm / nm_per_voxel)[:max_candidates]]
    # Up to half the distance to the next candidate.
    radius = max(1, int(min_distance_nm / nm_per_voxel / 2))
    centres = _native.centroids(scores.index, scores.value, scores.shape, peak, radius)
    return centres.astype(np.float32), np.clip(scores.value[peak], 0, 1)


def _local_maxima(scores: SparseScores, threshold: float) -> IndexArray:
    """Numbers of the scores at or above `threshold` that none of their 26 neighbours exceeds, highest first.

    On a plateau the first voxel in C order counts as the maximum.
    """
    peak = _native.local_maxima(scores.index, scores.value, scores.shape, threshold)
    return peak[np.argsort(-scores.value[peak], kind="stable")]


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
