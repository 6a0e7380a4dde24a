"""Slabs: a tomogram is worked on a few slices at a time, and on fewer where memory runs out.

The thickness of the slabs follows from the memory budget and never changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.segment_slice import MIN_TILE, SIDE_MULTIPLE, tile_side
from t3ssfast.runtime.checkpoint import Slab
from t3ssfast.runtime.memory import free_memory, is_out_of_memory, out_of_memory, return_freed_memory
from t3ssfast.runtime.prefetch import prefetch
from t3ssfast.runtime.progress import Stages

__all__ = ["PreparedSlab", "SlabScheduler"]

Values = TypeVar("Values")

# Bytes held for each voxel of a slab: prepared values of three slabs (the last one, this one and the next),
# their regions, membrane probability, and temporary copies.
SLAB_BYTES_PER_VOXEL = 32
SLAB_BUDGET_FRACTION = 0.25
# Thicker slabs leave nothing to prepare while the networks work on the first.
MAX_SLAB_SLICES = 32
# Batch sizes of plan "windows" to try where memory runs out with the plan's own.
SMALLER_BATCHES = (256, 64, 16)


@dataclass
class PreparedSlab(Generic[Values]):
    """Slices z0 up to z1, and what was prepared for them; deleted when memory runs out."""

    z0: int
    z1: int
    values: Values


class SlabScheduler:
    """Cuts runs of slices into slabs, prepares each ahead of its use, and shrinks the work on out-of-memory.

    ::

        for slab in scheduler.slabs(run, prepare, "segmenting membranes", scheduler.shrink_tile, stages):
            with scheduler.retry(slab):
                ...  # must be repeatable: where memory runs out, thinner slabs begin at slab.z0 again
    """

    def __init__(self, config: DetectConfig, plane: int) -> None:
        fitting = int(config.memory_budget_bytes * SLAB_BUDGET_FRACTION / (SLAB_BYTES_PER_VOXEL * plane))
        # Thickness of a slab.
        self.slices = config.slab_slices or min(max(1, fitting), MAX_SLAB_SLICES)
        # Longest side of the segmenter's tiles.
        self.tile = tile_side(config)
        # Windows for one call of a model by plan "windows"; None leaves the plan's own number.
        self.batch: int | None = None
        # How often memory ran out.
        self.reductions = 0
        self._failed = False

    def slabs(
        self,
        run: Slab,
        prepare: Callable[[int, int], Values],
        doing: str,
        shrink: Callable[[], bool],
        stages: Stages,
    ) -> Iterator[PreparedSlab[Values]]:
        """Yield the slabs of a run of slices; `prepare(z0, z1)` runs ahead in another thread.

        Where a slab of one slice is too large, `shrink` makes the work smaller without changing results by
        more than rounding. OutOfMemoryError, about `doing`, is raised when it returns that it could not.
        """

        def prepared_slab(slab: Slab) -> PreparedSlab[Values]:
            return PreparedSlab(*slab, prepare(*slab))

        z, end = run
        while z < end:
            self._failed = False
            cuts = ((a, min(a + self.slices, end)) for a in range(z, end, self.slices))
            with closing(stages.waiting("prepare", prefetch(prepared_slab, cuts))) as prepared:
                try:
                    for slab in prepared:
                        yield slab
                        if self._failed:
                            break
                        z = slab.z1
                        return_freed_memory()
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    self._failed = True
            if self._failed:
                self.reductions += 1
                thickness = min(self.slices, end - z)
                if thickness > 1:
                    self.slices = thickness // 2
                elif not shrink():
                    raise out_of_memory(doing, "slabs of 1 slice")
                free_memory()

    @contextmanager
    def retry(self, slab: PreparedSlab[Values]) -> Iterator[None]:
        """Suppress out-of-memory errors of the block; `slabs` then goes back to the slab with less work."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            del slab.values
            self._failed = True

    def shrink_tile(self) -> bool:
        """Halve the segmenter's tiles; return whether they could be."""
        if self.tile <= MIN_TILE:
            return False
        self.tile = max(MIN_TILE, self.tile // 2 // SIDE_MULTIPLE * SIDE_MULTIPLE)
        return True

    def shrink_batch(self) -> bool:
        """Make the batches of plan "windows" smaller; return whether they could be."""
        smaller = [size for size in SMALLER_BATCHES if self.batch is None or size < self.batch]
        if smaller:
            self.batch = smaller[0]
        return bool(smaller)
