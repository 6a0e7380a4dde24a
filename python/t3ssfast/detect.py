"""The main job: a tomogram in, T3SS candidates out, stage by stage and slab by slab."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from t3ssfast.ahead import work_ahead
from t3ssfast.calibrate import picking_threshold, read_calibration
from t3ssfast.classify import classify_slab
from t3ssfast.errors import InputError, VoxelSizeError
from t3ssfast.export import save_results
from t3ssfast.io import read
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.normalise import PreparedTomogram
from t3ssfast.pick import SparseScores, orient, pick, smooth_slabs
from t3ssfast.plan import read_plan
from t3ssfast.preselect import Gate, read_preselection
from t3ssfast.progress import Stages
from t3ssfast.provenance import (
    describe_input,
    describe_model,
    describe_plan,
    describe_segmenter,
    describe_software,
)
from t3ssfast.segment import (
    MAX_TILE,
    MIN_TILE,
    SIDE_MULTIPLE,
    find_contrast_sign,
    prune_membrane,
    search_region,
    segment,
)
from t3ssfast.types import Candidates, DetectConfig, Tomogram, check_voxel_size
from t3ssfast.upload import Uploader

__all__ = ["Detection", "detect"]

Mask = npt.NDArray[np.uint8]
Slab = tuple[int, int]
Values = npt.NDArray[np.float32] | torch.Tensor
Path = str | os.PathLike[str]
Array = npt.NDArray[Any] | torch.Tensor
Model = str | os.PathLike[str] | nn.Module | LoadedModel | None

# What the slabs hold for each voxel of one: three of prepared values (the last, this one and the next), their
# regions, membrane probability, and copies in passing.
SLAB_BYTES_PER_VOXEL = 32
SLAB_PART_OF_BUDGET = 0.25
# Windows judged by one call, so that memory does not follow from how much of a slab is membrane.
PIECE_WINDOWS = 1 << 18
# Activations that a U-Net of base 16 holds at a time, for each pixel of a tile.
TILE_BYTES_PER_PIXEL = 512
TILE_PART_OF_BUDGET = 0.25
# Slices on which the grey values in a given membrane are compared with those outside.
SIGN_SLICES = 12
DARK, LIGHT = 1, -1


@dataclass(frozen=True)
class Detection:
    """What was found in a tomogram, and how.

    Parameters
    ----------
    candidates
        In voxels of the given tomogram, highest score first.
    membrane
        (z, y, x) uint8 mask of the tomogram's shape, 1 is membrane; None where a mask was given.
    provenance
        Versions, models, configuration, input, counts and timings, as plain values for JSON.
    """

    candidates: Candidates
    membrane: Mask | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, out: Path) -> None:
        """Write candidates.star .csv .mod .tbl, membrane.mrc and provenance.json into a folder.

        Each file is written atomically, provenance.json last: where it is, the rest is whole.

        Raises
        ------
        OutputError
            If the folder cannot be made or a file cannot be written.
        """
        size = self.candidates.voxel_size_angstrom
        save_results(out, self.candidates, self.membrane, size, self.provenance)


def detect(
    tomogram: Path | Tomogram | Array,
    *,
    segmenter: Model = None,
    classifier: Model = None,
    membrane: Path | Array | None = None,
    voxel_size_angstrom: float | None = None,
    device: str | torch.device = "auto",
    config: DetectConfig | None = None,
    progress: bool = True,
) -> Detection:
    """Find T3SS in a tomogram.

    Membranes are segmented slice by slice, the windows near them are judged at stride 1, and the peaks of
    their scores become candidates with a pose. Every voxel is judged: slices are padded by reflection. The
    result does not depend on how the volume is cut into slabs.

    Parameters
    ----------
    tomogram
        Path of an MRC file or OME-Zarr folder, a `Tomogram`, or a (z, y, x) array.
    segmenter, classifier
        TorchScript files, modules or loaded models; None takes the bundled ones.
    membrane
        (z, y, x) mask of the tomogram's shape, or the path of one: no segmenter is then needed.
    voxel_size_angstrom
        Instead of the header's; an array needs it.
    device
        "auto", "cpu", "cuda", "cuda:1" ...
    config
        Everything else; `DetectConfig` holds the defaults.
    progress
        Show bars, if standard error is a terminal.

    Returns
    -------
    Detection

    Raises
    ------
    ReadError, VoxelSizeError, InputError
        The tomogram or the mask cannot be read or used.
    ModelError, DeviceError
        A model is not what it should be, or the device is not there.
    """
    config = DetectConfig() if config is None else config
    where = check_device(device)
    with _threads(config.threads), Stages(progress) as stages:
        with stages("read"):
            source = _open(tomogram, voxel_size_angstrom)
            given = None if membrane is None else _open_mask(membrane, source)
        with stages("load models"):
            judge = load_model(classifier, kind="classifier", device=where)
            finder = None if given is not None else load_model(segmenter, kind="segmenter", device=where)
        calibration = read_calibration(judge.metadata.calibration)
        # Before the work begins: a precision that cannot be promised is refused at once.
        threshold = picking_threshold(calibration, config)
        with stages("prepare"):
            grid = _prepare(source, judge)
            _check_window(grid, judge)
        if finder is None:
            assert given is not None, "without a mask there is a segmenter"
            contrast = _contrast_in_mask(grid, given, judge, config)
            mask, membrane_out = grid.mask_from_tomogram(given, 0, grid.shape[0]), None
            segmented_by: dict[str, Any] | None = None
        else:
            finder_grid = _prepare(source, finder)
            contrast = _contrast_by_model(finder_grid, finder, config, stages)
            finder_grid = finder_grid.with_contrast_sign(contrast["sign"] * _sign(finder))
            found = _find_membrane(finder_grid, finder, config, stages)
            segmented_by = describe_segmenter(finder, config.segmenter_engine)
            # The judging needs that memory.
            finder.release_engines()
            membrane_out = found if finder_grid.on_own_voxels else finder_grid.mask_to_tomogram(found)
            same_grid = finder_grid.shape == grid.shape
            mask = found if same_grid else grid.mask_from_tomogram(membrane_out, 0, grid.shape[0])
            del found
        grid = grid.with_contrast_sign(contrast["sign"] * _sign(judge))
        scores, counts = _judge_windows(grid, mask, judge, where, threshold, config, stages)
        with stages("pick"):
            centre, score = pick(
                scores,
                voxel_size_angstrom=grid.voxel_size_angstrom,
                smoothing_nm=config.score_smoothing_nm,
                threshold=threshold,
                min_distance_nm=config.min_distance_nm,
                max_candidates=config.max_candidates,
            )
            candidates = Candidates(
                centre_zyx=np.clip(grid.to_tomogram(centre), 0, np.array(source.shape) - 1),
                score=score if calibration is None else calibration.apply(score),
                normal_zyx=orient(mask, centre, voxel_size_angstrom=grid.voxel_size_angstrom),
                voxel_size_angstrom=source.voxel_size_angstrom,
                tomogram_shape=source.shape,
                tomogram_name=source.name,
            )
        with stages("checksum"):
            described = describe_input(tomogram, source)
    share = counts["windows_judged"] / counts["voxels"]
    return Detection(
        candidates,
        membrane_out,
        {
            "software": describe_software(),
            "device": str(where),
            "input": described,
            "models": {
                "segmenter": segmented_by,
                "classifier": describe_model(judge),
            },
            "config": config.to_dict(),
            "contrast": contrast,
            "grid": {"shape_zyx": list(grid.shape), "voxel_size_angstrom": grid.voxel_size_angstrom},
            "counts": {**counts, "candidates": len(candidates)},
            "notes": [] if counts["membrane_voxels"] else ["No membrane was found, so no window was judged."],
            "plan": describe_plan(grid, judge, share, where),
            "seconds": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
        },
    )


# ------------------------------------------------------------------------------------------------- the passes


def _find_membrane(grid: PreparedTomogram, finder: LoadedModel, config: DetectConfig, stages: Stages) -> Mask:
    """Membrane mask on the segmenter's grid, one slab at a time, without the small pieces."""
    mask = np.empty(grid.shape, np.uint8)
    tile, read_slab = _tile(config), _slab_reader(grid, finder.device)

    def prepare(slab: Slab) -> tuple[Slab, Values]:
        return slab, read_slab(*slab)

    with (
        stages.bar("segment membranes", grid.shape[0]) as advance,
        closing(stages.waiting("prepare", work_ahead(prepare, _slabs(grid, config)))) as slabs,
    ):
        for (z0, z1), values in slabs:
            with stages("segment"):
                for z in range(z0, z1):
                    answer = segment(
                        values[z - z0 : z - z0 + 1], finder, engine=config.segmenter_engine, max_tile=tile
                    )
                    np.greater(answer[0], config.membrane_threshold, out=mask[z], casting="unsafe")
                    advance(1)
    with stages("prune"):
        # In a volume thinner than the smallest piece is wide, a piece must be as long but can be no taller.
        thickness_nm = grid.shape[0] * grid.voxel_size_angstrom / 10
        area = min(config.membrane_min_area_nm2, thickness_nm * math.sqrt(config.membrane_min_area_nm2))
        return prune_membrane(mask, grid.voxel_size_angstrom, area, out=mask)


