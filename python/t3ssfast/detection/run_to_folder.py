"""A detection into a folder of results, which several processes may be given at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import Model
from t3ssfast.detection.job import Job, using_threads
from t3ssfast.detection.result import Detection, finished
from t3ssfast.io import remove_temporaries, results_folder
from t3ssfast.runtime.checkpoint import remove_checkpoints
from t3ssfast.runtime.folder_lock import FolderLock
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Array, StrPath, TomogramSource

__all__ = ["run_to_folder"]


def run_to_folder(
    out: StrPath,
    tomogram: TomogramSource,
    *,
    segmenter: Model = None,
    classifier: Model = None,
    verifier: Model = None,
    membrane: StrPath | Array | None = None,
    voxel_size_angstrom: float | None = None,
    device: str | torch.device = "auto",
    config: DetectConfig | None = None,
    progress: bool = True,
    resume: bool = True,
    draw: Callable[[Detection], None] | None = None,
) -> tuple[Detection, bool]:
    """Find T3SS in a tomogram and save them, once, however often and by however many processes this is
    called.

    One process at a time works in a folder. Finished slabs are kept there until the results are saved, so
    that a run which was stopped is gone on with; results that are there already, whole and of the same input,
    models and configuration, are read instead of made.

    Parameters
    ----------
    out
        Folder of this tomogram's results; made where missing.
    tomogram, segmenter, classifier, verifier, membrane, voxel_size_angstrom, device, config, progress
        As for `detect`.
    resume
        Whether to go on with, or take, what an earlier run left, and to leave something for a later one.
    draw
        Called with the result before it is marked as done, to write more into the folder.

    Returns
    -------
    detection
    new
        Whether it was made by this call.

    Raises
    ------
    BusyError
        Another process is at work in the folder.
    T3Error
        As `detect` and `Detection.save`. A folder that was made and is empty is then removed.
    """
    folder = Path(out)
    config = DetectConfig() if config is None else config
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, missing)
        stack.enter_context(using_threads(config.threads))
        stages = stack.enter_context(Stages(progress))
        if not missing:
            # Before a large file is unpacked in vain.
            lease = stack.enter_context(FolderLock(folder))
        job = Job.open(
            tomogram,
            segmenter=segmenter,
            classifier=classifier,
            verifier=verifier,
            membrane=membrane,
            voxel_size_angstrom=voxel_size_angstrom,
            device=device,
            config=config,
            stages=stages,
        )
        if missing:
            lease = stack.enter_context(FolderLock(results_folder(folder)))
        remove_temporaries(folder)
        identity = job.identify(stages)
        if resume:
            found = finished(folder, identity.key)
            if found is not None:
                # A run that was killed after its last word may have left them.
                remove_checkpoints(folder)
                return found, False
        detection = job.run(identity, job.checkpoint(folder if resume else None, identity), stages)
        lease.check()
        results_folder(folder, "provenance.json")
        if draw is not None:
            draw(detection)
        detection.save(folder)
        remove_checkpoints(folder)
    return detection, True


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders that are empty, the innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
