"""The inputs of a detection: opened, loaded and checked before the work begins."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from t3ssfast.detection.calibrate import picking_threshold, reported_kinds
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.io import read_mask
from t3ssfast.io.volumes.masks import check_mask
from t3ssfast.io.volumes.opening import as_numpy, open_tomogram
from t3ssfast.io.watched_files import WatchedFiles
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Array, StrPath, Tomogram, TomogramSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DetectionInputs", "InputOptions", "Model", "calibrations_of", "normalise", "window_of"]

# How a mask is called where it is no file, and what to do about an empty one.
MEMBRANE_MASK = "The membrane mask", "set the membranes to 1, or leave it out to have them segmented"
SEARCH_MASK = "The search mask", "set the region to search in to 1, or leave it out to search everywhere"

# Share of the memory budget in which a small tomogram is held once it is prepared, for all networks.
HELD_BUDGET_FRACTION = 1 / 6

Model = StrPath | nn.Module | LoadedModel | None

# The bundled models by number of the thread, kind and device. Two detections at once must not share engines.
# When a thread has ended, the next thread with its number uses its models. They are not thread-local, because
# a thread that frees them while Python ends makes PyTorch abort the process.
_bundled: dict[tuple[int, str, torch.device], LoadedModel] = {}


class InputOptions(TypedDict, total=False):
    """The inputs that `detect` and `run_to_folder` share; `detect` describes them."""

    segmenter: Model
    classifier: Model
    verifier: Model
    membrane: StrPath | Array | None
    search_mask: StrPath | Array | None
    save_probability: bool
    voxel_size_angstrom: float | None
    device: str | torch.device


@dataclass(frozen=True)
class DetectionInputs:
    """Everything that a detection works on.

    `source`, `membrane` and `search_mask` are as given to `detect`. `mask` is the given membrane, (z, y, x);
    None where the segmenter finds it. `region` is the region to search in; None is everything.
    `thresholds` are the uncalibrated scores of the lowest candidates that are reported, by kind.
    """

    source: TomogramSource
    membrane: StrPath | Array | None
    search_mask: StrPath | Array | None
    tomogram: Tomogram
    mask: npt.NDArray[Any] | None
    region: npt.NDArray[Any] | None
    save_probability: bool
    # Must not change until the detection ends.
    files: WatchedFiles
    segmenter: LoadedModel | None
    classifier: LoadedModel
    verifier: LoadedModel | None
    # By kind of particle that the models tell apart, the classifier's first.
    calibrations: dict[str, Calibration | None]
    thresholds: dict[str, float]
    device: torch.device
    config: DetectConfig
    _grids: dict[tuple[float | None, Normalisation], PreparedTomogram] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(
        cls, source: TomogramSource, config: DetectConfig, stages: Stages, **options: Unpack[InputOptions]
    ) -> DetectionInputs:
        """Open, load and check."""
        device = retry_on_oom("opening the device")(check_device)(options.get("device", "auto"))
        membrane, search_mask = options.get("membrane"), options.get("search_mask")
        save_probability = options.get("save_probability", False)
        if save_probability and membrane is not None:
            raise ConfigError(
                "save_probability: with a membrane mask nothing is segmented, so there is no probability; "
                "leave one of the two out."
            )
        files = WatchedFiles(_paths(source, membrane, search_mask))
        with stages("read"):
            read_tomogram = retry_on_oom("reading the tomogram")(open_tomogram)
            tomogram = read_tomogram(source, options.get("voxel_size_angstrom"))
            mask = None if membrane is None else _open_mask(membrane, tomogram, MEMBRANE_MASK)
            region = None if search_mask is None else _open_mask(search_mask, tomogram, SEARCH_MASK)
        segmenter = verifier = None
        with stages("load models"):
            scorer = classifier = _load(options.get("classifier"), "classifier", device)
            if mask is None:
                segmenter = _load(options.get("segmenter"), "segmenter", device)
            if config.verify and (options.get("verifier") is not None or classifier.is_bundled):
                scorer = verifier = _load(options.get("verifier"), "verifier", device)
        if config.max_fdr is not None and verifier is None:
            raise ConfigError(
                f"max_fdr is {config.max_fdr:g}, but there is no verifier to score decoys; give one, or "
                "score_threshold instead of max_fdr."
            )
        calibrations = calibrations_of(scorer)
        # Before the work begins: a precision that cannot be reached is refused at once.
        thresholds = {
            kind: picking_threshold(calibrations[kind], config)
            for kind in reported_kinds(scorer.metadata.kinds, config)
        }
        if config.max_fdr is not None and len(thresholds) > 1:
            raise ConfigError(
                f"max_fdr is {config.max_fdr:g} with the kinds {', '.join(thresholds)}; give one kind, whose "
                "threshold it then sets."
            )
        return cls(
            source=source,
            membrane=membrane,
            search_mask=search_mask,
            tomogram=tomogram,
            mask=mask,
            region=region,
            save_probability=save_probability,
            files=files,
            segmenter=segmenter,
            classifier=classifier,
            verifier=verifier,
            calibrations=calibrations,
            thresholds=thresholds,
            device=device,
            config=config,
        )

    def grid_of(self, model: LoadedModel) -> PreparedTomogram:
        """The tomogram on a model's grid, laid once for models that share one; see `normalise`."""
        key = model.metadata.voxel_size_angstrom, model.metadata.normalisation
        if key not in self._grids:
            grid = normalise(self.tomogram, model, self.files.check)
            held = int(self.config.memory_budget_bytes * HELD_BUDGET_FRACTION)
            self._grids[key] = grid.holding_slices(held)
        return self._grids[key]

    @property
    def models(self) -> tuple[LoadedModel | None, ...]:
        """Segmenter, classifier, verifier."""
        return self.segmenter, self.classifier, self.verifier

    @property
    def main_calibration(self) -> Calibration | None:
        """The calibration of the kind that the models were made for, the first."""
        return next(iter(self.calibrations.values()))

    @property
    def only_kind(self) -> str:
        """The kind that is reported, where it is one."""
        (kind,) = self.thresholds
        return kind

    @property
    def peak_threshold(self) -> float:
        """Score of the classifier above which peaks are kept: lower where a verifier judges them."""
        return min(self.thresholds.values()) if self.verifier is None else self.config.verify_floor


