"""What the steps of one detection share: options, slabs, checkpoint, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.slabs import SlabScheduler
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.runtime.progress import Stages
from t3ssfast.runtime.upload import Uploader

__all__ = ["Bar", "Run"]


@dataclass
class Bar:
    """A progress bar that moves to a slice, forwards or, when a slab is computed again, backwards."""

    advance: Callable[[int], None]
    position: int = 0

    def move_to(self, z: int) -> None:
        self.advance(z - self.position)
        self.position = z


class Run:
    """One detection at work.

    Attributes
    ----------
    config, device
        As given to `detect`.
    slabs
        Cuts the tomogram into slabs.
    store
        Checkpoint of finished slabs.
    stages
        Times and progress bars.
    """

    def __init__(
        self, config: DetectConfig, device: torch.device, plane: int, store: CheckpointStore, stages: Stages
    ) -> None:
        self.config, self.device, self.store, self.stages = config, device, store, stages
        self.slabs = SlabScheduler(config, plane)
        # Made here, because uploads are ordered after the work of the thread that makes the uploader.
        self._uploader = Uploader(device) if device.type == "cuda" else None

    def read_slab(self, grid: PreparedTomogram, z0: int, z1: int) -> npt.NDArray[np.float32] | torch.Tensor:
        """Prepared slices z0 up to z1: on a CUDA device a tensor prepared there, otherwise an array."""
        if self._uploader is None:
            return grid.slab(z0, z1)
        return grid.slab_on_device(z0, z1, self._uploader)

    @contextmanager
    def bar(self, title: str, slices: int) -> Iterator[Bar]:
        """Show a progress bar over slices."""
        with self.stages.bar(title, slices) as advance:
            yield Bar(advance)
