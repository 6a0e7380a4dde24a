"""Statistics of every window of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels._native import Array

__all__ = ["window_statistics"]

_SEVEN = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")


@overload
def window_statistics(
    image: torch.Tensor,
    size: int = ...,
    statistics: Sequence[str] = ...,
    *,
    mask: Array | None = ...,
    out: torch.Tensor | None = ...,
) -> torch.Tensor: ...
@overload
def window_statistics(
    image: npt.NDArray[np.generic],
    size: int = ...,
    statistics: Sequence[str] = ...,
    *,
    mask: Array | None = ...,
    out: npt.NDArray[np.float32] | None = ...,
) -> npt.NDArray[np.float32]: ...
def window_statistics(
    image: Array,
    size: int = 50,
    statistics: Sequence[str] = _SEVEN,
    *,
    mask: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Statistics of every valid window of an image at stride 1, or of those that a mask asks for.

    Moments are population moments, skewness and kurtosis the biased, Fisher (excess) ones of scipy.stats,
    computed in float64 about a pixel of each window; a window's values depend on its own pixels only, to the
    bit. Minimum, maximum and median are exact in float32; quantiles are NumPy's (method "linear"), rounded
    once from float64. A constant window has standard deviation 0, and skewness and kurtosis NaN.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy or torch, any real dtype; taken to float32, so subtract a large offset of
        float64 data first where the digits behind it matter.
    size
        Edge of a window in pixels.
    statistics
        Names out of mean, std, variance, skewness, kurtosis, energy (mean square), min, max, range, median,
        and "qNN" for a quantile (q05, q25, q75, q95 ...), in the order wanted.
    mask
        (..., H-size+1, W-size+1): the windows wanted, index = top-left corner.
    out
        Memory to write into: float32, C-contiguous, of the result's kind and shape. Where many results of one
        shape are made, pages are then cleared by the system only once. It is left as it is where the image
        is refused.

    Returns
    -------
    (S, ..., H-size+1, W-size+1) float32, or (S, M) where a mask is given, windows in C order; of the image's
    kind, on its device.

    Raises
    ------
    InputError
        If an argument cannot be used, or the image holds NaN or Inf.
    DeviceError
        If the image is on a device that the kernels cannot use.
    """
    stack = _native.as_stack(image, check=False)
    size = _native.check_size(size, stack)
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    windows = _native.as_windows(stack, size, mask)
    result = _native.window_statistics(stack, size, names, windows, out=out)
    return out if out is not None else _native.to_caller(result, stack)
