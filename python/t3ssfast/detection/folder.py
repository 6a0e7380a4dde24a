"""A detection whose results go into a folder, which several processes may share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import DetectionInputs, InputOptions
from t3ssfast.detection.pipeline import checkpoint_of, run_pipeline
from t3ssfast.detection.provenance import Identification
from t3ssfast.detection.result import PICTURES, Detection, has_results, load_finished, refuse_other_input
from t3ssfast.io import display_path, remove_temporaries, results_folder
from t3ssfast.io.checksum_cache import ChecksumCache
from t3ssfast.runtime.checkpoint import remove_checkpoints
from t3ssfast.runtime.figures import pictures_of
from t3ssfast.runtime.folder_lock import FolderLock
from t3ssfast.runtime.progress import ProgressListener, Stages
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.tomogram import StrPath, TomogramSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["run_to_folder"]


def run_to_folder(
    out: StrPath,
    tomogram: TomogramSource,
    *,
    config: DetectConfig | None = None,
    progress: bool | ProgressListener = True,
    resume: bool = True,
    force: bool = False,
    draw: Callable[[Detection], None] | None = None,
    **options: Unpack[InputOptions],
) -> tuple[Detection, bool]:
    """Find T3SS in a tomogram and save the results, once, however often and by however many processes called.

    One process at a time works in a folder. Results that are there already, complete and of the same input,
    models and configuration, are read. Finished slabs are kept in the folder until the results are saved, so
    that an interrupted run resumes.

    Parameters
    ----------
    out
        Folder for the results of this tomogram; made if missing.
    tomogram, config, **options
        As for `detect`.
    progress
        As for `detect`, or a function called with the title of a stage, and its slices done and in total.
    resume
        Whether to use what an earlier run left, and to keep slabs for a later one.
    force
        Whether to replace the finished results of another tomogram.
    draw
        Called with the detection after the results are saved, to write pictures into the folder. Its errors
        are reported as a warning.

    Returns
    -------
    detection
    new
        Whether this call made it.

    Raises
    ------
    BusyError
        If another process works in the folder.
    OutputError
        If the folder holds the finished results of another tomogram.
    T3Error
        As for `detect` and `Detection.save`. Folders that this call made and left empty are removed.
    """
    folder = Path(out)
    config = DetectConfig() if config is None else config
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, missing)
        stack.enter_context(torch_threads(config.threads))
        stages = stack.enter_context(Stages(progress))
        if not missing:
            # Before a large file is unpacked for nothing.
            lock = stack.enter_context(FolderLock(folder))
        inputs = DetectionInputs.open(tomogram, config, stages, **options)
        if missing:
            lock = stack.enter_context(FolderLock(results_folder(folder)))
        remove_temporaries(folder)
        checksums = ChecksumCache(folder if resume else None)
        identification = stack.enter_context(Identification(inputs, stages, checksums))
        if has_results(folder):
            identity = identification.result()
            if not force:
                refuse_other_input(folder, identity.tomogram)
            found = None
            if resume:
                found = load_finished(folder, identity.key, with_probability=inputs.save_probability)
            if found is not None:
                # A run that was killed after saving may have left them.
                remove_checkpoints(folder)
                checksums.save()
                return found, False
        store = checkpoint_of(inputs, folder if resume else None, identification)
        lock.check()
        detection = run_pipeline(inputs, identification, store, stages, lock.check)
        lock.check()
        # They would be taken for pictures of this result.
        results_folder(folder, *PICTURES)
        detection.save(folder, force=force)
        checksums.save()
        remove_checkpoints(folder)
        if draw is not None:
            with pictures_of(display_path(folder)):
                draw(detection)
    return detection, True


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders that are empty, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
