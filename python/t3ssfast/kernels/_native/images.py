"""Stacks of images, checked and converted to what the kernels read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from t3ssfast.errors import DeviceError, InputError
from t3ssfast.kernels._native.extension import core
from t3ssfast.tomogram import Array

__all__ = ["Array", "ImageStack", "as_stack"]


@dataclass(frozen=True)
class ImageStack:
    """Images of one call, as the kernels read them.

    Parameters
    ----------
    data
        (N, H, W) float32, C-contiguous; a tensor or an array that owns or shares the pixels.
    shape
        Of the caller's array: (H, W) or (N, H, W).
    device
        Where the pixels are.
    is_numpy
        Whether the caller gave, and gets, NumPy arrays.
    unchecked
        The caller's array, where nobody has looked yet whether its values are finite; else None.
    """

    data: Array
    shape: tuple[int, ...]
    device: torch.device
    is_numpy: bool
    unchecked: Array | None = None

    @property
    def address(self) -> int:
        """Address of the first pixel."""
        return self.data.data_ptr() if isinstance(self.data, torch.Tensor) else int(self.data.ctypes.data)

    @property
    def geometry(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, height, width = self.data.shape
        return int(count), int(height), int(width)

    def window_shape(self, size: int) -> tuple[int, ...]:
        """Shape of the valid windows: the caller's shape, H and W shortened by size - 1."""
        *leading, height, width = self.shape
        return (*leading, height - size + 1, width - size + 1)

    def check_finite(self) -> None:
        """Raises InputError at the first value that is not finite, where nobody has looked yet."""
        if self.unchecked is None:
            return
        if isinstance(self.data, torch.Tensor) and self.data.device.type == "cuda":
            bad = torch.logical_not(torch.isfinite(self.data)).reshape(-1)
            first = int(torch.argmax(bad.to(torch.uint8))) if bool(bad.any()) else -1
        else:
            first = core.first_nonfinite(self.address, math.prod(self.geometry), torch.get_num_threads())
        self.refuse_nonfinite(first)

    def refuse_nonfinite(self, first: int) -> None:
        """Raises InputError that tells of the value at a flat index; -1 stands for none."""
        if first < 0 or self.unchecked is None:
            return
        where = tuple(int(i) for i in np.unravel_index(first, self.shape))
        value = float(self.unchecked[where])
        beyond = " (beyond float32)" if np.isfinite(value) else ""
        raise InputError(
            f"image holds {value:g}{beyond} at index {where}; replace or crop values that are not finite."
        )


def _check_device(device: torch.device) -> None:
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise DeviceError(f"image is on device {device}; move it to the CPU or to a CUDA device.")
    info = core.build_info()
    if not info["cuda_devices"]:
        raise DeviceError(
            f"image is on device {device}, but the CUDA kernels cannot run ({info['cuda_problem']}); "
            "move it to the CPU."
        )


def as_stack(image: Array, *, check: bool = True) -> ImageStack:
    """Images as the kernels read them: float32, C-contiguous, finite.

    Values of any real dtype are rounded to float32, so float64 values (and integers above 2^24) keep about
    seven digits: subtract a large offset first where the digits behind it matter. Copies only where dtype or
    layout ask for it.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy or torch, any real dtype (bool included), any layout.
    check
        Whether to look for NaN and Inf here; where not, whoever reads the pixels does, as
        `ImageStack.unchecked` tells.

    Raises
    ------
    InputError
        If it is no such array, has an empty axis, or holds NaN or Inf; says where.
    DeviceError
        If it is on a device that the kernels cannot use.
    """
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise InputError(f"image is of type {type(image).__name__}; give a NumPy array or a torch tensor.")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (2, 3):
        raise InputError(f"image has shape {shape}; give (H, W), or (N, H, W) for a stack.")
    if min(shape[-2:]) == 0:
        raise InputError(f"image has shape {shape}, without a pixel; give an image of at least 1 x 1.")
    data: Array
    if isinstance(image, torch.Tensor):
        if image.is_complex() or image.is_quantized or image.layout != torch.strided:
            raise InputError(f"image is a {image.dtype} tensor; give a dense one of real numbers.")
        _check_device(image.device)
        device, data = image.device, image.detach().to(torch.float32).contiguous()
        data = data.resolve_neg().reshape(-1, *shape[-2:])
    else:
        if image.dtype.kind not in "biuf":
            raise InputError(f"image has dtype {image.dtype}; give real numbers.")
        device = torch.device("cpu")
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(image, dtype=np.float32).reshape(-1, *shape[-2:])
    whole = image.dtype in (np.uint8, np.int8, np.uint16, np.int16, torch.uint8, torch.int8, torch.int16)
    stack = ImageStack(data, shape, device, isinstance(image, np.ndarray), None if whole else image)
    if not check:
        return stack
    stack.check_finite()
    return replace(stack, unchecked=None)
