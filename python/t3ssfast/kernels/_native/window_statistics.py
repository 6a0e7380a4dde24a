"""The kernel window_statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from t3ssfast.errors import InputError
from t3ssfast.kernels._native.extension import core, current_device
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
"""Names of the statistics in the order of the native enumeration; quantiles ("q05") are additional."""

_QUANTILE = len(STATISTICS)
_FIRST_ORDER = STATISTICS.index("median")

# Like `unfold.STREAM_BYTES`; smaller because the image is read again for every group of statistics.
STREAM_BYTES = 16 << 20


def request_of(name: str) -> tuple[int, float]:
    """Return a statistic as the kernels read it: its native number and its quantile."""
    if name in STATISTICS:
        return STATISTICS.index(name), 0.5
    if isinstance(name, str) and name[:1] == "q" and name[1:].isdecimal() and int(name[1:]) <= 100:
        return _QUANTILE, int(name[1:]) / 100
    raise InputError(
        f"statistic {name!r} is not known; use {', '.join(STATISTICS)}, or q00 to q100 for a quantile."
    )


def _empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return an uninitialised float32 result; on the CPU in NumPy's memory, which requests huge pages.

    Tiles write to many places at once; with small pages the page faults took a third of the time.
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
    """Compute statistics of windows.

    Parameters
    ----------
    stack, size, windows
        Images, window edge in pixels, and the requested windows.
    statistics
        Names: those of `STATISTICS`, or "qNN".
    out
        Array of the result's shape, given by the caller; a new one where None. On a CPU it is written with
        non-temporal stores from `STREAM_BYTES` on.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    (S, ..., H-size+1, W-size+1) float32, or (S, M) if windows are listed; on the images' device.

    Raises
    ------
    InputError
        If a name is unknown, no name is given, `out` does not match, or a value is NaN or Inf. On a CUDA
        device `out` may then have been written.
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
    arguments = (stack.native, size, requests, windows.native, target.data_ptr())
    if stack.device.type == "cuda":
        # The kernel of moments and extrema reads every pixel if every window is requested, and can check it.
        reads_all = windows.index is None and any(kind < _FIRST_ORDER for kind, _ in requests)
        found = stack.no_nonfinite() if reads_all and stack.unchecked is not None else None
        if found is None:
            stack.check_finite()
        with current_device(stack.device) as launch:
            needed = core.window_statistics_workspace_cuda(stack.native, size, requests, launch[0])
            workspace = torch.empty(needed, dtype=torch.uint8, device=stack.device)
            address = 0 if found is None else found.data_ptr()
            core.window_statistics_cuda(*arguments, workspace.data_ptr(), needed, address, launch)
        if found is not None:
            stack.raise_found(found)
    else:
        stream = out is not None and target.nbytes >= STREAM_BYTES
        # The check shares the parallel region of the statistics: waking threads takes as long as the check.
        check = stack.unchecked is not None
        threads = threads or torch.get_num_threads()
        stack.raise_nonfinite(core.window_statistics_cpu(*arguments, stream, check, threads))
    return target
