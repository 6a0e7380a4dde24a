"""Stacks of images, checked and converted for the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from t3ssfast.errors import DeviceError, InputError
from t3ssfast.kernels._native.extension import core, current_device
from t3ssfast.tomogram import Array

__all__ = ["Array", "ImageStack", "array_of", "as_stack"]


@dataclass(frozen=True)
class ImageStack:
    """Images in the form that the kernels read.

    Parameters
    ----------
    data
        (N, H, W) float32, C-contiguous.
    shape
        Shape of the caller's array: (H, W) or (N, H, W).
    device
        Device of the pixels.
    is_numpy
        Whether the caller gave a NumPy array, and results are NumPy arrays.
    unchecked
        The caller's array if its values have not been checked for NaN and Inf, otherwise None.
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
    def native(self) -> tuple[int, int, int, int]:
        """(address, N, H, W), the argument of the native kernels."""
        count, height, width = self.data.shape
        return self.address, int(count), int(height), int(width)

    def window_shape(self, size: int, stride: int = 1) -> tuple[int, ...]:
        """Return the shape of the valid windows that begin at every `stride`-th row and column.

        With a stride of 1 that is the caller's shape, with H and W reduced by size - 1.
        """
        *leading, height, width = self.shape
        return (*leading, (height - size) // stride + 1, (width - size) // stride + 1)

    def check_finite(self) -> None:
        """Raise InputError if an unchecked stack contains NaN or Inf."""
        if self.unchecked is None:
            return
        count = math.prod(self.data.shape)
        if self.device.type == "cuda":
            found = self.no_nonfinite()
            with current_device(self.device) as launch:
                core.first_nonfinite_cuda(self.address, count, found.data_ptr(), launch)
            self.raise_found(found)
        else:
            self.raise_nonfinite(core.first_nonfinite(self.address, count, torch.get_num_threads()))

    def no_nonfinite(self) -> torch.Tensor:
        """Return the number of pixels on the device, which a kernel lowers to the index of a NaN or Inf."""
        return torch.full((1,), math.prod(self.data.shape), dtype=torch.int64, device=self.device)

    def raise_found(self, found: torch.Tensor) -> None:
        """Raise InputError if a kernel has lowered the result of `no_nonfinite`; waits for the kernel."""
        first = int(found)
        self.raise_nonfinite(None if first == math.prod(self.data.shape) else first)

    def raise_nonfinite(self, first: int | None) -> None:
        """Raise InputError for the value at flat index `first`; do nothing where it is None."""
        if first is None or self.unchecked is None:
            return
        position = tuple(int(i) for i in np.unravel_index(first, self.shape))
        value = float(self.unchecked[position])
        beyond = " (beyond float32)" if np.isfinite(value) else ""
        raise InputError(
            f"image holds {value:g}{beyond} at index {position}; replace or crop values that are not finite."
        )


def array_of(value: Any, name: str) -> Array:
    """Return a NumPy array or torch tensor as it is, and an object with DLPack, such as CuPy's, as a tensor.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(value, np.ndarray | torch.Tensor):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return torch.utils.dlpack.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(
                f"{name} of type {type(value).__name__} cannot be read by DLPack ({error}); "
                "give a NumPy array or a torch tensor."
            ) from error
    raise InputError(f"{name} is of type {type(value).__name__}; give a NumPy array or a torch tensor.")


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
    """Convert images for the kernels: float32, C-contiguous, finite.

    All real dtypes are rounded to float32, so float64 values and integers above 2^24 keep about seven digits;
    subtract a large offset first if smaller differences matter. Copies only if dtype or layout require it.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy, torch or DLPack, any real dtype (bool included), any layout.
    check
        Whether to check for NaN and Inf now; otherwise the kernel does (`ImageStack.unchecked`).

    Raises
    ------
    InputError
        If it is no such array, has an empty axis, or contains NaN or Inf; names the position.
    DeviceError
        If it is on a device that the kernels do not support.
    """
    image = array_of(image, "image")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (2, 3):
        raise InputError(f"image has shape {shape}; give (H, W), or (N, H, W) for a stack.")
    if min(shape[-2:]) == 0:
        raise InputError(f"image has shape {shape}, without a pixel; give an image of at least 1 x 1 pixels.")
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
    is_integer = image.dtype in (np.uint8, np.int8, np.uint16, np.int16, torch.uint8, torch.int8, torch.int16)
    stack = ImageStack(data, shape, device, isinstance(image, np.ndarray), None if is_integer else image)
    if not check:
        return stack
    stack.check_finite()
    return replace(stack, unchecked=None)
