"""Slow reference implementations in float64: NumPy and SciPy on every window."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

FloatArray = npt.NDArray[np.float64]


def windows_of(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return the pixels of each window: (..., H-size+1, W-size+1, size * size)."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(-2, -1))
    return view.reshape(*view.shape[:-2], size * size)


def statistic(image: npt.NDArray[np.float32], size: int, name: str) -> FloatArray:
    """Return one statistic of every window, in float64; medians and extrema in float32, like NumPy."""
    pixels = windows_of(image, size)
    wide = pixels.astype(np.float64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if name == "mean":
            return wide.mean(-1)
        if name == "std":
            return wide.std(-1)
        if name == "variance":
            return wide.var(-1)
        if name == "skewness":
            return _nan_where_constant(pixels, scipy.stats.skew(wide, axis=-1))
        if name == "kurtosis":
            return _nan_where_constant(pixels, scipy.stats.kurtosis(wide, axis=-1))
        if name == "energy":
            return (wide**2).mean(-1)
        if name == "min":
            return pixels.min(-1)
        if name == "max":
            return pixels.max(-1)
        if name == "range":
            return pixels.max(-1) - pixels.min(-1)
        if name == "median":
            return np.median(pixels, axis=-1)
        return np.quantile(wide, int(name[1:]) / 100, axis=-1)


def _nan_where_constant(pixels: npt.NDArray[Any], values: npt.NDArray[Any]) -> FloatArray:
    return np.where(pixels.min(-1) == pixels.max(-1), np.nan, values)


def zscored(windows: npt.NDArray[Any]) -> FloatArray:
    """Scale (M, n, n) windows to mean 0 and standard deviation 1; constant windows become zeros."""
    wide = windows.astype(np.float64)
    centred = wide - wide.mean((1, 2), keepdims=True)
    constant = (windows.min((1, 2)) == windows.max((1, 2)))[:, None, None]
    deviation = np.where(constant, 1.0, wide.std((1, 2), keepdims=True))
    return np.where(constant, 0.0, centred / deviation)
