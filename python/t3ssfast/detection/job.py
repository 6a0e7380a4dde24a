"""One detection from its opened input to its result, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from t3ssfast.candidates import Candidates
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import (
    Model,
    check_window,
    contrast_by_model,
    contrast_in_mask,
    open_mask,
    prepare,
    trained_sign,
)
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.orient import orient
from t3ssfast.detection.passes import (
    JUDGING,
    SEGMENTING,
    Mask,
    Portions,
    find_membrane,
    judge_windows,
    level_above,
    tile_side,
)
from t3ssfast.detection.pick import SparseScores, pick, separate
from t3ssfast.detection.provenance import (
    describe_input,
    describe_model,
    describe_plan,
    describe_segmenter,
    describe_software,
)
from t3ssfast.detection.result import Detection
from t3ssfast.detection.verify import missing_membrane_penalty, verify
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.io.volumes.opening import open_tomogram
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Array, StrPath, Tomogram, TomogramSource

__all__ = ["Identity", "Job", "using_threads"]

FloatArray = npt.NDArray[np.float32]

# What of a configuration decides about time and memory alone.
WITHOUT_EFFECT = ("threads", "slab_slices", "memory_budget_bytes")
# What a voxel of the membrane's mask holds: it is searched about, and reported, too.
FAINT, SURE = 1, 2


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Run with so many threads, in PyTorch and in the native kernels, which take its number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Identity:
    """What decides about the result of a detection.

    Attributes
    ----------
    tomogram, membrane
        As provenance describes them; no membrane where none was given.
    key
        SHA-256 of the contents of tomogram, mask and models, of the configuration as far as it has an effect,
        and of the version of this package.
    exact_key
        Also of what rounds differently: device, processor, libraries and the size of tiles.
    """

    tomogram: dict[str, Any]
    membrane: dict[str, Any] | None
    key: str
    exact_key: str


@dataclass(frozen=True)
class _Found:
    """Membrane that a segmenter found.

    Attributes
    ----------
    mask
        On the segmenter's grid: 0, `FAINT` or `SURE`.
    sure
        0 or 1 on the tomogram's voxels; None where these are the grid, whose mask says it.
    """

    mask: Mask
    sure: Mask | None

    @classmethod
    def of(cls, grid: PreparedTomogram, levels: Mask, config: DetectConfig) -> _Found:
        """What is found at a configuration's thresholds; in the memory of the levels, which are no more."""
        sure = level_above(config.membrane_threshold)
        faint = min(sure, level_above(config.search_threshold))
        # The face of a membrane lies between voxels, where levels and not a mask say it.
        between = None if grid.on_own_voxels else grid.mask_to_tomogram(levels, sure - 0.5)
        # Memory may run out up to here: what follows could not be begun again.
        reached = np.empty(levels.shape[1:], np.bool_)
        for level in levels:
            np.greater_equal(level, sure, out=reached)
            np.greater_equal(level, faint, out=level, casting="unsafe")
            np.add(level, reached, out=level)
        return cls(levels, between)

    def reported(self) -> Mask:
        """What is sure, 0 or 1, on the tomogram's voxels; in the memory of the mask, which is no more."""
        if self.sure is not None:
            return self.sure
        sure: Mask = np.equal(self.mask, SURE, out=self.mask, casting="unsafe")
        return sure


