"""Values at some voxels of a volume, on the CPU: averages along an axis, local maxima and their centroids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["centroids", "local_maxima", "smooth_along"]

Shape = tuple[int, int, int]
FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


def smooth_along(
    index: IndexArray,
    value: FloatArray,
    shape: Shape,
    axis: int,
    weights: npt.NDArray[np.float64],
    *,
    threads: int | None = None,
) -> FloatArray:
    """Average values with their neighbours along an axis; voxels without a value count as zeros.

    Beyond the ends of the volume the kernel is cut off and renormalised. Neither threads nor the instruction
    set change results.

    Parameters
    ----------
    index, value
        Flat (z, y, x) indices, ascending, and the value of each, (n,).
    shape
        Of the volume.
    axis
        0, 1 or 2: z, y or x.
    weights
        Of the symmetric kernel, at distances 0 to its radius.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    index, value = _checked(index, value, shape)
    weights = np.ascontiguousarray(weights)
    radius, length = len(weights) - 1, shape[axis]
    # Sums of the weights at distances up to each one, in double precision as the kernel's sums.
    one_side = np.concatenate([[0.0], np.cumsum(weights[1:])])
    position = np.arange(length)
    before, after = (one_side[np.minimum(n, radius)] for n in (position, length - 1 - position))
    inside = (weights[0] + before + after).astype(np.float32)
    smooth = np.empty_like(value)
    core.smooth_along_cpu(
        (index.ctypes.data, value.ctypes.data, len(index), *shape[1:]),
        axis,
        (weights.ctypes.data, radius, inside.ctypes.data),
        smooth.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return smooth


def local_maxima(
    index: IndexArray, value: FloatArray, shape: Shape, threshold: float, *, threads: int | None = None
) -> IndexArray:
    """Find the voxels above 0 and at or above `threshold` that none of their 26 neighbours exceeds.

    On a plateau, the first voxel in C order that no neighbour precedes is a maximum.

    Parameters
    ----------
    index, value
        Flat (z, y, x) indices, ascending, and the value of each, (n,).
    shape
        Of the volume.
    threshold
        Rounded to float32.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    Positions in `index`, ascending.
    """
    index, value = _checked(index, value, shape)
    voxels = (index.ctypes.data, value.ctypes.data, len(index), *shape[1:])
    found = core.local_maxima_cpu(voxels, float(np.float32(threshold)), threads or torch.get_num_threads())
    return np.array(found, np.int64)


def centroids(
    index: IndexArray,
    value: FloatArray,
    shape: Shape,
    peaks: IndexArray,
    radius: int,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.float64]:
    """Find the centroid around each peak, (n, 3), of the values that exceed half of the peak's.

    Parameters
    ----------
    index, value
        Flat (z, y, x) indices, ascending, and the value of each, (n,).
    shape
        Of the volume.
    peaks
        Positions in `index`.
    radius
        Of the sphere around a peak whose voxels count, each by how much it exceeds half of the peak.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    index, value = _checked(index, value, shape)
    peaks = np.ascontiguousarray(peaks, np.int64)
    if peaks.ndim != 1 or (len(peaks) and not (peaks.min() >= 0 and peaks.max() < len(index))):
        raise ValueError(f"expected positions among {len(index)} voxels, got {peaks}")
    centres = np.empty((len(peaks), 3))
    core.centroids_cpu(
        (index.ctypes.data, value.ctypes.data, len(index), *shape[1:]),
        peaks.ctypes.data,
        len(peaks),
        radius,
        centres.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return centres


def _checked(index: IndexArray, value: FloatArray, shape: Shape) -> tuple[IndexArray, FloatArray]:
    """Return indices and values, C-contiguous."""
    if index.shape != value.shape or index.dtype != np.int64 or value.dtype != np.float32 or value.ndim != 1:
        raise ValueError(
            f"expected int64 indices and as many float32 values, got {index.dtype} {index.shape} and "
            f"{value.dtype} {value.shape}"
        )
    # The kernels rely on their order.
    if len(index) and not (index[0] >= 0 and index[-1] < np.prod(shape) and np.all(index[1:] > index[:-1])):
        raise ValueError(f"expected ascending indices into a volume of shape {shape}")
    return np.ascontiguousarray(index), np.ascontiguousarray(value)
