"""The recipe of the bundled models: simulate, train, calibrate, measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.candidates import PARTICLE_KINDS, T3SS
from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.report import draw_curves
from t3ssfast.io import atomic_path, file_sha256
from t3ssfast.models import code_version, load_model
from t3ssfast.models.bundled import read_bundled
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.tomogram import StrPath
from t3ssfast.training import train_classifier, train_segmenter, train_verifier
from t3ssfast.training.bundled.examples import Example, Use, simulate_examples
from t3ssfast.training.bundled.measure import measure, measure_kinds
from t3ssfast.training.bundled.tables import held_out_tables
from t3ssfast.training.calibrate import calibrate_models, find_candidates, update_metadata

__all__ = ["SIZES", "BundledSize", "train_bundled"]


@dataclass(frozen=True)
class BundledSize:
    """Amount of data and training of the recipe; a pair counts slabs through cells and whole cells."""

    tomograms: tuple[int, int]  # to train on
    calibration: tuple[int, int]  # to calibrate the scores on
    held_out: tuple[int, int]  # to measure on
    searched: tuple[int, int]  # of those to train on, searched for candidates to train the verifier on
    # Whole cells for the verifier alone. They add candidates in cells that the classifier was not trained on,
    # and T3SS that face the beam, which are few.
    fresh: int
    ordinary: int  # slabs with the default physics of `simulate`, also to calibrate on
    # Whole cells with many flagellar motors: searched for candidates to learn kinds from, simulated for their
    # particles alone, to calibrate on, and to measure on.
    motors: tuple[int, int, int, int]
    # Slabs and whole cells as other microscopes show them, for the verifier's last training.
    other_microscopes: tuple[int, int]
    shape: tuple[int, int, int]  # (z, y, x) voxels of a slab
    deep_shape: tuple[int, int, int]  # of a volume of whole cells
    motors_shape: tuple[int, int, int]  # of whole cells with many motors, or of other microscopes
    other_microscopes_shape: tuple[int, int, int]  # and of a slab of other microscopes
    # Options of the trainings.
    segmenter: dict[str, Any]
    classifier: dict[str, Any]
    verifier: dict[str, Any]
    kinds: dict[str, Any]  # of the verifier's second training, which tells kinds apart
    last_training: dict[str, Any]  # of its third, on other microscopes


SIZES = {
    # An estimated three hours on two cores.
    "full": BundledSize(
        tomograms=(144, 72),
        calibration=(24, 12),
        held_out=(24, 24),
        searched=(72, 72),
        fresh=96,
        ordinary=12,
        motors=(20, 50, 24, 24),
        other_microscopes=(64, 64),
        shape=(104, 384, 384),
        deep_shape=(208, 272, 272),
        motors_shape=(144, 208, 208),
        other_microscopes_shape=(64, 288, 288),
        segmenter={"steps": 5_000, "steps_per_epoch": 100, "batch": 8, "patch_px": 192},
        classifier={
            "steps": 1_800,
            "steps_per_epoch": 150,
            "rounds": 2,
            "negatives_per_tomogram": 700,
            "mined_per_tomogram": 200,
            "mined_slices": 10,
            # As the classifier in the package was trained.
            "negatives": "random",
        },
        verifier={"steps": 2_000, "steps_per_epoch": 100, "negatives_per_tomogram": 30},
        kinds={
            "steps": 600,
            "steps_per_epoch": 50,
            "far_share": 0.15,
            "positive_share": 0.6,
            "negatives_per_tomogram": 40,
        },
        last_training={
            "steps": 1_500,
            "steps_per_epoch": 100,
            "learning_rate": 5e-4,
            "negatives_per_tomogram": 30,
        },
    ),
    # A few minutes, to test that the recipe runs.
    "small": BundledSize(
        tomograms=(6, 2),
        calibration=(2, 1),
        held_out=(2, 1),
        searched=(4, 2),
        fresh=1,
        ordinary=1,
        motors=(2, 1, 1, 1),
        other_microscopes=(1, 2),
        shape=(48, 224, 224),
        deep_shape=(96, 160, 160),
        motors_shape=(96, 160, 160),
        other_microscopes_shape=(48, 224, 224),
        segmenter={"steps": 40, "steps_per_epoch": 20, "batch": 4, "patch_px": 128, "validation_patches": 8},
        classifier={"steps": 60, "steps_per_epoch": 30, "rounds": 1, "mined_slices": 4},
        verifier={"steps": 20, "steps_per_epoch": 10, "batch": 8},
        kinds={"steps": 10, "steps_per_epoch": 10, "batch": 8},
        last_training={"steps": 10, "steps_per_epoch": 10, "batch": 8},
    ),
}


def train_bundled(
    out: StrPath,
    *,
    seed: int = 0,
    size: str = "full",
    tomograms: int | None = None,
    calibrate_only: bool = False,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Reproduce the bundled models, and return the content of figures.json: metrics and parameters.

    figures.md has the measurements as tables.

    `tomograms` replaces the size's number of slabs to train on, with half as many whole cells. With
    `calibrate_only` the networks in the package are taken instead of training others, the verifier's scores
    are calibrated again, and all is measured. Simulated tomograms are always reused; finished models,
    interrupted trainings and searched calibration tomograms where `resume` is set.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no size {size!r} of the recipe; choose from {', '.join(SIZES)}.")
    if calibrate_only and tomograms is not None:
        raise ConfigError(
            f"tomograms is {tomograms} with calibrate_only, which trains on none; give one of the two."
        )
    recipe = SIZES[size]
    if tomograms is not None:
        recipe = replace(recipe, tomograms=(tomograms, tomograms // 2))
    options: dict[str, Any] = {"seed": seed, "device": device, "resume": resume, "progress": progress}
    run = _RecipeRun(Path(out), recipe, size, jobs, log, "bundled" if calibrate_only else "trained", options)
    if calibrate_only:
        run.take_bundled_networks()
    else:
        run.train_networks()
    run.calibrate_verifier()
    return run.measure()


class _RecipeRun:
    """One run of the recipe: its folder, and its steps."""

    def __init__(
        self,
        folder: Path,
        recipe: BundledSize,
        size: str,
        jobs: int,
        log: Callable[[str], None],
        networks: str,
        options: dict[str, Any],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe, self.size, self.jobs, self.log = folder, recipe, size, jobs, log
        self.seed, self.device, self.resume = options["seed"], options["device"], options["resume"]
        # Simulated tomograms have dark protein.
        self.training_options = {**options, "contrast": "dark"}
        self.paths = [folder / f"{kind}.safetensors" for kind in ("segmenter", "classifier", "verifier")]
        self.segmenter, self.classifier, self.verifier = self.paths
        parts = {"recipe": asdict(recipe), "size": size, "seed": self.seed, "version": code_version()}
        self.key = key_of(parts | ({} if networks == "trained" else {"networks": networks}))

    def simulated(self, *parts: tuple[Use, int]) -> list[Example]:
        """Simulate tomograms, a number for each use."""
        examples = []
        for use, count in parts:
            shape = self._shape_of(use)
            folder = self.folder / "simulated"
            examples += simulate_examples(folder, use, self.seed, count, shape, jobs=self.jobs, log=self.log)
        return examples

    def _shape_of(self, use: Use) -> tuple[int, int, int]:
        """(z, y, x) voxels of the tomograms of a use."""
        recipe = self.recipe
        if use.motors is None:
            return recipe.deep_shape if use.whole_cells else recipe.shape
        return recipe.motors_shape if use.whole_cells else recipe.other_microscopes_shape

    def take_bundled_networks(self) -> None:
        """Write the models in the package to the folder."""
        for path in self.paths:
            with atomic_path(path) as temporary:
                temporary.write_bytes(read_bundled(path.stem)[0])

    def train_networks(self) -> None:
        """Train the networks, and calibrate the classifier alone; finished ones are taken again."""
        recipe, log = self.recipe, self.log
        segmenter, classifier, verifier = self.paths
        finished = CheckpointStore(self.folder, self.key, name="bundled")
        examples = self.simulated(
            (Use.TRAINING, recipe.tomograms[0]), (Use.TRAINING_WHOLE, recipe.tomograms[1])
        )
        volumes, membranes = [e.tomogram for e in examples], [e.membrane for e in examples]
        if not (self.resume and _restore(segmenter, finished)):
            log(f"training the segmenter on {len(volumes)} tomograms")
            train_segmenter(volumes, membranes, segmenter, **self.training_options, **recipe.segmenter)
            _keep(segmenter, finished)
        if not (self.resume and _restore(classifier, finished)):
            log("training the classifier")
            picks = [e.picks for e in examples]
            options = {**self.training_options, **recipe.classifier}
            train_classifier(volumes, picks, membranes, classifier, **options)
            _keep(classifier, finished)
        update_metadata(classifier, "classifier", preselect=CoarseScan().to_dict())
        self._calibrate(self._calibration_examples(), None)
        search: dict[str, Any] = {"segmenter": segmenter, "device": self.device, "log": log}
        if not (self.resume and _restore(verifier, finished)):
            log("searching for candidates to train the verifier on")
            slabs, whole = recipe.searched
            searched = [e for e in examples if not e.whole_cells][:slabs]
            searched += [e for e in examples if e.whole_cells][:whole]
            searched += self.simulated((Use.VERIFYING_WHOLE, recipe.fresh))
            volumes = [e.tomogram for e in searched]
            found = find_candidates(classifier, volumes, **search)
            log("training the verifier")
            picks = [e.picks for e in searched]
            train_verifier(volumes, picks, found, verifier, **self.training_options, **recipe.verifier)
            _keep(verifier, finished)
        searched_motors, picked_motors, *_ = recipe.motors
        told_apart = self.folder / "kinds.safetensors"
        if not (self.resume and _restore(told_apart, finished)):
            log("searching for candidates to tell kinds apart on")
            examples = self.simulated((Use.VERIFYING_MOTORS, searched_motors + picked_motors))
            volumes = [e.tomogram for e in examples]
            found = find_candidates(classifier, volumes[:searched_motors], **search)
            # Particles alone cost a fraction of a search, and motors differ from tomogram to tomogram.
            found += [e.picks[:0] for e in examples[searched_motors:]]
            log("training the verifier to tell kinds apart")
            options = {"kinds": PARTICLE_KINDS, "kinds_only": True, "start": verifier, **recipe.kinds}
            picks = [e.picks for e in examples]
            train_verifier(volumes, picks, found, told_apart, **self.training_options, **options)
            _keep(told_apart, finished)
        last = self.folder / "other_microscopes.safetensors"
        if not (self.resume and _restore(last, finished)):
            slabs, whole = recipe.other_microscopes
            examples = self.simulated((Use.OTHER_MICROSCOPES, slabs), (Use.OTHER_MICROSCOPES_WHOLE, whole))
            volumes, picks = [e.tomogram for e in examples], [e.picks for e in examples]
            log(f"searching {len(volumes)} tomograms of other microscopes")
            found = find_candidates(classifier, volumes, **search)
            log("training the verifier on other microscopes")
            options = {"start": told_apart, **recipe.last_training}
            train_verifier(volumes, picks, found, last, **self.training_options, **options)
            _keep(last, finished)
        with atomic_path(verifier) as temporary:
            temporary.write_bytes(last.read_bytes())
        told_apart.unlink()
        last.unlink()

    def calibrate_verifier(self) -> None:
        """Calibrate the scores of all kinds."""
        # With ordinary tomograms, scores are calibrated for similar good ones as well as for varied ones.
        ordinary, motors = self.recipe.ordinary, self.recipe.motors[2]
        with_motors = self.simulated((Use.CALIBRATION_MOTORS, motors))
        examples = self._calibration_examples() + self.simulated((Use.ORDINARY, ordinary)) + with_motors
        first, *others = PARTICLE_KINDS
        self._calibrate(examples, self.verifier, (first,))
        # Other kinds take several times as long to search for, and are rare elsewhere.
        self._calibrate(with_motors, self.verifier, others)

    def _calibration_examples(self) -> list[Example]:
        slabs, whole = self.recipe.calibration
        return self.simulated((Use.CALIBRATION, slabs), (Use.CALIBRATION_WHOLE, whole))

    def _calibrate(
        self, examples: list[Example], verifier: Path | None, kinds: Sequence[str] = (T3SS,)
    ) -> None:
        self.log(f"calibrating the scores of {', '.join(kinds)} on {len(examples)} tomograms")
        # What was found before an interruption is not searched again.
        name = "classifier" if verifier is None else "-".join(kinds)
        store = CheckpointStore(self.folder, self.key, name=f"calibration-{name}")
        calibrate_models(
            self.classifier,
            [e.tomogram for e in examples],
            [e.picks for e in examples],
            verifier=verifier,
            kinds=kinds,
            segmenter=self.segmenter,
            device=self.device,
            log=self.log,
            store=store if self.resume else None,
        )

    def measure(self) -> dict[str, Any]:
        """Measure on held-out tomograms; write and return the metrics."""
        recipe, log = self.recipe, self.log
        held_out = self.simulated(
            (Use.HELD_OUT, recipe.held_out[0]), (Use.HELD_OUT_WHOLE, recipe.held_out[1])
        )
        log(f"measuring on {len(held_out)} held-out tomograms")
        models = [load_model(path, model_kind=path.stem) for path in self.paths]
        metrics, evaluation = measure(held_out, *models, device=self.device, log=log)
        with_motors = self.simulated((Use.HELD_OUT_MOTORS, recipe.motors[3]))
        log(f"measuring kinds on {len(with_motors)} tomograms with many motors")
        metrics["kinds"] = measure_kinds(with_motors, *models, device=self.device)
        draw_curves(evaluation, self.folder / "held_out.png")
        update_metadata(self.verifier, "verifier", metrics={**models[2].metadata.metrics, **metrics})
        metrics = {
            **metrics,
            **{f"{model.metadata.model_kind}_validation": model.metadata.metrics for model in models},
            "seed": self.seed,
            "size": self.size,
            "tomograms": recipe.tomograms,
            "shape": recipe.shape,
            "deep_shape": recipe.deep_shape,
        }
        checksums = {path.name: file_sha256(path) for path in self.paths}
        for name, document in (("figures.json", metrics), ("checksums.json", checksums)):
            with atomic_path(self.folder / name) as temporary:
                temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        with atomic_path(self.folder / "figures.md") as temporary:
            temporary.write_text(held_out_tables(metrics), encoding="utf-8")
        return metrics


def _keep(model: Path, finished: CheckpointStore) -> None:
    """Copy a trained model to the checkpoint, before calibration changes its metadata."""
    finished.save(model.stem, model=np.frombuffer(model.read_bytes(), np.uint8))


def _restore(model: Path, finished: CheckpointStore) -> bool:
    """Write a model file from the checkpoint; return whether it holds the model."""
    piece = finished.load(model.stem)
    if piece is not None:
        with atomic_path(model) as temporary:
            temporary.write_bytes(piece["model"].tobytes())
    return piece is not None
