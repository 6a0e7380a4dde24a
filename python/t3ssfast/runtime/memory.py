"""Running out of memory: recognise it, free what can be freed, and try again."""

from __future__ import annotations

import ctypes
import functools
import gc
import platform
import re
import weakref
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

import numpy as np
import torch

from t3ssfast.errors import OutOfMemoryError, T3Error

__all__ = [
    "free_memory",
    "is_out_of_memory",
    "out_of_memory",
    "release_when_short",
    "reserve_blas_workspace",
    "retry_on_oom",
    "return_freed_memory",
]

# OpenBLAS maps 33 MiB.
BLAS_WORKSPACE_BYTES = 34 << 20

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The messages of libraries that raise a plain RuntimeError: PyTorch's allocators, the TorchScript
# interpreter, C++ libraries, cuBLAS and cuDNN, and oneDNN. The last says "could not create a primitive
# descriptor" of a layer that it does not support, which is no lack of memory.
MESSAGES = re.compile(
    "can't allocate memory|not enough memory|out of memory|bad_alloc|bad allocation|ALLOC_FAILED"
    "|could not (create|execute) a (primitive|memory)(?! descriptor)|can't start new thread"
)


class HoldsMemory(Protocol):
    """An object with memory that it can free now and allocate again later."""

    def release(self) -> None:
        """Free the memory. Any thread may call this, also while another thread uses the memory."""


_holders: weakref.WeakSet[HoldsMemory] = weakref.WeakSet()


def release_when_short(holder: HoldsMemory) -> None:
    """Call `holder.release()` whenever memory runs out, for as long as the holder exists."""
    _holders.add(holder)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that host or device memory ran out."""
    # Errors of this package, OutOfMemoryError among them, have been handled already.
    if isinstance(error, T3Error):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and MESSAGES.search(str(error)) is not None


def return_freed_memory() -> None:
    """Return memory that was freed in this process to the system; glibc only.

    glibc keeps freed blocks for each thread, so after a step with several threads the next one would add its
    memory to all that they once had.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> None:
    """Free what can be made again, and return freed memory of the host and of devices to the system."""
    for holder in list(_holders):
        holder.release()
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(doing: str, tried: str = "") -> OutOfMemoryError:
    """Make the error that ends a job: `doing` "picking", where even `tried` "slabs of 1 slice" failed."""
    tried = f", even with {tried}" if tried else ""
    return OutOfMemoryError(
        f"Memory ran out while {doing}{tried}; close other programs or run with fewer threads (threads=1, "
        '--threads 1), and on a CUDA device that others use choose another or the CPU (device="cpu", '
        "--device cpu)."
    )


def retry_on_oom(doing: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorate a function so that it is called once more, with memory freed, where memory runs out.

    The function must be one that can be called again after it failed. OutOfMemoryError, about `doing`, is
    raised where memory runs out both times.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the except block, where the traceback no longer keeps the arrays of its frames alive.
            free_memory()
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise out_of_memory(doing) from error

        return call

    return decorate


@retry_on_oom("preparing")
def reserve_blas_workspace() -> None:
    """Let OpenBLAS allocate its workspace, which it keeps for later products of matrices.

    The OpenBLAS of NumPy 1.26 loops forever where the address space is too small for it, so a process should
    call this before it needs much memory. Each thread of several that multiply at a time has its own.
    """
    # Where there is no space, this raises MemoryError.
    np.empty(BLAS_WORKSPACE_BYTES, np.uint8)
    matrix = np.ones((3, 4))
    matrix @ matrix.T
