"""Segmentation of a tomogram: the membrane, found slab by slab with the U-Net."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.contrast import DARK, LIGHT, contrast_from_segmenter, trained_sign
from t3ssfast.detection.find_contrast import contrast_of_mask
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.membrane_levels import MembraneLevels
from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.detection.provenance import describe_segmenter
from t3ssfast.detection.prune_membrane import MembraneSurvey, prune_membrane
from t3ssfast.detection.run import Run
from t3ssfast.detection.segment_slice import segment_on_device, slice_weights, tiles_at_a_time
from t3ssfast.detection.slabs import PreparedSlab
from t3ssfast.kernels import _native
from t3ssfast.kernels._native import HIGHEST_LEVEL
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.background import BackgroundWork
from t3ssfast.runtime.checkpoint import Arrays, Slab
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.threads import map_in_threads

__all__ = ["Membrane", "given_membrane", "segment_membrane"]

Mask = npt.NDArray[np.uint8]
Prepared = npt.NDArray[np.float32] | torch.Tensor

# A membrane probability is held as a fraction of this.
PROBABILITY_ONE = HIGHEST_LEVEL
# Values of a membrane mask: searched around; and reported as membrane, too.
CANDIDATE_MEMBRANE, MEMBRANE = 1, 2


@dataclass(frozen=True)
class Membrane:
    """The membrane of a tomogram: `mask`, on the classifier's grid, non-zero where T3SS are searched around.

    Where it was segmented, `found` lies on the segmenter's grid (0, `CANDIDATE_MEMBRANE` or `MEMBRANE`), and
    `resampled` (0 or 1) on the tomogram's voxels, unless these are that grid. `probability` is that of every
    voxel of the tomogram, as a fraction of 255, where it is to be kept.
    """

    mask: Mask
    contrast: dict[str, Any]
    segmenter: dict[str, Any] | None = None
    found: Mask | None = None
    resampled: Mask | None = None
    probability: Mask | None = None
    resumed_slices: int = 0
    # Numbers of voxels by membrane probability, as a fraction of 255.
    histogram: npt.NDArray[np.int64] | None = None

    def reported(self) -> Mask | None:
        """(z, y, x) 0 or 1 on the tomogram's voxels; None where it was given.

        The result may take the memory of `found` and `mask`, which must not be used any more.
        """
        if self.found is None or self.resampled is not None:
            return self.resampled
        reported: Mask = np.equal(self.found, MEMBRANE, out=self.found, casting="unsafe")
        return reported


@retry_on_oom("reading the membrane mask")
def given_membrane(inputs: DetectionInputs, grid: PreparedTomogram, run: Run) -> Membrane:
    """The membrane that the caller gave, on the classifier's grid."""
    assert inputs.mask is not None, "without a segmenter there is a mask"
    mask = grid.mask_from_tomogram(inputs.mask, 0, grid.shape[0])
    with run.stages("contrast"):
        return Membrane(mask, contrast_of_mask(inputs.tomogram, inputs.mask, inputs.config))


@retry_on_oom("segmenting membranes")
def segment_membrane(inputs: DetectionInputs, grid: PreparedTomogram, run: Run) -> Membrane:
    """Find the membrane with the segmenter; the mask of the result lies on the classifier's grid."""
    segmenter, config = inputs.segmenter, inputs.config
    assert segmenter is not None, "without a mask there is a segmenter"
    own_grid = inputs.grid_of(segmenter)
    contrast = _contrast(own_grid, segmenter, run)
    own_grid = own_grid.with_contrast_sign(contrast["sign"] * trained_sign(segmenter))
    searched = _lowest_above(min(config.search_threshold, config.membrane_threshold))
    # On a CPU the segmenter, which runs beside the survey, needs the other threads.
    threads = 1 if segmenter.device.type == "cpu" else torch.get_num_threads()
    survey = MembraneSurvey(own_grid.shape[1:], searched - 1, threads)
    probability_u8, resumed = _segment_slabs(own_grid, segmenter, run, survey)
    kept = own_grid.volume_to_tomogram(probability_u8.copy()) if inputs.save_probability else None
    with run.stages("prune"):
        # In a volume thinner than the smallest component is wide, no component is as tall as it is wide.
        voxel_size = own_grid.voxel_size_angstrom
        thickness_nm = own_grid.shape[0] * voxel_size / 10
        area = min(config.membrane_min_area_nm2, thickness_nm * math.sqrt(config.membrane_min_area_nm2))
        prune_membrane(
            probability_u8,
            voxel_size,
            area,
            above=searched - 1,
            out=probability_u8,
            components=survey.components,
        )
    described = describe_segmenter(segmenter, config.segmenter_engine)
    # On a CPU the classification needs their memory. On a device they are kept for the next tomogram.
    if segmenter.device.type == "cpu":
        segmenter.release_engines()
    found, resampled = _apply_thresholds(own_grid, probability_u8, config)
    mask = found
    if own_grid.shape != grid.shape:
        on_tomogram = own_grid.mask_to_tomogram(np.minimum(found, CANDIDATE_MEMBRANE))
        mask = grid.mask_from_tomogram(on_tomogram, 0, grid.shape[0])
    return Membrane(mask, contrast, described, found, resampled, kept, resumed, survey.histogram)


def _contrast(grid: PreparedTomogram, segmenter: LoadedModel, run: Run) -> dict[str, Any]:
    """The contrast, from the checkpoint where it is there."""
    kept: dict[str, Any] | None = run.store.load("contrast", _kept_contrast)
    if kept is not None:
        return kept
    with run.stages("contrast"):
        contrast = contrast_from_segmenter(grid, segmenter, run.config)
    run.store.save("contrast", json=json.dumps(contrast))
    return contrast


