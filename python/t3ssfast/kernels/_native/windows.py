"""The requested windows of a stack of images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels._native.images import Array, ImageStack, array_of
from t3ssfast.kernels._native.mask_voxels import flat_nonzero

__all__ = ["Windows", "as_windows", "check_size"]


@dataclass(frozen=True)
class Windows:
    """Requested windows: all (`index` is None), or M ascending flat indices on the images' device."""

    shape: tuple[int, ...]
    index: torch.Tensor | None

    @property
    def count(self) -> int:
        """Number of requested windows."""
        return math.prod(self.shape) if self.index is None else len(self.index)

    @property
    def native(self) -> tuple[int, int]:
        """(address of the indices, count) for the native kernels; address 0 means every window."""
        return 0 if self.index is None else self.index.data_ptr(), self.count

    def listed(self, shape: tuple[int, ...], stride: int, device: torch.device) -> Windows:
        """Return the same windows as a list among those of a shape, of which these are every `stride`-th."""
        index = torch.arange(self.count, device=device) if self.index is None else self.index
        row, x = index // self.shape[-1], index % self.shape[-1]
        number, y = row // self.shape[-2], row % self.shape[-2]
        return Windows(shape, ((number * shape[-2] + y * stride) * shape[-1] + x * stride).contiguous())


def check_size(size: int, stack: ImageStack, *, name: str = "image") -> int:
    """Return the window edge as an int.

    Raises
    ------
    InputError
        If it is no whole number, below 1, or larger than the images.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise InputError(f"size is {size!r}; give the window edge as a whole number of pixels.")
    height, width = stack.shape[-2:]
    if size < 1:
        raise InputError(f"size is {size}; give 1 or more pixels.")
    if size > min(height, width):
        raise InputError(
            f"{name} is {height} x {width} pixels, smaller than one window of {size} x {size}; "
            "give a larger image or a smaller size."
        )
    return int(size)


def as_windows(stack: ImageStack, size: int, mask: Array | None, stride: int = 1) -> Windows:
    """Return the windows that a mask selects; every valid one where it is None.

    Parameters
    ----------
    stack, size
        Images and window edge in pixels.
    mask
        (..., H-size+1, W-size+1), NumPy or torch, index = top-left corner; nonzero where requested. With a
        stride, one entry for each row and column at which a window begins.
    stride
        Windows begin at every `stride`-th row and column.

    Raises
    ------
    InputError
        If the mask has the wrong type or shape.
    """
    shape = stack.window_shape(size, stride)
    if mask is None:
        return Windows(shape, None)
    mask = array_of(mask, "mask")
    if tuple(mask.shape) != shape:
        raise InputError(
            f"mask has shape {tuple(mask.shape)}, but the valid windows of {size} pixels have shape {shape}; "
            "give one entry for each top-left corner."
        )
    if isinstance(mask, torch.Tensor):
        index = torch.nonzero(mask.detach().reshape(-1)).reshape(-1)
    else:
        index = torch.from_numpy(flat_nonzero(mask))
    return Windows(shape, index.to(device=stack.device, dtype=torch.int64).contiguous())