def calibrations_of(scorer: LoadedModel) -> dict[str, Calibration | None]:
    """Read the calibration of each kind of particle that a model tells apart."""
    first, *others = scorer.metadata.kinds
    stored = scorer.metadata.kind_calibrations
    return {first: read_calibration(scorer.metadata.calibration)} | {
        kind: read_calibration(stored.get(kind)) for kind in others
    }


def _load(model: Model, model_kind: str, device: torch.device) -> LoadedModel:
    load = partial(retry_on_oom(f"loading the {model_kind}")(load_model), model, model_kind=model_kind)
    if model is not None:
        return load(device=device)
    key = threading.get_ident(), model_kind, device
    if key not in _bundled:
        _bundled[key] = load(device=device)
    return _bundled[key]


def _paths(*given: object) -> list[str | os.PathLike[str]]:
    """The files behind what was given, those of memory-mapped arrays among them."""
    paths: list[str | os.PathLike[str]] = []
    for one in given:
        data = one.data if isinstance(one, Tomogram) else one
        if isinstance(one, str | os.PathLike):
            paths.append(one)
        elif isinstance(data, np.memmap) and isinstance(data.filename, str | os.PathLike):
            paths.append(data.filename)
    return paths


@retry_on_oom("reading a mask")
def _open_mask(given: StrPath | Array, tomogram: Tomogram, role: tuple[str, str]) -> npt.NDArray[Any]:
    if isinstance(given, str | os.PathLike):
        return read_mask(given, tomogram, remedy=role[1])
    return check_mask(as_numpy(given), tomogram, role[0], remedy=role[1])


@retry_on_oom("preparing the tomogram")
def normalise(
    tomogram: Tomogram, model: LoadedModel, before_reading: Callable[[], None] = lambda: None
) -> PreparedTomogram:
    """Lay a model's grid over a tomogram, with the grey values that the model was trained on.

    `before_reading` is called before slices of the tomogram are read, now and later.

    Raises InputError where a slice is smaller than a classifier's window.
    """
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=model.metadata.voxel_size_angstrom,
        normalisation=model.metadata.normalisation,
        before_reading=before_reading,
    )
    if model.metadata.model_kind == "classifier":
        size, (_, height, width) = window_of(model), grid.shape
        if min(height, width) < size:
            nm = grid.voxel_size_angstrom / 10
            raise InputError(
                f"{tomogram.name}: its slices measure {height * nm:.0f} x {width * nm:.0f} nm (y, x), less "
                f"than the classifier's window of {size * nm:.0f} nm; give a larger tomogram, or check its "
                f"voxel size ({tomogram.voxel_size_angstrom:g} A)."
            )
    return grid


def window_of(classifier: LoadedModel) -> int:
    """Side of a classifier's windows in pixels."""
    size = classifier.metadata.window_px
    assert size is not None, "load_model gives every classifier a window"
    return size