@dataclass(frozen=True)
class Job:
    """A detection that can begin: everything is opened, loaded and checked; make one with `open`."""

    tomogram: TomogramSource
    membrane: StrPath | Array | None
    source: Tomogram
    given: npt.NDArray[Any] | None
    judge: LoadedModel
    finder: LoadedModel | None
    verifier: LoadedModel | None
    grid: PreparedTomogram
    calibration: Calibration | None
    threshold: float
    where: torch.device
    config: DetectConfig

    @classmethod
    def open(
        cls,
        tomogram: TomogramSource,
        *,
        segmenter: Model,
        classifier: Model,
        verifier: Model,
        membrane: StrPath | Array | None,
        voxel_size_angstrom: float | None,
        device: str | torch.device,
        config: DetectConfig,
        stages: Stages,
    ) -> Job:
        """Parameters and errors as `detect`."""
        where = retry_on_oom("looking at the device", lambda: check_device(device))
        with stages("read"):
            source = retry_on_oom(
                "reading the tomogram", lambda: open_tomogram(tomogram, voxel_size_angstrom)
            )
            given = None
            if membrane is not None:
                given = retry_on_oom("reading the membrane mask", lambda: open_mask(membrane, source))
        with stages("load models"):
            judge = retry_on_oom(
                "loading the classifier",
                lambda: load_model(classifier, model_kind="classifier", device=where),
            )
            finder = None
            if given is None:
                finder = retry_on_oom(
                    "loading the segmenter",
                    lambda: load_model(segmenter, model_kind="segmenter", device=where),
                )
            second = None
            if config.verify and (verifier is not None or judge.is_bundled):
                second = retry_on_oom(
                    "loading the verifier", lambda: load_model(verifier, model_kind="verifier", device=where)
                )
        # Of what gives the scores.
        calibration = read_calibration((judge if second is None else second).metadata.calibration)
        # Before the work begins: a precision that cannot be promised is refused at once.
        threshold = picking_threshold(calibration, config)
        with stages("prepare"):
            grid = retry_on_oom("preparing the tomogram", lambda: prepare(source, judge))
            check_window(grid, judge)
        return cls(
            *(tomogram, membrane, source, given, judge, finder, second),
            *(grid, calibration, threshold, where, config),
        )

    def identify(self, stages: Stages) -> Identity:
        """What decides about the result; reads the whole tomogram."""
        with stages("checksum"):
            tomogram = retry_on_oom(
                "reading the tomogram", lambda: describe_input(self.tomogram, self.source)
            )
            mask = None
            if self.given is not None:
                as_mask = Tomogram(self.given, self.source.voxel_size_angstrom, self.source.name)
                mask = describe_input(self.membrane, as_mask)
        software = describe_software()
        native = software["native"]
        what = {
            "input": {name: value for name, value in tomogram.items() if name != "path"},
            "membrane": None if mask is None else mask["sha256"],
            "models": [None if model is None else model.sha256 for model in self._models],
            "config": {
                name: value for name, value in self.config.to_dict().items() if name not in WITHOUT_EFFECT
            },
            "version": software["t3ssfast"],
        }
        rounding = {
            "device": self.where.type,
            "processor": native["simd"],
            "libraries": [software["torch"], software["numpy"], native["openvino"]],
            "tile": tile_side(self.config),
        }
        if self.where.type == "cuda":
            rounding["device"] = torch.cuda.get_device_name(self.where)
        return Identity(tomogram, mask, key_of(what), key_of(what, rounding))

    def checkpoint(self, folder: StrPath | None, identity: Identity) -> CheckpointStore:
        """Where this detection's pieces are kept; None keeps none.

        Raises
        ------
        ConfigError
            A model has no file.
        """
        if folder is not None and "<module>" in [model.path for model in self._models if model is not None]:
            raise ConfigError(
                "A checkpoint was asked for and a model was given as a module, whose code cannot be "
                "recognised by a later run; give the models as files, or no checkpoint."
            )
        return CheckpointStore(folder, identity.exact_key)

    def run(self, identity: Identity, checkpoint: CheckpointStore, stages: Stages) -> Detection:
        """Segment, judge and pick; errors as `detect`."""
        config, portions = self.config, Portions(self.config, self.grid.shape[1] * self.grid.shape[2])
        found, on_judge_grid, contrast, segmented_by, resumed_slices = self._membrane(
            portions, checkpoint, stages
        )
        grid = self.grid.with_contrast_sign(contrast["sign"] * trained_sign(self.judge))
        scores, counts, resumed_scores = portions.again(
            JUDGING,
            lambda: judge_windows(
                *(grid, on_judge_grid, self.judge, self.where, self._picking_threshold),
                *(config, portions, stages, checkpoint),
            ),
        )
        with stages("pick"):
            centre, score = retry_on_oom("picking", lambda: self._pick(grid, scores))
        counts["peaks"] = len(centre)
        with stages("orient"):
            candidates = retry_on_oom("orienting", lambda: self._peaks(grid, on_judge_grid, centre, score))
        if self.verifier is not None:
            with stages("verify"):
                candidates = retry_on_oom(
                    "verifying", lambda: self._verified(grid, on_judge_grid, candidates)
                )
        candidates = self._calibrated(candidates)
        membrane = None if found is None else found.reported()
        share = counts["windows_judged"] / counts["voxels"]
        notes = [] if counts["membrane_voxels"] else ["No membrane was found, so no window was judged."]
        if portions.reduced:
            notes.append(
                f"Memory ran out {portions.reduced} times; the last slabs had {portions.slices} slices."
            )
        provenance = {
            "software": describe_software(),
            "device": str(self.where),
            "input": identity.tomogram,
            "membrane": identity.membrane,
            "models": {
                "segmenter": segmented_by,
                "classifier": describe_model(self.judge),
                "verifier": describe_model(self.verifier),
            },
            "config": config.to_dict(),
            "key": identity.key,
            "contrast": contrast,
            "grid": {"shape_zyx": list(grid.shape), "voxel_size_angstrom": grid.voxel_size_angstrom},
            "counts": {**counts, "candidates": len(candidates)},
            "notes": notes,
            "plan": describe_plan(grid, self.judge, share, self.where),
            "resumed": {"slices_segmented": resumed_slices, "slices_judged": resumed_scores},
            "seconds": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
        }
        return Detection(candidates, membrane, provenance, checkpoint if checkpoint.keeps else None)

    def _membrane(
        self, portions: Portions, checkpoint: CheckpointStore, stages: Stages
    ) -> tuple[_Found | None, Mask, dict[str, Any], dict[str, Any] | None, int]:
        """What was found (None where a mask was given), the mask on the classifier's grid, the contrast, what
        segmented, and how many slices were there before."""
        grid, config, finder = self.grid, self.config, self.finder
        if finder is None:
            given = self.given
            assert given is not None, "without a segmenter there is a mask"
            with stages("contrast"):
                contrast = retry_on_oom(
                    "looking for the contrast", lambda: contrast_in_mask(grid, given, self.judge, config)
                )
            return None, grid.mask_from_tomogram(given, 0, grid.shape[0]), contrast, None, 0
        finder_grid = retry_on_oom("preparing the tomogram", lambda: prepare(self.source, finder))
        kept = checkpoint.load("contrast")
        if kept is not None:
            contrast = json.loads(str(kept["json"]))
        else:
            contrast = retry_on_oom(
                "looking for the contrast", lambda: contrast_by_model(finder_grid, finder, config, stages)
            )
            checkpoint.save("contrast", json=json.dumps(contrast))
        finder_grid = finder_grid.with_contrast_sign(contrast["sign"] * trained_sign(finder))
        levels, resumed = portions.again(
            SEGMENTING,
            lambda: find_membrane(finder_grid, finder, config, portions, stages, checkpoint),
        )
        segmented_by = describe_segmenter(finder, config.segmenter_engine)
        # The judging needs that memory.
        finder.release_engines()
        found = retry_on_oom("finding the membrane", lambda: _Found.of(finder_grid, levels, config))
        on_judge_grid = found.mask
        if finder_grid.shape != grid.shape:
            membrane = finder_grid.mask_to_tomogram(np.minimum(found.mask, FAINT))
            on_judge_grid = grid.mask_from_tomogram(membrane, 0, grid.shape[0])
        return found, on_judge_grid, contrast, segmented_by, resumed

    @property
    def _models(self) -> tuple[LoadedModel | None, ...]:
        return self.finder, self.judge, self.verifier

    @property
    def _picking_threshold(self) -> float:
        """From which score of the classifier on peaks matter."""
        return self.threshold if self.verifier is None else self.config.verify_floor

    def _pick(self, grid: PreparedTomogram, scores: SparseScores) -> tuple[FloatArray, FloatArray]:
        return pick(
            scores,
            voxel_size_angstrom=grid.voxel_size_angstrom,
            smoothing_nm=self.config.score_smoothing_nm,
            threshold=self._picking_threshold,
            min_distance_nm=self.config.min_distance_nm,
            max_candidates=self.config.max_candidates,
        )

    def _peaks(self, grid: PreparedTomogram, mask: Mask, centre: FloatArray, score: FloatArray) -> Candidates:
        """The peaks with the normals of the membrane; the scores are the classifier's."""
        source = self.source
        return Candidates(
            centre_zyx=self._within(grid.to_tomogram(centre)),
            score=score,
            normal_zyx=orient(mask, centre, voxel_size_angstrom=grid.voxel_size_angstrom),
            voxel_size_angstrom=source.voxel_size_angstrom,
            tomogram_shape=source.shape,
            tomogram_name=source.name,
        )

    def _within(self, centre_zyx: npt.NDArray[Any]) -> FloatArray:
        within: FloatArray = np.clip(centre_zyx, 0, np.array(self.source.shape) - 1).astype(np.float32)
        return within

    def _verified(self, grid: PreparedTomogram, mask: Mask, peaks: Candidates) -> Candidates:
        """The candidates that the classifier and the verifier agree on as the verifier sees them, less what
        the membrane holds against them, highest score first.

        Where the verifier saw the same centre from two peaks, the better one stands.
        """
        verifier = self.verifier
        assert verifier is not None, "only asked where there is one"
        own = prepare(self.source, verifier)
        # The classifier has found the sign of the contrast; what each was trained on is its own affair.
        own = own.with_contrast_sign(grid.contrast_sign * trained_sign(self.judge) * trained_sign(verifier))
        centre = own.from_tomogram(peaks.centre_zyx)
        centre, axis, log_odds = verify(own, centre, peaks.normal_zyx, peaks.score, verifier)
        within = self._within(own.to_tomogram(centre))
        against = missing_membrane_penalty(mask, grid.from_tomogram(within), axis, grid.voxel_size_angstrom)
        score = expit(log_odds - against).astype(np.float32)
        agreed = replace(peaks, centre_zyx=within, normal_zyx=axis.astype(np.float32), score=score)
        agreed = agreed[agreed.score >= self.threshold].sorted_by_score()
        least = self.config.min_distance_nm / 2 * 10 / agreed.voxel_size_angstrom
        return agreed[separate(agreed.centre_zyx, least)]

    def _calibrated(self, found: Candidates) -> Candidates:
        return (
            found if self.calibration is None else replace(found, score=self.calibration.apply(found.score))
        )
