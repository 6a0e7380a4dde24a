"""The number of threads of PyTorch, which the native kernels use as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from t3ssfast.runtime.cpus import available_cpus

__all__ = ["default_threads", "map_in_threads", "torch_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_threads() -> int:
    """Return PyTorch's number of threads, but no more than there are CPUs for this process."""
    return min(torch.get_num_threads(), available_cpus())


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's number of threads inside the block; None takes `default_threads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(default_threads() if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """Return the function's results of the items, in order, with at most `workers` calls at a time.

    Each call computes with its share of PyTorch's threads: small tensors keep one thread busier than several.
    """
    threads = torch.get_num_threads()
    workers = min(workers, threads, len(items))
    if workers <= 1:
        return [function(item) for item in items]
    # In a thread, the number is that thread's own.
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            return list(pool.map(function, items))
        finally:
            # What threads begin with that are started later.
            torch.set_num_threads(threads)
