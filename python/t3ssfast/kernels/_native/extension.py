"""The extension itself, imported here and nowhere else; what calls a kernel takes `core` from here."""

from __future__ import annotations

# PyTorch first: it brings the OpenMP runtime that _core shares with it.
import torch

from t3ssfast import _core as core

__all__ = ["core", "launch_of"]


def launch_of(device: torch.device) -> tuple[int, int]:
    """Device index and handle of PyTorch's current stream there."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return index, int(torch.cuda.current_stream(index).cuda_stream)
