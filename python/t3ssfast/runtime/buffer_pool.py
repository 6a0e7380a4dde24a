"""Memory for large results: in huge pages, and kept for the next result, for clearing it takes longest."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import platform
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KEPT_BYTES", "LEAST_BYTES", "empty", "retain_freed_memory"]

# Smaller ones an allocator keeps by itself.
LEAST_BYTES = 32 << 20
# Larger ones are not kept: of them the system should have its memory back at once.
KEPT_BYTES = 512 << 20
# Kept pages must be the system's to take; where it knows no such thing, none are kept.
_CAN_KEEP = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MAP_ANONYMOUS")

# Parameters of glibc's mallopt (malloc.h): what is free at the end of the heap beyond the first goes back to
# the system (-1: never); blocks from the second on are regions of their own, at most as many as the third.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# Where glibc ends up by itself in a process that frees large blocks, and its limit on regions.
SETTLED_BYTES, REGIONS = 32 << 20, 1 << 16

# The last region that was given back; appending drops the one before. To append and to pop are single steps
# of the interpreter, so that a finaliser may run anywhere.
_kept: deque[mmap.mmap] = deque(maxlen=1)


class _Loan:
    """What an array over a region holds on to: the region is kept when the last such array is gone."""

    def __init__(self, region: mmap.mmap, count: int) -> None:
        self._region = region
        address = np.frombuffer(region, np.uint8).ctypes.data
        self.__array_interface__ = {
            "version": 3,
            "shape": (count,),
            "typestr": "|u1",
            "data": (address, False),
        }

    def __del__(self) -> None:
        # A system that does not know of it, whatever this one's headers say, has its memory back at once.
        with contextlib.suppress(OSError):
            if len(self._region) <= KEPT_BYTES:
                # Under pressure the system takes the pages without writing them out; until then they stay.
                self._region.madvise(mmap.MADV_FREE)
                _kept.append(self._region)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], bool]:
    """An array of no particular values, and whether its pages have been used before.

    The system clears memory that is new to a process when it is first touched, which takes twice as long as
    to write the windows. So the last region of up to `KEPT_BYTES` that was let go is kept, free to be taken
    by the system when it runs short, and used again for a result of half its size or more.

    Parameters
    ----------
    shape, dtype
        As for `numpy.empty`.
    """
    kind = np.dtype(dtype)
    count = math.prod(shape) * kind.itemsize
    if count < LEAST_BYTES or not _CAN_KEEP:
        return np.empty(shape, kind), False
    region = _take(count)
    used = region is not None
    if region is None:
        region = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A system may be without them.
        with contextlib.suppress(OSError, AttributeError):
            region.madvise(mmap.MADV_HUGEPAGE)
    return np.asarray(_Loan(region, count)).view(kind).reshape(shape), used


def _take(count: int) -> mmap.mmap | None:
    """The kept region, if it suits so many bytes; it is let go if not."""
    try:
        region = _kept.pop()
    except IndexError:
        return None
    return region if count <= len(region) <= 2 * count else None


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Within, memory that C libraries free stays with the process, for what they allocate next.

    PyTorch has its tensors on a CPU from the C library. With glibc those of many megabytes are new to the
    process every time, and a training, whose tensors come and go, spends up to half of its time on their
    pages. On leaving, what is free goes back to the system. Without glibc nothing is done.
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
        library.mallopt(M_MMAP_MAX, REGIONS)
        library.mallopt(M_MMAP_THRESHOLD, SETTLED_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, 2 * SETTLED_BYTES)
        library.malloc_trim(0)
