"""The two passes over a tomogram, slab by slab: where the membrane is, and what the windows near it hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.classify import classify_slab
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import window_of
from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.detection.pick import SparseScores, smooth_slabs
from t3ssfast.detection.preselect import WindowFilter, read_preselection
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.segment import (
    MAX_TILE,
    MIN_TILE,
    SIDE_MULTIPLE,
    average_slices,
    prune_membrane,
    segment_slice,
)
from t3ssfast.kernels.plan import read_plan
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.checkpoint import CheckpointStore, Slab
from t3ssfast.runtime.memory import free_memory, is_out_of_memory, out_of_memory
from t3ssfast.runtime.prefetch import prefetch
from t3ssfast.runtime.progress import Stages
from t3ssfast.runtime.upload import Uploader

__all__ = ["Mask", "Portions", "find_membrane", "judge_windows", "level_above", "tile_side"]

Mask = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32] | torch.Tensor
Scores = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
Prepared = TypeVar("Prepared")
Made = TypeVar("Made")

# A voxel's membrane probability is held in so many parts of 1: a quarter of the memory of a float32.
LEVELS = 255
# What the slabs hold for each voxel of one: three of prepared values (the last, this one and the next), their
# regions, membrane probability, and copies in passing.
SLAB_BYTES_PER_VOXEL = 32
SLAB_PART_OF_BUDGET = 0.25
# Windows judged by one call, so that memory does not follow from how much of a slab is membrane.
PIECE_WINDOWS = 1 << 18
# Activations that a U-Net of base 16 holds at a time, for each pixel of a tile.
TILE_BYTES_PER_PIXEL = 512
TILE_PART_OF_BUDGET = 0.25
# Windows that a model is run on at once where memory ran out with its own number of them.
SMALLER_BATCHES = (256, 64, 16)
# How much thinner slabs are where memory ran out in a pass, but not over one of them.
THINNER = (4, 16)
SEGMENTING, JUDGING = "segmenting membranes", "judging windows"


class Portions:
    """How large the pieces of the work are: as the memory budget allows, and smaller where memory runs out.

    Parameters
    ----------
    config
        Budget, or thickness of the slabs.
    plane
        Voxels of a slice.

    Attributes
    ----------
    slices
        Of a slab. Never changes results.
    tile
        Longest side of the segmenter's tiles. Changes its answers by no more than rounding.
    batch
        Windows that a model is run on at once, by plan "windows"; None is the plan's own number.
    reduced
        How often memory ran out.
    """

    def __init__(self, config: DetectConfig, plane: int) -> None:
        fitting = int(config.memory_budget_bytes * SLAB_PART_OF_BUDGET / (SLAB_BYTES_PER_VOXEL * plane))
        self.slices = config.slab_slices or max(1, fitting)
        self.tile = tile_side(config)
        self.batch: int | None = None
        self.reduced = 0

    def reduce(self, doing: str, most: int) -> None:
        """Make the next smaller pieces; what changes no result first.

        Parameters
        ----------
        doing
            `SEGMENTING` or `JUDGING`.
        most
            Slices that the slab had for which memory ran out.

        Raises
        ------
        OutOfMemoryError
            If there are none.
        """
        self.reduced += 1
        smaller = [size for size in SMALLER_BATCHES if self.batch is None or size < self.batch]
        if most > 1:
            self.slices = most // 2
        elif doing == SEGMENTING and self.tile > MIN_TILE:
            self.tile = max(MIN_TILE, self.tile // 2 // SIDE_MULTIPLE * SIDE_MULTIPLE)
        elif doing == JUDGING and smaller:
            self.batch = smaller[0]
        else:
            raise out_of_memory(doing, "slabs of 1 slice")

    def again(self, doing: str, pass_over: Callable[[], Made]) -> Made:
        """A whole pass; where memory runs out between its slabs, again with much thinner ones.

        What is made of all slabs together holds, in passing, some multiple of one.

        Parameters
        ----------
        doing
            `SEGMENTING` or `JUDGING`.
        pass_over
            Must be such that it can be begun again after it failed.
        """
        for slices in (self.slices, *(max(1, self.slices // part) for part in THINNER)):
            self.slices = min(self.slices, slices)
            try:
                return pass_over()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.reduced += 1
            free_memory()
        raise out_of_memory(doing, f"slabs of {self.slices} slice{'s' * (self.slices > 1)}")

    def cut(self, run: Slab) -> Iterator[Slab]:
        """(z0, z1) of the slabs that together are a run of slices."""
        for z0 in range(*run, self.slices):
            yield z0, min(z0 + self.slices, run[1])

    def work(
        self,
        doing: str,
        run: Slab,
        prepare: Callable[[Slab], Prepared],
        make: Callable[[Slab, Prepared], Made],
        stages: Stages,
    ) -> Generator[tuple[Slab, Made], None, None]:
        """``make(slab, prepare(slab))`` for the slabs of a run, thinner ones from where memory ran out.

        Parameters
        ----------
        doing
            `SEGMENTING` or `JUDGING`.
        run
            Slices, first and one past the last.
        prepare
            Called ahead, by another thread.
        make
            Must be such that it can be begun again after it failed.
        """
        z, end = run
        while z < end:
            short = 0
            slabs = self._work((z, end), prepare, make, stages)
            with closing(slabs):
                while True:
                    try:
                        slab, made = next(slabs)
                    except StopIteration:
                        break
                    except Exception as error:
                        if not is_out_of_memory(error):
                            raise
                        short = min(self.slices, end - z)
                        break
                    yield slab, made
                    z = slab[1]
            if short:
                # Not where the exception is handled: until then the arrays of its frames are held.
                self.reduce(doing, short)
                free_memory()

    def _work(
        self,
        run: Slab,
        prepare: Callable[[Slab], Prepared],
        make: Callable[[Slab, Prepared], Made],
        stages: Stages,
    ) -> Generator[tuple[Slab, Made], None, None]:
        def prepare_named(slab: Slab) -> tuple[Slab, Prepared]:
            return slab, prepare(slab)

        with closing(stages.waiting("prepare", prefetch(prepare_named, self.cut(run)))) as slabs:
            for slab, prepared in slabs:
                yield slab, make(slab, prepared)


def tile_side(config: DetectConfig) -> int:
    """Longest side of the segmenter's tiles that the memory budget allows."""
    side = math.isqrt(int(config.memory_budget_bytes * TILE_PART_OF_BUDGET / TILE_BYTES_PER_PIXEL))
    return min(max(side // SIDE_MULTIPLE * SIDE_MULTIPLE, MIN_TILE), MAX_TILE)


@dataclass
class _Bar:
    """Moves a bar to a slice, from wherever it is: a slab that is begun again goes back."""

    advance: Callable[[int], None]
    at: int = 0

    def move(self, z: int) -> None:
        self.advance(z - self.at)
        self.at = z


def find_membrane(
    grid: PreparedTomogram,
    finder: LoadedModel,
    config: DetectConfig,
    portions: Portions,
    stages: Stages,
    checkpoint: CheckpointStore,
) -> tuple[Mask, int]:
    """Levels of membrane probability on the segmenter's grid, and how many slices were there before.

    In pieces that are too small the levels are those of what is not searched about.
    """
    levels = np.empty(grid.shape, np.uint8)
    depth = grid.shape[0]
    resumed = 0
    read_slab = _slab_reader(grid, finder.device)

    seen: dict[int, npt.NDArray[np.float32]] = {}

    slices = finder.metadata.slices
    # A slice is averaged with its neighbours, and each of them is seen with some around it.
    reach = 1 + slices // 2

    def prepare(slab: Slab) -> Values:
        return read_slab(max(0, slab[0] - reach), min(depth, slab[1] + reach))

    def make(slab: Slab, values: Values) -> None:
        """The mask of a slab; the slices on both sides of its end are seen once for it and the next slab."""
        z0, z1 = slab
        first = max(0, z0 - reach)

        def probability(z: int) -> npt.NDArray[np.float32]:
            if z not in seen:
                seen[z] = segment_slice(
                    neighbouring_slices(values, z - first, slices),
                    finder,
                    engine=config.segmenter_engine,
                    max_tile=portions.tile,
                )
            return seen[z]

        with stages("segment"):
            for z in range(z0, z1):
                for gone in [k for k in seen if not z - 1 <= k <= z + 1]:
                    del seen[gone]
                average = average_slices(*(probability(n) for n in (max(0, z - 1), z, min(z + 1, depth - 1))))
                average *= LEVELS
                np.rint(average, out=levels[z], casting="unsafe")
                bar.move(z + 1)

    with stages.bar("segment membranes", depth) as advance:
        bar = _Bar(advance)
        for run, kept in checkpoint.runs("membrane", depth):
            if kept is not None:
                z0, z1 = run
                levels[z0:z1] = kept["levels"]
                resumed += z1 - z0
                bar.move(z1)
                continue
            for (z0, z1), _ in portions.work(SEGMENTING, run, prepare, make, stages):
                if checkpoint.keeps:
                    with stages("keep"):
                        checkpoint.save_slab("membrane", (z0, z1), levels=levels[z0:z1])
    with stages("prune"):
        # In a volume thinner than the smallest piece is wide, a piece must be as long but can be no taller.
        thickness_nm = depth * grid.voxel_size_angstrom / 10
        area = min(config.membrane_min_area_nm2, thickness_nm * math.sqrt(config.membrane_min_area_nm2))
        above = level_above(min(config.search_threshold, config.membrane_threshold)) - 1
        return prune_membrane(levels, grid.voxel_size_angstrom, area, above=above, out=levels), resumed


def level_above(threshold: float) -> int:
    """The lowest level of more than a probability."""
    return math.floor(LEVELS * threshold) + 1


def judge_windows(
    grid: PreparedTomogram,
    mask: Mask,
    judge: LoadedModel,
    where: torch.device,
    threshold: float,
    config: DetectConfig,
    portions: Portions,
    stages: Stages,
    checkpoint: CheckpointStore,
) -> tuple[SparseScores, dict[str, int], int]:
    """Probability of a T3SS at the voxels of the search region whose window passes the preselection.

    Averaged with their neighbours as they come; only those that can matter to picking are kept. Then counts,
    and how many slices were there before.
    """
    plan = config.plan
    if plan == "auto":
        # Once for the whole tomogram: chosen slab by slab, rounding would depend on the slabs.
        plan = "windows" if isinstance(read_plan(judge.module, window_of(judge)), str) else "dense"
    search = SearchRegion.of(mask, grid.voxel_size_angstrom, config)
    gate = WindowFilter(
        read_preselection(judge.metadata.preselect) if config.preselect else None,
        *(grid, search, judge),
        device=where,
        precision=config.precision,
        plan=plan,
    )
    depth, plane = grid.shape[0], grid.shape[1] * grid.shape[2]
    counts = {"voxels": depth * plane, "membrane_voxels": int(np.count_nonzero(mask))}
    counts |= {"windows_searched": 0, "windows_judged": 0}
    resumed = 0

    read_slab = _slab_reader(grid, where)

    def prepare(slab: Slab) -> tuple[Mask, Values | None]:
        region = search.slab(*slab)
        return region, read_slab(*slab) if region.any() else None

    def make(slab: Slab, prepared: tuple[Mask, Values | None]) -> tuple[list[Scores], int]:
        """Flat indices within the slab and their probabilities, a piece at a time; windows near the
        membrane."""
        region, values = prepared
        scores: list[Scores] = []
        near = 0
        for a, b in _few_windows(region) if values is not None else ():
            assert values is not None, "where there is a window the slab was prepared"
            part, wanted = values[a:b], region[a:b]
            near += int(np.count_nonzero(wanted))
            with stages("preselect"):
                wanted = gate.apply(part, wanted, slab[0] + a)
            with stages("classify"):
                index, probability = classify_slab(
                    part,
                    wanted,
                    judge,
                    device=where,
                    precision=config.precision,
                    plan=plan,
                    batch_size=portions.batch,
                )
            scores.append((index + a * plane, probability))
        return scores, near

    def judged() -> Generator[Scores, None, None]:
        nonlocal resumed
        with stages.bar("judge windows", depth) as advance:
            bar = _Bar(advance)
            for run, kept in checkpoint.runs("scores", depth):
                if kept is not None:
                    resumed += run[1] - run[0]
                    counts["windows_searched"] += int(kept["near"])
                    counts["windows_judged"] += len(kept["index"])
                    bar.move(run[1])
                    yield kept["index"] + np.int64(run[0] * plane), kept["probability"]
                    continue
                for slab, (scores, near) in portions.work(JUDGING, run, prepare, make, stages):
                    if checkpoint.keeps:
                        with stages("keep"):
                            checkpoint.save_slab("scores", slab, near=near, **_joined(scores, slab, plane))
                    counts["windows_searched"] += near
                    counts["windows_judged"] += sum(len(index) for index, _ in scores)
                    bar.move(slab[1])
                    for index, probability in scores:
                        yield index + np.int64(slab[0] * plane), probability

    with closing(judged()) as slabs:
        scores = smooth_slabs(
            slabs,
            grid.shape,
            voxel_size_angstrom=grid.voxel_size_angstrom,
            smoothing_nm=config.score_smoothing_nm,
            threshold=threshold,
        )
    return scores, counts, resumed


def _slab_reader(grid: PreparedTomogram, where: torch.device) -> Callable[[int, int], Values]:
    """What makes slabs: on a CUDA device the slices are sent as they are stored, and prepared there."""
    if where.type != "cuda":
        return grid.slab
    upload = Uploader(where)
    return lambda z0, z1: grid.slab_on_device(z0, z1, upload)


def _joined(scores: list[Scores], slab: Slab, plane: int) -> dict[str, npt.NDArray[Any]]:
    """The scores of a slab as one pair of arrays, the indices in half their size where they fit."""
    none: Scores = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    index, probability = zip(*(scores or [none]), strict=True)
    kind = np.uint32 if (slab[1] - slab[0]) * plane < 2**32 else np.int64
    return {
        "index": np.concatenate(index, dtype=kind, casting="unsafe"),
        "probability": np.concatenate(probability),
    }


def _few_windows(region: Mask) -> Iterator[Slab]:
    """(a, b) of runs of slices with windows, of so many slices that few windows are in each."""
    windows = [int(np.count_nonzero(section)) for section in region]
    a, held = 0, 0
    for z, here in enumerate(windows):
        if held and held + here > PIECE_WINDOWS:
            yield a, z
            a, held = z, 0
        if not held:
            a = z
        held += here
    if held:
        yield a, len(windows)
