"""Windows of an image, one after the other in memory."""

from __future__ import annotations

from typing import Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels._native import Array

__all__ = ["unfold"]

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def _element_type(dtype: object, out: Array | None) -> torch.dtype:
    if dtype is None:
        if out is None:
            return torch.float32
        dtype = out.dtype
    name = (
        str(dtype).removeprefix("torch.")
        if isinstance(dtype, str | torch.dtype)
        else np.dtype(cast(Any, dtype)).name
    )
    if name not in _DTYPES:
        raise InputError(f"dtype is {dtype}; give one of {', '.join(_DTYPES)}.")
    return _DTYPES[name]


@overload
def unfold(
    image: torch.Tensor,
    size: int = ...,
    *,
    mask: Array | None = ...,
    normalise: Literal["zscore"] | None = ...,
    dtype: torch.dtype | str | None = ...,
    out: torch.Tensor | None = ...,
) -> torch.Tensor: ...
@overload
def unfold(
    image: npt.NDArray[Any],
    size: int = ...,
    *,
    mask: Array | None = ...,
    normalise: Literal["zscore"] | None = ...,
    dtype: npt.DTypeLike | None = ...,
    out: npt.NDArray[Any] | None = ...,
) -> npt.NDArray[Any]: ...
def unfold(
    image: Array,
    size: int = 50,
    *,
    mask: Array | None = None,
    normalise: Literal["zscore"] | None = None,
    dtype: object = None,
    out: Array | None = None,
) -> Array:
    """Every valid window of an image at stride 1, or those that a mask asks for.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy or torch, any real dtype; taken to float32.
    size
        Edge of a window in pixels.
    mask
        (..., H-size+1, W-size+1): the windows wanted, index = top-left corner.
    normalise
        "zscore" brings each window to mean 0 and (population) standard deviation 1, a constant one to zeros.
    dtype
        Of the answer: float32 (default), float16, or, for tensors, bfloat16.
    out
        (M, size, size) C-contiguous array to write into, of that dtype, and of the image's kind and device.

    Returns
    -------
    (M, size, size), windows in C order; `out` where it was given.

    Raises
    ------
    InputError
        If an argument cannot be used, or the image holds NaN or Inf.
    DeviceError
        If the image is on a device that the kernels cannot use.
    """
    if normalise not in (None, "zscore"):
        raise InputError(f'normalise is {normalise!r}; give None or "zscore".')
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    element = _element_type(dtype, out)
    if stack.is_numpy and element is torch.bfloat16:
        raise InputError("dtype is bfloat16, which NumPy does not have; give a torch tensor as the image.")
    shape = (windows.count, size, size)
    if out is None:
        target, used = _native.empty_windows(shape, element, stack.device)
    else:
        target, used = _native.check_out(out, shape, element, stack), True
    stream = used and target.nbytes >= _native.STREAM_BYTES
    _native.unfold(stack, size, windows, zscore=normalise is not None, out=target, stream=stream)
    return _native.to_caller(target, stack) if out is None else out
