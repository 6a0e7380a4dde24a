"""Scores at some voxels of a volume, on the CPU.

Which of them matter, their averages along an axis, local maxima, and centroids around these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["centroids", "local_maxima", "scores_from", "scores_near", "smooth_along"]

Shape = tuple[int, int, int]
FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
Scores = tuple[IndexArray, FloatArray]


def scores_near(
    parts: Sequence[Scores], shape: Shape, floor: float, reach: int, *, threads: int | None = None
) -> Scores:
    """Join the scores of those columns (all z at one y, x) near which there is a score of at least `floor`.

    Parameters
    ----------
    parts
        Flat (z, y, x) indices, ascending from part to part, and the score of each, (n,).
    shape
        Of the volume.
    floor
        Rounded to float32.
    reach
        Largest distance of a kept column from one with such a score, in voxels along y and along x.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    threads = threads or torch.get_num_threads()
    checked = [_checked(*part, shape, threads) for part in parts]
    height, width = shape[1:]
    columns = np.zeros((2, height, width), np.uint8)
    for part in checked:
        core.mark_columns_cpu(
            _voxels(*part, shape), float(np.float32(floor)), columns[0].ctypes.data, threads
        )
    given = (height, width, reach)
    core.widen_columns_cpu([columns[0].ctypes.data], *given, columns[1].ctypes.data, threads)
    return _kept(checked, shape, columns[1].ctypes.data, 0.0, threads)


def scores_from(
    index: IndexArray, value: FloatArray, shape: Shape, floor: float, *, threads: int | None = None
) -> Scores:
    """Return the scores of at least `floor`, rounded to float32; the arguments are those of `scores_near`."""
    threads = threads or torch.get_num_threads()
    return _kept([_checked(index, value, shape, threads)], shape, 0, float(np.float32(floor)), threads)


def _kept(parts: Sequence[Scores], shape: Shape, columns: int, floor: float, threads: int) -> Scores:
    """Join the scores in marked columns or, without an address of these, from a floor on."""
    counts = [core.count_kept_cpu(_voxels(*part, shape), columns, floor, threads) for part in parts]
    starts = np.cumsum([0, *(count for of_part in counts for count in of_part)])
    index, value = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.float32)
    done = 0
    for part, of_part in zip(parts, counts, strict=True):
        slices = np.ascontiguousarray(starts[done : done + len(of_part)], np.int64)
        out = (slices.ctypes.data, index.ctypes.data, value.ctypes.data)
        core.write_kept_cpu(_voxels(*part, shape), columns, floor, *out, threads)
        done += len(of_part)
    return index, value


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
    threads = threads or torch.get_num_threads()
    index, value = _checked(index, value, shape, threads)
    weights = np.ascontiguousarray(weights)
    radius, length = len(weights) - 1, shape[axis]
    # Sums of the weights at distances up to each one, in double precision as the kernel's sums.
    one_side = np.concatenate([[0.0], np.cumsum(weights[1:])])
    position = np.arange(length)
    before, after = (one_side[np.minimum(n, radius)] for n in (position, length - 1 - position))
    inside = (weights[0] + before + after).astype(np.float32)
    smooth = np.empty_like(value)
    core.smooth_along_cpu(
        _voxels(index, value, shape),
        axis,
        (weights.ctypes.data, radius, inside.ctypes.data),
        smooth.ctypes.data,
        threads,
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
    threads = threads or torch.get_num_threads()
    index, value = _checked(index, value, shape, threads)
    found = core.local_maxima_cpu(_voxels(index, value, shape), float(np.float32(threshold)), threads)
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
    threads = threads or torch.get_num_threads()
    index, value = _checked(index, value, shape, threads)
    peaks = np.ascontiguousarray(peaks, np.int64)
    if peaks.ndim != 1 or (len(peaks) and not (peaks.min() >= 0 and peaks.max() < len(index))):
        raise ValueError(f"expected positions among {len(index)} voxels, got {peaks}")
    centres = np.empty((len(peaks), 3))
    core.centroids_cpu(
        _voxels(index, value, shape),
        peaks.ctypes.data,
        len(peaks),
        radius,
        centres.ctypes.data,
        threads,
    )
    return centres


def _voxels(index: IndexArray, value: FloatArray, shape: Shape) -> tuple[int, int, int, int, int]:
    return index.ctypes.data, value.ctypes.data, len(index), shape[1], shape[2]


def _checked(index: IndexArray, value: FloatArray, shape: Shape, threads: int) -> Scores:
    """Return indices and values, C-contiguous."""
    if index.shape != value.shape or index.dtype != np.int64 or value.dtype != np.float32 or value.ndim != 1:
        raise ValueError(
            f"expected int64 indices and as many float32 values, got {index.dtype} {index.shape} and "
            f"{value.dtype} {value.shape}"
        )
    index, value = np.ascontiguousarray(index), np.ascontiguousarray(value)
    # The kernels rely on their order.
    inside = not len(index) or (index[0] >= 0 and index[-1] < np.prod(shape))
    if not (inside and core.ascend_cpu(index.ctypes.data, len(index), threads)):
        raise ValueError(f"expected ascending indices into a volume of shape {shape}")
    return index, value
