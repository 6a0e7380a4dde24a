"""Windows of an image, one after the other in memory."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast import _native
from t3ssfast._native import Array
from t3ssfast.errors import InputError

__all__ = ["pad_by_reflection", "pad_for_windows", "unfold"]

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


Slab = TypeVar("Slab", npt.NDArray[np.float32], torch.Tensor)


def pad_for_windows(slab: Slab, size: int) -> Slab:
    """Pad slices by reflection, so that the valid windows of the result are centred on the voxels of `slab`.

    A window of size n centred at c covers c - n//2 ... c - n//2 + n - 1: its top-left corner in the padded
    slice is c itself, and a mask over windows has the shape of the slab.

    Parameters
    ----------
    slab
        (z, y, x) values.
    size
        Side of the windows in pixels.

    Returns
    -------
    (z, y + size - 1, x + size - 1) values, of the kind of `slab` and on its device.
    """
    around = size // 2, size - 1 - size // 2
    return pad_by_reflection(slab, around, around)


def pad_by_reflection(slab: Slab, rows: tuple[int, int], columns: tuple[int, int]) -> Slab:
    """Slices with so many rows more before and after, and columns.

    Parameters
    ----------
    slab
        (z, y, x) values.
    rows, columns
        How many; they may be more than there are, as for `numpy.pad`.
    """
    if isinstance(slab, torch.Tensor):
        for axis, pad in ((1, rows), (2, columns)):
            if pad != (0, 0):
                source = np.pad(np.arange(slab.shape[axis]), pad, mode="reflect")
                slab = slab.index_select(axis, torch.from_numpy(source).to(slab.device))
        return slab
    return np.pad(slab, ((0, 0), rows, columns), mode="reflect")
