"""Reuse of the memory of large results, because zeroing new pages dominates the cost of writing them."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import platform
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_KEPT_BYTES", "MIN_POOLED_BYTES", "empty", "retain_freed_memory"]

# The C library's allocator reuses smaller blocks by itself.
MIN_POOLED_BYTES = 32 << 20
# The memory of larger results goes back to the system at once.
MAX_KEPT_BYTES = 512 << 20
# Memory is kept only if the system can reclaim it when it runs short.
_CAN_KEEP = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MAP_ANONYMOUS")

# Parameters of mallopt in glibc's malloc.h. M_TRIM_THRESHOLD: free memory at the top of the heap that is
# kept (-1: all). M_MMAP_THRESHOLD: size from which a block is a separate mapping. M_MMAP_MAX: maximum
# number of mappings.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# Threshold that glibc adapts to in a process that frees large blocks, and its default number of mappings.
ADAPTED_MMAP_THRESHOLD, DEFAULT_MMAP_MAX = 32 << 20, 1 << 16

# The region freed last; appending drops the one before. Append and pop are atomic, so a finaliser may run
# anywhere.
_kept: deque[mmap.mmap] = deque(maxlen=1)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], bool]:
    """Return an uninitialised array, and whether its pages have been in use before.

    The region of the last result of up to `MAX_KEPT_BYTES` is kept after it is freed, and reused for a result
    of at least half its size. The system may reclaim it meanwhile.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape) * dtype.itemsize
    if count < MIN_POOLED_BYTES or not _CAN_KEEP:
        return np.empty(shape, dtype), False
    try:
        region = _kept.pop()
        reused = count <= len(region) <= 2 * count
    except IndexError:
        reused = False
    if not reused:
        region = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Not every system has huge pages.
        with contextlib.suppress(OSError, AttributeError):
            region.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(region, np.uint8, count)
    # All views refer to `memory`, so this runs when the last of them is gone.
    weakref.finalize(memory, _keep, region).atexit = False
    return memory.view(dtype).reshape(shape), reused


def _keep(region: mmap.mmap) -> None:
    # A kernel may lack MADV_FREE although its headers define it; the region is then freed.
    with contextlib.suppress(OSError):
        if len(region) <= MAX_KEPT_BYTES:
            region.madvise(mmap.MADV_FREE)
            _kept.append(region)


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Keep memory that C libraries free in the process while inside the block; glibc only.

    With glibc's defaults each large CPU tensor gets new pages, on which a training spends half of its time.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        library.mallopt(M_MMAP_THRESHOLD, ADAPTED_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, 2 * ADAPTED_MMAP_THRESHOLD)
        library.malloc_trim(0)
