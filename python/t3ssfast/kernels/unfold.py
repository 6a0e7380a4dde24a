"""Extract the sliding windows of an image into one contiguous array."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels import _native, operators
from t3ssfast.kernels._native import Array

__all__ = ["unfold"]

Image = TypeVar("Image", npt.NDArray[Any], torch.Tensor)

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def unfold(
    image: Image,
    size: int = 50,
    *,
    mask: Array | None = None,
    normalise: Literal["zscore"] | None = None,
    dtype: npt.DTypeLike | torch.dtype | None = None,
    out: Image | None = None,
) -> Image:
    """Extract every valid window of an image at stride 1, or the windows that a mask selects.

    Differentiable without `normalise`: the gradient of the image is the sum of the windows' gradients at
    their places. Inside `torch.compile` it is one operator; with a mask the number of windows depends on the
    data, for which ``torch._dynamo.config.capture_dynamic_output_shape_ops`` must be set.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy array, torch tensor or DLPack object (CuPy ...) of any real dtype;
        converted to float32. A DLPack object gives a torch tensor.
    size
        Side of a window in pixels.
    mask
        (..., H-size+1, W-size+1), bool or uint8: the windows to extract, indexed by their top-left corner.
    normalise
        "zscore": shift and scale each window to mean 0 and population standard deviation 1. A constant
        window becomes zeros.
    dtype
        Dtype of the result: float32 (the default), float16, or, for tensors, bfloat16.
    out
        (M, size, size) C-contiguous array to write into, of that dtype and on the image's device; an array
        if the image is an array, a tensor if it is a tensor.

    Returns
    -------
    (M, size, size) windows in C order; `out` if it was given.

    Raises
    ------
    InputError
        If an argument is invalid, or the image contains NaN or Inf.
    DeviceError
        If the kernels cannot use the image's device.
    """
    if normalise not in (None, "zscore"):
        raise InputError(f'normalise is {normalise!r}; give None or "zscore".')
    if operators.needs_operator(image):
        return cast(Image, _by_operator(image, size, mask, normalise, dtype, out))
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    if dtype is None:
        dtype = torch.float32 if out is None else out.dtype
    torch_dtype = _torch_dtype(dtype)
    if stack.is_numpy and torch_dtype is torch.bfloat16:
        raise InputError("dtype is bfloat16, which NumPy does not have; give a torch tensor as the image.")
    shape = (windows.count, size, size)
    if out is None:
        target, pages_in_use = _native.empty_windows(shape, torch_dtype, stack.device)
    else:
        target, pages_in_use = _native.check_out(out, shape, torch_dtype, stack), True
    stream = pages_in_use and target.nbytes >= _native.STREAM_BYTES
    _native.unfold(stack, size, windows, zscore=normalise is not None, out=target, stream=stream)
    return cast(Image, _native.to_caller(target, stack)) if out is None else out


def _by_operator(
    image: Any, size: int, mask: Array | None, normalise: str | None, dtype: Any, out: Any
) -> Any:
    """Extract windows by a PyTorch operator, which `torch.compile` and autograd know."""
    if out is not None:
        raise InputError(
            "out is given, but the image requires a gradient or the call is compiled; leave out None."
        )
    if mask is not None and not isinstance(mask, torch.Tensor):
        mask = torch.from_numpy(mask).to(image.device)
    torch_dtype = torch.float32 if dtype is None else _torch_dtype(dtype)
    return operators.unfold(image, size, mask, normalise is not None, torch_dtype)


def _torch_dtype(dtype: npt.DTypeLike | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if not isinstance(dtype, str | torch.dtype):
        dtype = np.dtype(dtype).name
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise InputError(f"dtype is {dtype}; give one of {', '.join(_DTYPES)}.")
    return _DTYPES[name]
