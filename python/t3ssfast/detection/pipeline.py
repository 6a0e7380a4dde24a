"""The pipeline: a tomogram in, T3SS candidates out, step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from t3ssfast.detection.assemble import (
    calibrate_scores,
    inside,
    orient_peaks,
    score_poses,
    select_candidates,
    with_membrane_sites,
)
from t3ssfast.detection.classify import classify, resolve_plan
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.contrast import trained_sign
from t3ssfast.detection.decoys import score_decoys, threshold_of
from t3ssfast.detection.describe import describe_detection, describe_domain, notes_on_scores
from t3ssfast.detection.inputs import DetectionInputs, Model
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.pick import pick
from t3ssfast.detection.preselect import PeakLimit, WindowFilter, read_preselection
from t3ssfast.detection.provenance import Identification, has_content_of
from t3ssfast.detection.result import Detection
from t3ssfast.detection.run import Run
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.segment import Membrane, given_membrane, segment_membrane
from t3ssfast.detection.tomogram_statistics import tomogram_statistics
from t3ssfast.errors import ConfigError
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.runtime.memory import reserve_blas_workspace, retry_on_oom, return_freed_memory
from t3ssfast.runtime.progress import Stages
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.tomogram import Array, StrPath, TomogramSource

__all__ = ["checkpoint_of", "detect", "run_pipeline"]


def detect(
    tomogram: TomogramSource,
    *,
    segmenter: Model = None,
    classifier: Model = None,
    verifier: Model = None,
    membrane: StrPath | Array | None = None,
    search_mask: StrPath | Array | None = None,
    save_probability: bool = False,
    voxel_size_angstrom: float | None = None,
    device: str | torch.device = "auto",
    config: DetectConfig | None = None,
    progress: bool = True,
    checkpoint: StrPath | None = None,
) -> Detection:
    """Find T3SS in a tomogram.

    A U-Net segments the membrane, the windows near it are classified at stride 1, and the peaks of their
    scores become candidates with a pose, which a verifier confirms. Slices are padded by reflection, so every
    voxel can be the centre of a window. Results do not depend on the slabs that the volume is cut into; where
    memory runs out, thinner slabs are tried.

    Parameters
    ----------
    tomogram
        Path of an MRC file or OME-Zarr folder, a `Tomogram`, or a (z, y, x) array.
    segmenter, classifier
        Model files, modules or loaded models; None takes the bundled ones.
    verifier
        Network that examines each candidate as a whole. None takes the bundled one where the classifier is
        the bundled one, too, and none otherwise: it was trained on that classifier's candidates.
    membrane
        (z, y, x) mask of the tomogram's shape, or the path of one. The bundled segmenter then tells the
        contrast alone, where that is not given.
    search_mask
        (z, y, x) mask of the tomogram's shape, or the path of one: particles are searched for where it is not
        0, such as the lamella without carbon and gold. Membranes are segmented everywhere.
    save_probability
        Keep the membrane probability in the result, which `Detection.save` then writes. Takes a byte for each
        voxel, and 4 while it is written.
    voxel_size_angstrom
        Overrides the header's; required for an array.
    device
        "auto", "cpu", "cuda", "cuda:1" ...
    config
        Everything else; `DetectConfig` holds the defaults.
    progress
        Show progress bars where standard error is a terminal.
    checkpoint
        Folder in which each finished slab is kept, so that a later call with the same tomogram, models and
        configuration resumes where this one stopped. `Detection.save` removes the slabs. Models must be
        files. None keeps nothing.

    Returns
    -------
    Detection

    Raises
    ------
    ReadError, VoxelSizeError, InputError
        If the tomogram or the mask cannot be read or used.
    ModelError, DeviceError
        If a model or the device cannot be used.
    OutOfMemoryError
        If memory runs out even with the smallest slabs.
    OutputError
        If a slab cannot be written to the checkpoint.
    """
    config = DetectConfig() if config is None else config
    with torch_threads(config.threads), Stages(progress) as stages:
        inputs = DetectionInputs.open(
            tomogram,
            config,
            stages,
            segmenter=segmenter,
            classifier=classifier,
            verifier=verifier,
            membrane=membrane,
            search_mask=search_mask,
            save_probability=save_probability,
            voxel_size_angstrom=voxel_size_angstrom,
            device=device,
        )
        with Identification(inputs, stages) as identification:
            store = checkpoint_of(inputs, checkpoint, identification)
            return run_pipeline(inputs, identification, store, stages)


def run_pipeline(
    inputs: DetectionInputs,
    identification: Identification,
    store: CheckpointStore,
    stages: Stages,
    before_slab: Callable[[], None] = lambda: None,
) -> Detection:
    """Run the steps of a detection on inputs that are loaded.

    `before_slab` is called before a slab is read, and may raise an exception to end the detection.
    """
    config, classifier = inputs.config, inputs.classifier
    inputs.files.check()
    reserve_blas_workspace()
    with stages("prepare"):
        grid = inputs.grid_of(classifier)
    run = Run(config, inputs.device, grid.shape[1] * grid.shape[2], store, stages, before_slab)

    find_membrane = given_membrane if inputs.segmenter is None else segment_membrane
    membrane = find_membrane(inputs, grid, run)
    return_freed_memory()
    grid = grid.with_contrast_sign(membrane.contrast["sign"] * trained_sign(classifier))
    search = search_region_of(membrane, grid, inputs)
    plan = resolve_plan(classifier, config.plan)
    preselection = preselection_of(inputs, grid, search, plan, run)
    windows = classify(grid, search, preselection, classifier, plan, inputs.peak_threshold, run)
    return_freed_memory()

    with stages("pick"):
        peaks = pick(
            windows.scores,
            voxel_size_angstrom=grid.voxel_size_angstrom,
            smoothing_nm=config.score_smoothing_nm,
            threshold=inputs.peak_threshold,
            min_distance_nm=config.min_distance_nm,
            max_candidates=config.max_candidates,
        )
    with stages("orient"):
        candidates = orient_peaks(grid, membrane.mask, peaks)
    with stages("verify"):
        candidates = with_membrane_sites(candidates, inputs, grid, membrane.mask)
        scored, log_odds = score_poses(candidates, inputs, grid, membrane.mask)
    competition = found = None
    if config.max_fdr is None:
        candidates = inside(select_candidates(scored, inputs), inputs.region)
        candidates = calibrate_scores(candidates, inputs.calibrations).sorted_by_score()
    else:
        with stages("decoys"):
            competition = score_decoys(candidates, scored, log_odds, inputs, grid, membrane.mask)
        found = threshold_of(competition, inputs)
        candidates = competition.above(found.threshold)

    # Without the places along the membrane that are appended to the peaks.
    of_peaks = log_odds[: len(peaks[1])]
    statistics = tomogram_statistics(grid, membrane.histogram, of_peaks)
    identity = identification.result()
    provenance = describe_detection(inputs, identity, grid, membrane, windows, run)
    provenance |= describe_domain(statistics, inputs.main_calibration)
    if found is not None:
        provenance["false_discovery"] = found.to_dict()
    provenance["notes"] += notes_on_scores(provenance, found)
    provenance["counts"] |= {"peaks": len(peaks[1]), "candidates": len(candidates)}
    inputs.files.check_all(partial(has_content_of, inputs, identity))
    kept = store if store.folder else None
    return Detection(candidates, membrane.reported(), provenance, kept, membrane.probability, competition)


@retry_on_oom("finding the search region")
def search_region_of(membrane: Membrane, grid: PreparedTomogram, inputs: DetectionInputs) -> SearchRegion:
    """The voxels whose windows are classified: near the membrane, or enclosed by it, and with data.

    A search mask restricts them.
    """
    region = inputs.region
    return SearchRegion.of(
        membrane.mask,
        grid.voxel_size_angstrom,
        inputs.config,
        allowed=None if region is None else grid.mask_from_tomogram(region, 0, grid.shape[0]),
        no_data=grid.no_data,
    )


def preselection_of(
    inputs: DetectionInputs, grid: PreparedTomogram, search: SearchRegion, plan: str, run: Run
) -> WindowFilter:
    """The classifier's preselection, which excludes most windows cheaply; none where the options say so."""
    return WindowFilter(
        read_preselection(inputs.classifier.metadata.preselect) if run.config.preselect else None,
        grid,
        search,
        inputs.classifier,
        device=run.device,
        precision=run.config.precision,
        plan=plan,
        peaks=PeakLimit(inputs.peak_threshold, run.config.score_smoothing_nm),
    )


def checkpoint_of(
    inputs: DetectionInputs, folder: StrPath | None, identification: Identification
) -> CheckpointStore:
    """The checkpoint store of a detection; without a folder it keeps nothing."""
    if folder is not None and any(model is not None and model.path == "<module>" for model in inputs.models):
        raise ConfigError(
            "A checkpoint was asked for, but a model was given as a module, whose code a later run cannot "
            "recognise; give the models as files, or no checkpoint."
        )
    return CheckpointStore(folder, lambda: identification.result().exact_key)
