"""Compute statistics of the sliding windows of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy.typing as npt
import torch

from t3ssfast.kernels import _native, operators
from t3ssfast.kernels._native import Array

__all__ = ["window_statistics"]

Image = TypeVar("Image", npt.NDArray[Any], torch.Tensor)

DEFAULT_STATISTICS = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")


def window_statistics(
    image: Image,
    size: int = 50,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    *,
    mask: Array | None = None,
    out: Image | None = None,
) -> Image:
    """Compute statistics of every valid window at stride 1, or of the windows that a mask selects.

    Moments are population moments; skewness and kurtosis are the biased, Fisher (excess) ones of
    scipy.stats. They are computed in float64 relative to a pixel of the window, and depend on the window's
    pixels only, bit for bit. Minimum, maximum and median are exact in float32; quantiles are NumPy's
    (method "linear"), rounded once from float64. A constant window has standard deviation 0, and skewness
    and kurtosis NaN. Not differentiable: an image that requires a gradient is refused. Inside `torch.compile`
    it is one operator; with a mask the number of windows depends on the data, for which
    ``torch._dynamo.config.capture_dynamic_output_shape_ops`` must be set.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy array, torch tensor or DLPack object (CuPy ...) of any real dtype;
        converted to float32. A DLPack object gives a torch tensor. Subtract a large offset from float64 data
        first if the digits behind it matter.
    size
        Side of a window in pixels.
    statistics
        Names of the statistics, in the order of the result: mean, std, variance, skewness, kurtosis, energy
        (mean square), min, max, range, median, and "qNN" for a quantile (q05, q25, q75, q95 ...).
    mask
        (..., H-size+1, W-size+1), bool or uint8: the windows to use, indexed by their top-left corner.
    out
        Array or tensor to write into: float32, C-contiguous, of the type and shape of the result. Reusing it
        saves the time in which the system clears new memory. It is left unchanged if the image is refused.

    Returns
    -------
    (S, ..., H-size+1, W-size+1) float32, or (S, M) if a mask is given, windows in C order; `out` if it was
    given.

    Raises
    ------
    InputError
        If an argument is invalid, or the image contains NaN or Inf.
    DeviceError
        If the kernels cannot use the image's device.
    """
    operators.refuse_gradient(image, "window_statistics")
    if out is None and operators.needs_operator(image):
        joined = statistics if isinstance(statistics, str) else ",".join(statistics)
        return cast(Image, operators.window_statistics(image, size, joined, mask))
    stack = _native.as_stack(image, check=False)
    size = _native.check_size(size, stack)
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    windows = _native.as_windows(stack, size, mask)
    result = _native.window_statistics(stack, size, names, windows, out=out)
    return cast(Image, _native.to_caller(result, stack)) if out is None else out
