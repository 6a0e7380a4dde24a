"""What to do when memory runs out: tell it from other errors, give back what can be given, try once more."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from t3ssfast.errors import OutOfMemoryError, T3Error

__all__ = ["free_memory", "is_out_of_memory", "out_of_memory", "retry_on_oom"]

Made = TypeVar("Made")

# How libraries say it where they raise no class of its own: PyTorch's allocator on Linux and elsewhere, an
# error passed on as text by the TorchScript interpreter, C++ libraries, cuBLAS and cuDNN, and oneDNN, which
# tells of a layer that it does not know by the word that must not follow.
WORDS = re.compile(
    "can't allocate memory|not enough memory|out of memory|bad_alloc|bad allocation|ALLOC_FAILED"
    "|could not (create|execute) a (primitive|memory)(?! descriptor)|can't start new thread"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had, of the machine or of a device."""
    # What this package raises on purpose has been through here before.
    if isinstance(error, T3Error):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and WORDS.search(str(error)) is not None


def free_memory() -> None:
    """Give back what only waits to be used again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(doing: str, tried: str = "") -> OutOfMemoryError:
    """The error that ends a job for want of memory.

    Parameters
    ----------
    doing
        What was being done.
    tried
        How small the work was made before, in words.
    """
    tried = f", even with {tried}" if tried else ""
    return OutOfMemoryError(
        f"Memory ran out while {doing}{tried}; close other programs or run with fewer threads (threads=1, "
        '--threads 1), and on a CUDA device that others use take another or the CPU (device="cpu", '
        "--device cpu)."
    )


def retry_on_oom(doing: str, make: Callable[[], Made]) -> Made:
    """``make()``; where memory runs out, once more after giving back what can be given.

    Parameters
    ----------
    doing
        For the message: "pruning the membrane".
    make
        Must be such that it can be begun again after it failed.

    Raises
    ------
    OutOfMemoryError
        If memory ran out both times.
    """
    try:
        return make()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Only here, where the exception is gone, are the arrays of the frames it came through gone too.
    free_memory()
    try:
        return make()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(doing) from error
