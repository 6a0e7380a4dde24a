"""The kernel unfold: copies windows to consecutive memory."""

from __future__ import annotations

import numpy as np
import torch

from t3ssfast.kernels._native.extension import core, current_device
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.windows import Windows
from t3ssfast.runtime import buffer_pool

__all__ = ["STREAM_BYTES", "empty_windows", "unfold"]

_ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

# From this size on, reused memory is written with non-temporal stores: cache lines are not read before they
# are overwritten, which is a third faster than a plain copy. Newly mapped pages, which the kernel has just
# zeroed, are in the caches and are written through them.
STREAM_BYTES = 32 << 20


def empty_windows(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Return memory for windows, and whether it is reused.

    On a CPU the memory comes from `runtime.buffer_pool`, in huge pages.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device), False
    memory, reused = buffer_pool.empty(shape, np.float32 if dtype is torch.float32 else np.int16)
    return torch.from_numpy(memory).view(dtype), reused


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
    """Copy windows to `out`.

    Parameters
    ----------
    stack, size, windows
        Images, window edge in pixels, and the requested windows.
    zscore
        Whether to scale each window to mean 0 and standard deviation 1.
    out
        (M, size, size) float32, float16 or bfloat16, C-contiguous, on the images' device.
    stream
        On a CPU: whether to use non-temporal stores; see `STREAM_BYTES`.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    if windows.count == 0:
        return
    element = _ELEMENTS[out.dtype]
    arguments = (stack.native, size, zscore, element, windows.native, out.data_ptr())
    if stack.device.type == "cuda":
        with current_device(stack.device) as launch:
            core.unfold_cuda(*arguments, launch)
    else:
        core.unfold_cpu(*arguments, stream, threads or torch.get_num_threads())
