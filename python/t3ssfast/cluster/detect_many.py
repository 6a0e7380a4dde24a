"""`detect_many`: T3SS in many tomograms, by any number of processes on any number of machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t3ssfast.cluster.data_set import DataSet
from t3ssfast.cluster.display import Display
from t3ssfast.cluster.engines import runner
from t3ssfast.cluster.pool import write_pooled
from t3ssfast.cluster.resources import divide
from t3ssfast.cluster.summary import DetectionSummary
from t3ssfast.cluster.tomogram_detection import ModelFile, TaskOptions, TomogramDetection
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import display_path
from t3ssfast.io.tomogram_names import distinct_names
from t3ssfast.models import check_device
from t3ssfast.tomogram import StrPath

__all__ = ["check_detections", "detect_many", "run_data_set", "summarise"]

DONE = ("done", "skipped")


def detect_many(
    paths: Sequence[StrPath],
    out: StrPath,
    *,
    executor: Any = None,
    workers: int = 1,
    config: DetectConfig | None = None,
    segmenter: StrPath | None = None,
    classifier: StrPath | None = None,
    verifier: StrPath | None = None,
    membranes: Sequence[StrPath] | None = None,
    search_masks: Sequence[StrPath] | None = None,
    retries: int = 2,
    resume: bool = True,
    progress: bool = True,
    voxel_size_angstrom: float | None = None,
    device: str = "auto",
    save_probability: bool = False,
    force: bool = False,
    pictures: bool = True,
    trust_model: bool = False,
    tilt_series_pixel_size_angstrom: float | None = None,
) -> DetectionSummary:
    """Find T3SS in many tomograms.

    Each tomogram is a task of its own, run in an isolated process: an error, a crash or a lack of memory
    costs one attempt at one tomogram. Results are those of `detect` for each tomogram by itself, to the
    byte. A second call does only what is missing.

    Parameters
    ----------
    paths
        Tomogram files or OME-Zarr folders.
    out
        Output folder. It gets a folder with the results of each tomogram, named after it, summary.csv and
        .json, candidates.star with the candidates of all, and a folder of logs.
    executor
        What runs the tasks: a `dask.distributed.Client`, a submitit executor, or any executor of
        `concurrent.futures`. None: isolated processes on this machine.
    workers
        Number of tomograms at a time, where `executor` is None. Cores and CUDA devices are divided among
        them; each has the memory budget of `config` where the memory holds as many.
    config
        Everything that `DetectConfig` holds.
    segmenter, classifier, verifier
        Model files; None takes the bundled ones, as for `detect`.
    membranes, search_masks
        One mask for each tomogram, in the same order; None: as for `detect`.
    retries
        How often a tomogram is tried again after its worker was killed or memory ran out. Three kills set it
        aside, over all calls with the same options.
    resume
        Whether to skip finished tomograms, to resume interrupted ones, and to leave aside those that killed
        their workers.
    progress
        Show a live table where standard error is a terminal.
    voxel_size_angstrom, device, save_probability
        As for `detect`.
    force
        Whether to replace the finished results of another tomogram.
    pictures
        Whether to draw the candidates on slices.
    trust_model
        As for `t3ssfast.models.load_model`.
    tilt_series_pixel_size_angstrom
        Pixel size of the unbinned tilt series; RELION's optimisation set is then written, too.

    Returns
    -------
    DetectionSummary
        `.table`, `.failed`.

    Raises
    ------
    InputError
        If there is no tomogram, one is given twice, or there are not as many masks as tomograms.
    ConfigError, ModelError, DeviceError
        If an option, a model or the device cannot be used.
    OutputError
        If the output folder cannot be written to.
    """
    given = {"segmenter": segmenter, "classifier": classifier, "verifier": verifier}
    models = {kind: _model_file(kind, path, trust_model) for kind, path in given.items()}
    options = TaskOptions(
        classifier=models["classifier"] or ModelFile("classifier"),
        segmenter=models["segmenter"] or ModelFile("segmenter"),
        verifier=models["verifier"],
        config=config or DetectConfig(),
        device=device,
        voxel_size_angstrom=voxel_size_angstrom,
        save_probability=save_probability,
        resume=resume,
        force=force,
        pictures=pictures,
    )
    files = [Path(path) for path in paths]
    masks, regions = _masks("membranes", membranes, files), _masks("search_masks", search_masks, files)
    detections = [
        TomogramDetection(path, Path(out) / name, options, mask, region)
        for path, name, mask, region in zip(files, distinct_names(files), masks, regions, strict=True)
    ]
    return run_data_set(
        detections,
        executor=executor,
        workers=workers,
        retries=retries,
        table=progress,
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size_angstrom,
    )


def run_data_set(
    detections: Sequence[TomogramDetection],
    *,
    executor: Any,
    workers: int,
    retries: int,
    table: bool,
    say: Callable[[str, bool], None] | None = None,
    shard: tuple[int, int] = (1, 1),
    tilt_series_pixel_size_angstrom: float | None = None,
) -> DetectionSummary:
    """Run the detections of a data set, and write its summary and its pooled candidates.

    `table` and `say` are those of `Display`. `shard` (i, n) runs every n-th detection from the i-th on; the
    summary is of all.
    """
    if retries < 0 or workers < 1:
        raise ConfigError(f"retries is {retries} and workers {workers}; give 0 or more, and 1 or more.")
    check_detections(detections, here=executor is None)
    first, count = shard
    own = range(first - 1, len(detections), count)
    environments: list[dict[str, str]] = []
    if executor is None:
        options, environments = divide(detections[0].options, max(1, min(workers, len(own))))
        detections = [replace(detection, options=options) for detection in detections]
    run = runner(executor, environments)
    tasks = [detection.task() for detection in detections]
    out = tasks[0].folder.parent
    data_set = DataSet.record(out, tasks)
    with Display(tasks, table=table, say=say) as display:
        outcomes = run([tasks[number] for number in own], retries=retries, display=display) if own else {}
    summary = data_set.summary(outcomes, [task.name for task in tasks])
    summarise(summary, tilt_series_pixel_size_angstrom)
    return summary


def summarise(summary: DetectionSummary, tilt_series_pixel_size_angstrom: float | None = None) -> None:
    """Write the files of a summary, and the candidates of all tomograms that are done."""
    summary.save()
    done = [row.tomogram for row in summary.rows if row.status in DONE]
    write_pooled(summary.out, done, tilt_series_pixel_size_angstrom)


def check_detections(detections: Sequence[TomogramDetection], *, here: bool = True) -> None:
    """Check what the detections of a data set share: models, device and options.

    `here`: they run on this machine, so the device must be here, too.
    """
    if not detections:
        raise InputError("There is no tomogram; give at least one.")
    options = detections[0].options
    if here:
        check_device(options.device)
    options.models("cpu", membrane_given=detections[0].membrane is not None)
    if options.save_probability and any(one.membrane is not None for one in detections):
        raise ConfigError(
            "save_probability: with a membrane mask nothing is segmented, so there is no probability; leave "
            "one of the two out."
        )


def _model_file(model_kind: str, path: object, trust_model: bool) -> ModelFile | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(
            f"{model_kind}: {type(path).__name__} was given, which other processes cannot load; give the "
            "path of a model file (save a module with t3ssfast.models.save_model)."
        )
    return ModelFile(model_kind, Path(path), trust_model)


def _masks(name: str, masks: Sequence[StrPath] | None, files: Sequence[Path]) -> list[Path | None]:
    if masks is None:
        return [None] * len(files)
    if isinstance(masks, str | os.PathLike) or len(masks) != len(files):
        shown = display_path(masks) if isinstance(masks, str | os.PathLike) else f"{len(masks)} masks"
        raise InputError(f"{name}: {shown} for {len(files)} tomograms; give a sequence with one for each.")
    return [Path(mask) for mask in masks]
