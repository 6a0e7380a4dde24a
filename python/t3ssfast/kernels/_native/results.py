"""Results in the caller's memory, and as the caller's type of array."""

from __future__ import annotations

import numpy as np
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels._native.images import Array, ImageStack

__all__ = ["check_out", "to_caller"]


def check_out(out: Array, shape: tuple[int, ...], dtype: torch.dtype, stack: ImageStack) -> torch.Tensor:
    """Return the caller's `out` array as a tensor that shares its memory.

    Parameters
    ----------
    out
        Array given by the caller.
    shape, dtype
        Required shape and dtype.
    stack
        The images; `out` must be of their array type and on their device.

    Raises
    ------
    InputError
        If the array type, shape, dtype or device differs, or the memory is read-only or not contiguous.
    """
    if isinstance(out, np.ndarray) != stack.is_numpy or not isinstance(out, np.ndarray | torch.Tensor):
        expected = "a NumPy array" if stack.is_numpy else "a torch tensor"
        raise InputError(f"out is of type {type(out).__name__}; give {expected}, like the image.")
    if isinstance(out, np.ndarray):
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise InputError("out is read-only or not C-contiguous; give a writable C-contiguous array.")
        tensor = torch.from_numpy(out) if out.dtype.kind == "f" else torch.empty(0, dtype=torch.int64)
    else:
        if not out.is_contiguous() or out.requires_grad:
            raise InputError("out is not contiguous or requires a gradient; give a plain tensor.")
        tensor = out
    if tuple(out.shape) != shape or tensor.dtype != dtype or tensor.device != stack.device:
        raise InputError(
            f"out has shape {tuple(out.shape)} and dtype {out.dtype} on {tensor.device}; "
            f"give shape {shape} and dtype {str(dtype).removeprefix('torch.')} on {stack.device}."
        )
    return tensor


def to_caller(result: torch.Tensor, stack: ImageStack) -> Array:
    """Return a result as the caller's type of array."""
    return result.numpy() if stack.is_numpy else result
