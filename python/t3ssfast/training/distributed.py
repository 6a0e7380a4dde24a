"""Data-parallel training in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from t3ssfast.errors import ConfigError
from t3ssfast.models import check_device
from t3ssfast.runtime.threads import torch_threads

__all__ = ["World", "join_world"]


@dataclass(frozen=True)
class World:
    """The processes of a training: rank and device of this one, and their number."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_leader(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def seed(self) -> tuple[int, ...]:
        """Seed that distinguishes this process from the others; empty for a single process."""
        return () if self.size == 1 else (self.rank,)

    def local_batch(self, batch: int) -> int:
        """Return this process's part of a batch; ConfigError where it cannot be divided equally."""
        if batch % self.size:
            raise ConfigError(
                f"batch is {batch}, which cannot be divided equally among {self.size} processes; give a "
                f"multiple of {self.size}."
            )
        return batch // self.size

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its backward pass averages the gradients over all processes."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def join_world(device: str | torch.device) -> Iterator[World]:
    """Join the process group of ``torchrun``; without it, a world of one process.

    On CUDA, each process uses the GPU of its local rank.
    """
    device = check_device(device, kernels=False)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        with torch_threads(None):
            yield World(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    joined = not torch.distributed.is_initialized()
    if joined:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(torch.distributed.get_rank(), size, device)
        # No process reads the model before the first one has written it.
        torch.distributed.barrier()
    finally:
        if joined:
            torch.distributed.destroy_process_group()
