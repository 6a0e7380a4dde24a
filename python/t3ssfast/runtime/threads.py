"""The number of threads of PyTorch, which the native kernels use as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from t3ssfast.runtime.cpus import available_cpus

__all__ = ["default_threads", "torch_threads"]


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
