"""Helpers for TorchScript: suppressing its deprecation warning, and copying modules."""

from __future__ import annotations

import copy
import io as stdio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["copy_module", "quiet_torchscript"]


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Suppress TorchScript's deprecation warning: users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*")
        yield


def copy_module(module: nn.Module, device: torch.device | None = None) -> nn.Module:
    """Copy a module to a device (None: TorchScript to the CPU, others stay where they are).

    TorchScript is copied through an archive in memory, which also moves the constants of frozen modules:
    `Module.to` does not reach them.
    """
    if isinstance(module, torch.jit.ScriptModule):
        buffer = stdio.BytesIO()
        with quiet_torchscript():
            torch.jit.save(module, buffer)
            buffer.seek(0)
            loaded: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                buffer, map_location=device or torch.device("cpu")
            )
            return loaded
    with warnings.catch_warnings():
        # Modules of torch.export warn about their own parts when they are copied.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        duplicate = copy.deepcopy(module)
    return duplicate if device is None else duplicate.to(device)
