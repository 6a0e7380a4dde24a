"""Several processes that train one model, as ``torchrun`` starts them."""

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

__all__ = ["World", "join_world"]


@dataclass(frozen=True)
class World:
    """The processes of a training, and which of them this one is.

    Parameters
    ----------
    rank, size
        This process's number, and how many there are.
    device
        Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[int, ...]:
        """What sets this process's random numbers apart from the others'; nothing where it is alone."""
        return () if self.size == 1 else (self.rank,)

    def share(self, batch: int) -> int:
        """How many images of a batch this process draws.

        Raises
        ------
        ConfigError
            If the batch cannot be shared equally.
        """
        if batch % self.size:
            raise ConfigError(
                f"batch is {batch}, which {self.size} processes cannot share equally; give a multiple of "
                f"{self.size}."
            )
        return batch // self.size

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages the gradients of all processes."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Meet the other processes of a ``torchrun``; alone, where it was started without.

    Processes on GPUs take one each, in the order of their local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
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
        # Nobody reads a file before the first process has written it.
        torch.distributed.barrier()
    finally:
        if joined:
            torch.distributed.destroy_process_group()
