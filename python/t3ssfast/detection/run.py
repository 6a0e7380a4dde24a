"""What the steps of one detection share: options, slabs, checkpoint, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.slabs import SlabScheduler
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.runtime.progress import Stages
from t3ssfast.runtime.upload import Uploader

__all__ = ["Run"]


class Run:
    """One detection at work: its options and device, slabs, checkpoint of finished slabs, and timings."""

    def __init__(
        self,
        config: DetectConfig,
        device: torch.device,
        plane: int,
        store: CheckpointStore,
        stages: Stages,
        before_slab: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.device, self.store, self.stages = config, device, store, stages
        self.slabs = SlabScheduler(config, plane)
        self._before_slab = before_slab
        # Made here, because uploads are ordered after the work of the thread that makes the uploader.
        self._uploader = Uploader(device) if device.type == "cuda" else None

    def read_slab(self, grid: PreparedTomogram, z0: int, z1: int) -> npt.NDArray[np.float32] | torch.Tensor:
        """Prepared slices z0 up to z1: on a CUDA device a tensor prepared there, otherwise an array."""
        self._before_slab()
        if self._uploader is None:
            return grid.slab(z0, z1)
        return grid.slab_on_device(z0, z1, self._uploader)

    @contextmanager
    def bar(self, title: str, slices: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar over slices; the block calls `move_to(z)`, also with a lower z."""
        position = 0
        with self.stages.bar(title, slices) as advance:

            def move_to(z: int) -> None:
                nonlocal position
                advance(z - position)
                position = z

            yield move_to