def _kept_contrast(piece: Arrays) -> dict[str, Any]:
    contrast = json.loads(str(piece["json"]))
    if contrast["sign"] not in (DARK, LIGHT) or not isinstance(contrast["how"], str):
        raise ValueError("not a contrast")
    return dict(contrast)


def _segment_slabs(
    grid: PreparedTomogram, segmenter: LoadedModel, run: Run, survey: MembraneSurvey
) -> tuple[Mask, int]:
    """Membrane probability of every slice as uint8, and how many slices the checkpoint held.

    Each slab is surveyed beside the segmentation of the next one.
    """
    probability_u8 = np.empty(grid.shape, np.uint8)
    depth, resumed = grid.shape[0], 0
    slices = _SegmentedSlices(grid, segmenter, run)

    def kept_levels(slab: Slab, piece: Arrays) -> Mask:
        levels: Mask = piece["levels"]
        if levels.dtype != np.uint8 or levels.shape != (slab[1] - slab[0], *grid.shape[1:]):
            raise ValueError("not the membrane of these slices")
        return levels

    def finish(slab: Slab, levels: Mask) -> None:
        finished = probability_u8[slice(*slab)]
        if not np.may_share_memory(levels, finished):
            finished[...] = levels
        survey.add(finished)

    with BackgroundWork("survey") as background, run.bar("segment membranes", depth) as move_to:
        for (first, last), levels in run.store.runs("membrane", depth, kept_levels):
            if levels is not None:
                background.call(finish, (first, last), levels)
                resumed += last - first
                move_to(last)
                continue
            for slab in run.slabs.slabs(
                (first, last), slices.prepare, "segmenting membranes", run.slabs.shrink_tile, run.stages
            ):
                with run.slabs.retry(slab):
                    with run.stages("segment"):
                        slices.segment(slab)
                        averaged = MembraneLevels(probability_u8[slab.z0 : slab.z1], segmenter)
                        for z in range(slab.z0, slab.z1):
                            averaged.write(z - slab.z0, slices.weights(z), slices.segmented)
                            move_to(z + 1)
                        levels = averaged.finish()
                    with run.stages("keep"):
                        run.store.save_slab("membrane", (slab.z0, slab.z1), levels=levels)
                    background.call(finish, (slab.z0, slab.z1), levels)
    return probability_u8, resumed


class _SegmentedSlices:
    """Membrane probability of slices: some are segmented, each once; all are averages of these.

    Slices beside the seam of two slabs are needed for both.
    """

    def __init__(self, grid: PreparedTomogram, segmenter: LoadedModel, run: Run) -> None:
        self._grid, self._segmenter, self._run = grid, segmenter, run
        spacing = run.config.segmented_spacing_nm * 10 / grid.voxel_size_angstrom
        # The rounding error of the division must not exclude a whole number of slices.
        self._stride = max(1, math.floor(spacing + 1e-6))
        # By number; where the segmenter runs.
        self.segmented: dict[int, torch.Tensor] = {}

    def prepare(self, z0: int, z1: int) -> Prepared:
        """The prepared slices from which those of a slab are segmented."""
        return self._run.read_slab(self._grid, *self._needed(z0, z1))

    def segment(self, slab: PreparedSlab[Prepared]) -> None:
        """Segment what the averages of a slab are made of."""
        needed = {n for z in range(slab.z0, slab.z1) for n in self.weights(z)}
        held = {n: seen for n, seen in self.segmented.items() if n in needed}
        missing, (first, _) = sorted(needed - held.keys()), self._needed(slab.z0, slab.z1)
        config, slabs = self._run.config, self._run.slabs

        def segment_one(n: int) -> torch.Tensor:
            around = neighbouring_slices(slab.values, n - first, self._segmenter.metadata.slices)
            return segment_on_device(
                around, self._segmenter, engine=config.segmenter_engine, max_tile=slabs.tile
            )

        workers = 1
        if self._segmenter.engine(config.segmenter_engine).is_reentrant:
            workers = tiles_at_a_time(config, self._grid.shape[1:], slabs.tile)
        segmented = map_in_threads(segment_one, missing, workers)
        self.segmented = held | dict(zip(missing, segmented, strict=True))

    def weights(self, z: int) -> dict[int, float]:
        """Numbers and weights of the segmented slices whose mean slice z is."""
        return slice_weights(z, self._grid.shape[0], self._stride)

    def _needed(self, z0: int, z1: int) -> tuple[int, int]:
        """First slice, and end, of those that the model sees for slices z0 up to z1."""
        seen = self._segmenter.metadata.slices // 2
        first, last = min(self.weights(z0)) - seen, max(self.weights(z1 - 1)) + seen
        return max(0, first), min(self._grid.shape[0], last + 1)


def _lowest_above(threshold: float) -> int:
    """The lowest uint8 probability that exceeds a threshold in [0, 1]."""
    return math.floor(PROBABILITY_ONE * threshold) + 1


@retry_on_oom("finding the membrane")
def _apply_thresholds(
    grid: PreparedTomogram, probability_u8: Mask, config: DetectConfig
) -> tuple[Mask, Mask | None]:
    """`Membrane.found`, in the memory of the probability, and `Membrane.resampled`."""
    membrane = _lowest_above(config.membrane_threshold)
    candidate = min(membrane, _lowest_above(config.search_threshold))
    # Interpolating the probability places the face of a membrane between voxels, which a mask cannot.
    resampled = None if grid.on_own_voxels else grid.mask_to_tomogram(probability_u8, membrane - 0.5)
    # This allocates nothing: a second attempt after running out of memory would meet a changed array.
    _native.threshold_levels(probability_u8, candidate - 1, membrane - 1)
    return probability_u8, resampled
