"""The extension module `core`, imported only here."""

from __future__ import annotations

# PyTorch first: it loads the OpenMP runtime that _core shares with it.
import torch

from t3ssfast import _core as core

__all__ = ["core", "launch_of"]


def launch_of(device: torch.device) -> tuple[int, int]:
    """Return the device index and the handle of PyTorch's current stream on that device."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return index, int(torch.cuda.current_stream(index).cuda_stream)