def _judge_windows(
    grid: PreparedTomogram,
    mask: Mask,
    judge: LoadedModel,
    where: torch.device,
    threshold: float,
    config: DetectConfig,
    stages: Stages,
) -> tuple[SparseScores, dict[str, int]]:
    """Probability of a T3SS at the voxels near the membrane whose window passes the preselection.

    Averaged with their neighbours as they come; only those that can matter to picking are kept.
    """
    plan = config.plan
    if plan == "auto":
        # Once for the whole tomogram: chosen slab by slab, rounding would depend on the slabs.
        plan = "windows" if isinstance(read_plan(judge.module, _window(judge)), str) else "dense"
    gate = Gate(
        read_preselection(judge.metadata.preselect) if config.preselect else None,
        *(grid, mask, judge),
        search_distance_nm=config.search_distance_nm,
        device=where,
        precision=config.precision,
        plan=plan,
    )
    plane = grid.shape[1] * grid.shape[2]
    counts = {"voxels": grid.shape[0] * plane, "membrane_voxels": int(np.count_nonzero(mask))}
    counts |= {"windows_near_membrane": 0, "windows_judged": 0}

    read_slab = _slab_reader(grid, where)

    def prepare(slab: Slab) -> tuple[Slab, Mask, Values | None]:
        region = search_region(mask, grid.voxel_size_angstrom, config.search_distance_nm, *slab)
        return slab, region, read_slab(*slab) if region.any() else None

    def judged() -> Generator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]], None, None]:
        with (
            stages.bar("judge windows", grid.shape[0]) as advance,
            closing(stages.waiting("prepare", work_ahead(prepare, _slabs(grid, config)))) as slabs,
        ):
            for (z0, z1), region, values in slabs:
                for a, b in _few_windows(region) if values is not None else ():
                    assert values is not None, "where there is a window the slab was prepared"
                    part, wanted = values[a:b], region[a:b]
                    counts["windows_near_membrane"] += int(np.count_nonzero(wanted))
                    with stages("preselect"):
                        wanted = gate.narrow(part, wanted, z0 + a)
                    with stages("classify"):
                        index, probability = classify_slab(
                            part, wanted, judge, device=where, precision=config.precision, plan=plan
                        )
                    counts["windows_judged"] += len(index)
                    yield index + (z0 + a) * plane, probability
                advance(z1 - z0)

    with closing(judged()) as slabs:
        scores = smooth_slabs(
            slabs,
            grid.shape,
            voxel_size_angstrom=grid.voxel_size_angstrom,
            smoothing_nm=config.score_smoothing_nm,
            threshold=threshold,
        )
    return scores, counts


