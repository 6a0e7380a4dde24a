"""The detection of one tomogram of a data set, with its options and models, and what becomes of it."""

from __future__ import annotations

import json
import os
import pickle
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.detection import Detection, run_to_folder
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.result import PICTURES
from t3ssfast.errors import BusyError, OutOfMemoryError, T3Error
from t3ssfast.io import display_path, read, read_mask, tomogram_name
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.plotting import draw_candidates, draw_gallery
from t3ssfast.runtime.figures import pictures_of
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["ModelFile", "TaskOptions", "TomogramDetection", "error_sentence", "run_detection"]

# Models of a few sets of options; a process works on one set at a time.
KEPT_MODELS = 6


@dataclass(frozen=True)
class ModelFile:
    """A model file and how it is read (see `load_model`); without a path, the bundled model."""

    model_kind: str
    path: Path | None = None
    trust_model: bool = False
    reading: tuple[tuple[str, Any], ...] = ()

    def load(self, device: str) -> LoadedModel:
        """Load the model; a process loads an unchanged file once."""
        version = 0 if self.path is None or not self.path.exists() else self.path.stat().st_mtime_ns
        return _load(self, device, version)


@lru_cache(maxsize=KEPT_MODELS)
def _load(model: ModelFile, device: str, version: int) -> LoadedModel:
    return load_model(
        model.path,
        model_kind=model.model_kind,
        device=check_device(device),
        trust_model=model.trust_model,
        **dict(model.reading),
    )


@dataclass(frozen=True)
class TaskOptions:
    """What the detections of one data set share; the fields are options of `detect` and `run_to_folder`."""

    classifier: ModelFile = ModelFile("classifier")
    segmenter: ModelFile = ModelFile("segmenter")
    # None takes the bundled one with the bundled classifier, and none with another.
    verifier: ModelFile | None = None
    config: DetectConfig = field(default_factory=DetectConfig)
    device: str = "auto"
    voxel_size_angstrom: float | None = None
    save_probability: bool = False
    resume: bool = True
    force: bool = False
    pictures: bool = True

    def models(self, device: str, *, membrane_given: bool) -> dict[str, LoadedModel | None]:
        """Load the models that a detection uses, as arguments of `run_to_folder`."""
        classifier = self.classifier.load(device)
        verifier = self.verifier
        if verifier is None and classifier.is_bundled:
            verifier = ModelFile("verifier")
        return {
            "classifier": classifier,
            "segmenter": None if membrane_given else self.segmenter.load(device),
            "verifier": verifier.load(device) if verifier is not None and self.config.verify else None,
        }


@dataclass(frozen=True)
class TomogramDetection:
    """The detection of one tomogram into its folder, with pictures of the result.

    The name of the folder identifies the tomogram within its data set.
    """

    path: Path
    folder: Path
    options: TaskOptions
    membrane: Path | None = None
    search_mask: Path | None = None

    @property
    def name(self) -> str:
        """Name of the tomogram within the data set."""
        return self.folder.name

    def task(self) -> Task:
        """Return this as a task for other processes; results name its files as they are given here."""
        options, config = self.options, self.options.config
        return Task(
            name=self.name,
            path=self.path,
            folder=Path(os.path.abspath(self.folder)),
            directory=os.getcwd(),
            key=self._key(),
            content=pickle.dumps(self),
            device=options.device,
            threads=config.threads,
            memory_bytes=config.memory_budget_bytes,
            voxel_size_angstrom=options.voxel_size_angstrom,
        )

    def _key(self) -> str:
        """Digest of the options and of the state of the file: attempts at something else do not count."""
        content = asdict(self)
        with suppress(OSError):
            status = self.path.stat()
            content["file"] = (status.st_size, status.st_mtime_ns)
        return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __call__(self, *, progress: bool = False) -> tuple[Detection, bool]:
        """Return the detection, and whether it is new rather than read from an earlier run."""
        options = self.options
        draw = self._draw if options.pictures else None
        detection, is_new = run_to_folder(
            self.folder,
            self.path,
            **options.models(options.device, membrane_given=self.membrane is not None),
            membrane=self.membrane,
            search_mask=self.search_mask,
            save_probability=options.save_probability,
            voxel_size_angstrom=options.voxel_size_angstrom,
            device=options.device,
            config=options.config,
            progress=progress,
            resume=options.resume,
            force=options.force,
            draw=draw,
        )
        if draw is not None and not is_new and not all((self.folder / name).exists() for name in PICTURES):
            with pictures_of(display_path(self.folder)):
                draw(detection)
        return detection, is_new

    def _draw(self, detection: Detection) -> None:
        tomogram = read(self.path, voxel_size_angstrom=self.options.voxel_size_angstrom)
        membrane = detection.membrane
        if self.membrane is not None:
            membrane = np.asarray(read_mask(self.membrane, tomogram))
        sign = detection.provenance["contrast"]["sign"]
        overview, gallery = (self.folder / name for name in PICTURES)
        draw_candidates(overview, tomogram, detection.candidates, membrane=membrane, contrast_sign=sign)
        draw_gallery(gallery, tomogram, detection.candidates, contrast_sign=sign)


def run_detection(detection: TomogramDetection) -> Outcome:
    """Run a detection in this process, whatever happens to it."""
    began = time.perf_counter()
    outcome = partial(Outcome, detection.name)
    try:
        result, is_new = detection()
    except BusyError as error:
        return outcome("busy", error=str(error))
    except Exception as error:
        seconds = time.perf_counter() - began
        # Errors of the input are the same every time; memory may be free later, and a device may recover.
        again = is_out_of_memory(error) or isinstance(error, OutOfMemoryError)
        again = again or not isinstance(error, T3Error)
        return outcome("failed", seconds, error=error_sentence(detection.path, error), again=again)
    return outcome(
        "done" if is_new else "skipped",
        time.perf_counter() - began,
        len(result.candidates),
        notes=tuple(result.provenance["notes"]),
    )


def error_sentence(path: Path, error: Exception) -> str:
    """Return an error of a tomogram on one line, without its name at the beginning."""
    if isinstance(error, T3Error):
        return str(error).removeprefix(f"{tomogram_name(path)}: ")
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs, or give a smaller --memory-budget."
    reason = " ".join(str(error).split())
    return f"the search failed ({type(error).__name__}: {reason}); run it alone, and report this if it fails."
