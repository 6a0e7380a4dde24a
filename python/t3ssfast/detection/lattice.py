"""Windows at every few voxels along y and x: a lattice, and the scores of the voxels between its points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.kernels import _native

__all__ = ["interpolate_scores", "interpolation_variance", "lattice_around", "lattice_shape"]

Mask = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


def lattice_shape(shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Return the shape of the lattice of the voxels stride // 2 + k * stride of (z, y, x) slices."""
    depth, *plane = shape
    return (depth, *((length - stride // 2 - 1) // stride + 1 for length in plane))


def lattice_around(region: npt.NDArray[Any], stride: int) -> Mask:
    """Return the lattice points, uint8 0 or 1, whose square of voxels touches a (z, y, x) region.

    Voxels beyond the last whole square belong to the last point.
    """
    lattice = region != 0
    if stride == 1:
        # Reducing single rows and columns would take a hundred times as long.
        return np.asarray(lattice.view(np.uint8))
    for axis, length in list(enumerate(lattice_shape(region.shape, stride)))[1:]:
        lattice = np.logical_or.reduceat(lattice, np.arange(length) * stride, axis=axis)
    return np.asarray(lattice.view(np.uint8))


def interpolation_variance(stride: int) -> float:
    """Return the variance, square voxels, of the average that linear interpolation is, along an axis.

    A fraction f of the way between two points, it is f (1 - f) stride^2; the result is its mean over voxels.
    """
    return (stride * stride - 1) / 6


def interpolate_scores(
    scores: tuple[IndexArray, FloatArray], lattice: Mask, region: npt.NDArray[Any], stride: int
) -> tuple[IndexArray, FloatArray]:
    """Interpolate scores bilinearly between those lattice points that were scored.

    Parameters
    ----------
    scores
        Ascending flat indices of the points that `lattice` selects, and their scores in [0, 1].
    lattice, region, stride
        (z, y, x) region, and its `lattice_around`.

    Returns
    -------
    Ascending flat indices (M,) of the voxels of the region, and their scores.
    """
    if stride == 1:
        return scores
    at_points = np.zeros(lattice.size, np.float32)
    at_points[scores[0]] = scores[1]
    index = _native.flat_nonzero(region)
    row, x = np.divmod(index, region.shape[2])
    z, y = np.divmod(row, region.shape[1])
    below_and_above = []
    for position, length in ((y, lattice.shape[1]), (x, lattice.shape[2])):
        below, offset = np.divmod(position - stride // 2, stride)
        share = (offset / stride).astype(np.float32)
        low, high = (np.clip(below + step, 0, length - 1) for step in (0, 1))
        below_and_above.append(((low, 1 - share), (high, share)))
    total, weights = np.zeros(len(index), np.float32), np.zeros(len(index), np.float32)
    for line, line_share in below_and_above[0]:
        start = (z * lattice.shape[1] + line) * lattice.shape[2]
        for column, share in below_and_above[1]:
            weight = line_share * share * lattice.reshape(-1)[start + column]
            total += weight * at_points[start + column]
            weights += weight
    # A voxel's own point is scored and less than a stride away, so no weight is 0.
    return index, np.asarray(np.clip(total / weights, 0, 1))