def _slab_reader(grid: PreparedTomogram, where: torch.device) -> Callable[[int, int], Values]:
    """What makes slabs: on a CUDA device the slices are sent as they are stored, and prepared there."""
    if where.type != "cuda":
        return grid.slab
    upload = Uploader(where)
    return lambda z0, z1: grid.slab_on_device(z0, z1, upload)


def _few_windows(region: Mask) -> Iterator[tuple[int, int]]:
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


def _slabs(grid: PreparedTomogram, config: DetectConfig) -> Iterator[Slab]:
    """(z0, z1) of slabs that together cover the grid, as thick as the memory budget allows."""
    depth, height, width = grid.shape
    budget = config.memory_budget_bytes * SLAB_PART_OF_BUDGET
    fitting = int(budget / (SLAB_BYTES_PER_VOXEL * height * width))
    thickness = config.slab_slices or max(1, fitting)
    for z0 in range(0, depth, thickness):
        yield z0, min(z0 + thickness, depth)


def _tile(config: DetectConfig) -> int:
    """Longest side of the segmenter's tiles that the memory budget allows."""
    side = math.isqrt(int(config.memory_budget_bytes * TILE_PART_OF_BUDGET / TILE_BYTES_PER_PIXEL))
    return min(max(side // SIDE_MULTIPLE * SIDE_MULTIPLE, MIN_TILE), MAX_TILE)


# ----------------------------------------------------------------------------------------------------- inputs


def _open(tomogram: Path | Tomogram | Array, voxel_size_angstrom: float | None) -> Tomogram:
    """The tomogram, whatever it was given as."""
    if isinstance(tomogram, str | os.PathLike):
        return read(tomogram, voxel_size_angstrom=voxel_size_angstrom)
    if isinstance(tomogram, Tomogram):
        if voxel_size_angstrom is None:
            return tomogram
        size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
        return replace(tomogram, voxel_size_angstrom=size)
    if not isinstance(tomogram, np.ndarray | torch.Tensor):
        raise InputError(
            f"A {type(tomogram).__name__} was given as tomogram; give a path, a Tomogram or an array."
        )
    if voxel_size_angstrom is None:
        raise VoxelSizeError("An array does not say how large its voxels are; give voxel_size_angstrom.")
    return Tomogram(_as_numpy(tomogram), voxel_size_angstrom)


def _open_mask(membrane: Path | Array, source: Tomogram) -> npt.NDArray[Any]:
    """The given membrane mask, checked against the tomogram."""
    if isinstance(membrane, str | os.PathLike):
        name = os.fspath(membrane)
        # The header of a mask is often without a voxel size; it must be the tomogram's anyway.
        mask = read(membrane, voxel_size_angstrom=source.voxel_size_angstrom).data
    else:
        name, mask = "The membrane mask", _as_numpy(membrane)
    if mask.shape != source.shape:
        raise InputError(
            f"{name} has shape {tuple(mask.shape)} but the tomogram {source.name} has {source.shape}; give a "
            f"mask with one voxel for each of the tomogram's."
        )
    if not np.any(mask):
        raise InputError(f"{name} is empty; set the membranes to 1, or leave it out to have them segmented.")
    return mask


def _as_numpy(array: Array) -> npt.NDArray[Any]:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def _prepare(source: Tomogram, model: LoadedModel) -> PreparedTomogram:
    return PreparedTomogram.prepare(
        source,
        voxel_size_angstrom=model.metadata.voxel_size_angstrom,
        normalisation=model.metadata.normalisation,
    )


def _window(judge: LoadedModel) -> int:
    size = judge.metadata.window_px
    assert size is not None, "load_model gives every classifier a window"
    return size


def _check_window(grid: PreparedTomogram, judge: LoadedModel) -> None:
    """Refuse a tomogram whose slices are smaller than a window."""
    size, (_, height, width) = _window(judge), grid.shape
    if min(height, width) < size:
        nm = grid.voxel_size_angstrom / 10
        raise InputError(
            f"{grid.tomogram.name}: its slices measure {height * nm:.0f} x {width * nm:.0f} nm (y, x), less "
            f"than the classifier's window of {size * nm:.0f} nm; give a larger tomogram, or check its voxel "
            f"size ({grid.tomogram.voxel_size_angstrom:g} A)."
        )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run with so many threads, in PyTorch and in the native kernels, which take its number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------------- contrast


def _sign(model: LoadedModel) -> int:
    """What the model was trained on."""
    return DARK if model.metadata.contrast == "dark" else LIGHT


def _contrast_by_model(
    grid: PreparedTomogram, finder: LoadedModel, config: DetectConfig, stages: Stages
) -> dict[str, Any]:
    """Whether protein is dark: as given, or under which sign the segmenter sees more membrane."""
    if config.contrast != "auto":
        return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
    with stages("contrast"):
        found = find_contrast_sign(grid, finder, engine=config.segmenter_engine)
    return {
        # The sign found is the one that the model likes; one trained on light protein likes the other.
        "sign": found.sign * _sign(finder),
        "how": "the sign under which the segmenter sees more membrane",
        "membrane_as_given": found.evidence_dark,
        "membrane_inverted": found.evidence_light,
    }


def _contrast_in_mask(
    grid: PreparedTomogram, given: npt.NDArray[Any], judge: LoadedModel, config: DetectConfig
) -> dict[str, Any]:
    """Whether protein is dark: as given, or whether the membrane is darker than the rest."""
    if config.contrast != "auto":
        return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
    mask = grid.mask_from_tomogram(given, 0, grid.shape[0])
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    # Evenly spread over the slices with membrane; all of them where they are few.
    chosen = slices[:: max(1, len(slices) // SIGN_SLICES)]
    inside, outside = [], []
    for z in chosen.tolist():
        values, membrane = grid.slab(z, z + 1)[0], mask[z] != 0
        if not membrane.all():
            inside.append(float(values[membrane].mean(dtype=np.float64)))
            outside.append(float(values[~membrane].mean(dtype=np.float64)))
    difference = float(np.mean(inside) - np.mean(outside)) if inside else 0.0
    return {
        "sign": LIGHT if difference > 0 else DARK,
        "how": "the grey values in the given membrane against those outside",
        "membrane_minus_rest_sigmas": difference,
    }
