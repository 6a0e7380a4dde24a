"""The family that writes windows one after the other."""

from __future__ import annotations

import numpy as np
import torch

from t3ssfast.kernels._native.extension import core, launch_of
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.windows import Windows
from t3ssfast.runtime import buffer_pool

__all__ = ["STREAM_BYTES", "empty_windows", "unfold"]

_ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

# Outputs of which nothing is left in the caches at the end: written past them, a line is not read before it
# is overwritten, which is a third faster than a plain copy. Pages that the system has just cleared are in
# the caches, so new memory is written through them.
STREAM_BYTES = 32 << 20


def empty_windows(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Memory for windows, and whether it has been used before; on a CPU in huge pages (`pages`)."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device), False
    memory, used = buffer_pool.empty(shape, np.float32 if dtype is torch.float32 else np.int16)
    return torch.from_numpy(memory).view(dtype), used


def unfold(
    stack: ImageStack,
    size: int,
    windows: Windows,
    *,
    zscore: bool,
    out: torch.Tensor,
    stream: bool = False,
    threads: int | None = None,
) -> None:
    """Write windows one after the other into `out`.

    Parameters
    ----------
    stack, size, windows
        Images, edge of a window, and which windows.
    zscore
        Whether each window is brought to mean 0 and standard deviation 1.
    out
        (M, size, size) float32, float16 or bfloat16, C-contiguous, on the images' device.
    stream
        On a CPU: whether to write past the caches; see `STREAM_BYTES`.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    if windows.count == 0:
        return
    element = _ELEMENTS[out.dtype]
    arguments = (
        stack.address,
        *stack.geometry,
        size,
        zscore,
        element,
        windows.address,
        windows.count,
        out.data_ptr(),
    )
    if stack.device.type == "cuda":
        core.unfold_cuda(*arguments, *launch_of(stack.device))
    else:
        core.unfold_cpu(*arguments, stream, threads or torch.get_num_threads())
