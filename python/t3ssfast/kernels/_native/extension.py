"""The extension module `core`, imported only here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# PyTorch first: it loads the OpenMP runtime that _core shares with it.
import torch

from t3ssfast import _core as core

__all__ = ["core", "current_device", "device_index"]


def device_index(device: torch.device) -> int:
    """Return the index of a CUDA device; of the current one if it has none."""
    return torch.cuda.current_device() if device.index is None else device.index


@contextmanager
def current_device(device: torch.device) -> Iterator[tuple[int, int]]:
    """Make a CUDA device the current one; yield its index and the handle of PyTorch's stream on it.

    For the CPU, where the CUDA algorithms are emulated, yield (-1, 0). PyTorch restores the previous device
    without creating a context there, which would take some hundred MiB of a device that nobody uses.
    """
    if device.type == "cpu":
        yield -1, 0
        return
    index = device_index(device)
    with torch.cuda.device(index):
        yield index, int(torch.cuda.current_stream(index).cuda_stream)
