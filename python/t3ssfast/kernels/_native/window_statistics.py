"""The family of window statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels._native.extension import core, launch_of
from t3ssfast.kernels._native.images import Array, ImageStack
from t3ssfast.kernels._native.results import check_out
from t3ssfast.kernels._native.windows import Windows

__all__ = ["STATISTICS", "request_of", "window_statistics"]

STATISTICS = (
    "mean",
    "std",
    "variance",
    "skewness",
    "kurtosis",
    "energy",
    "min",
    "max",
    "range",
    "median",
)
"""Names of the statistics in the order of the native enumeration; quantiles ("q05") come on top."""

_QUANTILE = len(STATISTICS)

# As `unfold.STREAM_BYTES`, for statistics, which look at the image again for every family of them.
STREAM_STATISTICS_BYTES = 16 << 20


def request_of(name: str) -> tuple[int, float]:
    """A statistic as the kernels know it: its native number, and which quantile."""
    if name in STATISTICS:
        return STATISTICS.index(name), 0.5
    if isinstance(name, str) and name[:1] == "q" and name[1:].isdecimal() and int(name[1:]) <= 100:
        return _QUANTILE, int(name[1:]) / 100
    raise InputError(
        f"statistic {name!r} is not known; give names out of {', '.join(STATISTICS)}, "
        "or q00 to q100 for a quantile."
    )


def _empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """An uninitialised float32 result; on the CPU in NumPy's memory, which asks for huge pages.

    Tiles write to many places at once: in small pages the first touch of a result took a third of the time.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


def window_statistics(
    stack: ImageStack,
    size: int,
    statistics: Sequence[str],
    windows: Windows,
    *,
    out: Array | None = None,
    threads: int | None = None,
) -> torch.Tensor:
    """Statistics of windows.

    Parameters
    ----------
    stack, size, windows
        Images, edge of a window, and which windows.
    statistics
        Names: those of `STATISTICS`, or "qNN".
    out
        Memory of the result's shape, as the caller gave it; new memory where None. On a CPU it is written
        past the caches from `STREAM_STATISTICS_BYTES` on.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    (S, ..., H-size+1, W-size+1) float32, or (S, M) where windows are listed; on the images' device.

    Raises
    ------
    InputError
        If a name is not known, none is given, `out` cannot be used, or a value is not finite.
    """
    requests = [request_of(name) for name in statistics]
    if not requests:
        raise InputError("statistics is empty; give at least one name.")
    shape = windows.shape if windows.index is None else (windows.count,)
    shape = (len(requests), *shape)
    target = _empty(shape, stack.device) if out is None else check_out(out, shape, torch.float32, stack)
    if windows.count == 0:
        stack.check_finite()
        return target
    arguments = (
        stack.address,
        *stack.geometry,
        size,
        requests,
        windows.address,
        windows.count,
        target.data_ptr(),
    )
    if stack.device.type == "cuda":
        stack.check_finite()
        device, stream = launch_of(stack.device)
        needed = core.window_statistics_workspace_cuda(*stack.geometry, size, requests, device)
        workspace = torch.empty(needed, dtype=torch.uint8, device=stack.device)
        core.window_statistics_cuda(*arguments, workspace.data_ptr(), needed, device, stream)
    else:
        stream = out is not None and target.nbytes >= STREAM_STATISTICS_BYTES
        # In the same round of threads as the statistics: to wake them for this alone takes as long.
        check = stack.unchecked is not None
        threads = threads or torch.get_num_threads()
        first = core.window_statistics_cpu(*arguments, stream, check, threads)
        stack.refuse_nonfinite(first)
    return target
