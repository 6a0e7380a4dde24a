"""Averages of values at some voxels of a volume with their neighbours along an axis, on the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["smooth_along"]


def smooth_along(
    index: npt.NDArray[np.int64],
    value: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    axis: int,
    weights: npt.NDArray[np.float64],
    *,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
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
    if index.shape != value.shape or index.dtype != np.int64 or value.dtype != np.float32 or value.ndim != 1:
        raise ValueError(
            f"expected int64 indices and as many float32 values, got {index.dtype} {index.shape} and "
            f"{value.dtype} {value.shape}"
        )
    # The kernel relies on their order.
    if len(index) and not (index[0] >= 0 and index[-1] < np.prod(shape) and np.all(index[1:] > index[:-1])):
        raise ValueError(f"expected ascending indices into a volume of shape {shape}")
    index, value, weights = map(np.ascontiguousarray, (index, value, weights))
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
