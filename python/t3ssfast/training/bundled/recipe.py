"""The recipe of the bundled models: simulate, train, calibrate, measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.report import draw_curves
from t3ssfast.io import atomic_path, file_sha256
from t3ssfast.models import code_version, load_model
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.tomogram import StrPath
from t3ssfast.training import train_classifier, train_segmenter, train_verifier
from t3ssfast.training.bundled.examples import Example, Use, simulate_examples
from t3ssfast.training.bundled.measure import measure
from t3ssfast.training.calibrate import calibrate_models, find_candidates, update_metadata

__all__ = ["SIZES", "BundledSize", "train_bundled"]


@dataclass(frozen=True)
class BundledSize:
    """Amount of data and training of the recipe.

    Parameters
    ----------
    tomograms, calibration, held_out
        Numbers of simulated tomograms to train on, to calibrate the scores on, and to measure on: slabs
        through cells, and whole cells.
    searched
        Numbers of training tomograms that are searched for candidates to train the verifier on.
    fresh
        Number of further volumes of whole cells for the verifier alone. They add candidates in cells that the
        classifier was not trained on, and T3SS that face the beam, which are few.
    ordinary
        Number of slabs with the default physics of `simulate`, also to calibrate on.
    shape, deep_shape
        (z, y, x) voxels of a slab, and of a volume of whole cells.
    segmenter, classifier, verifier
        Options of the trainings.
    """

    tomograms: tuple[int, int]
    calibration: tuple[int, int]
    held_out: tuple[int, int]
    searched: tuple[int, int]
    fresh: int
    ordinary: int
    shape: tuple[int, int, int]
    deep_shape: tuple[int, int, int]
    segmenter: dict[str, Any]
    classifier: dict[str, Any]
    verifier: dict[str, Any]


SIZES = {
    # About two and a half hours on two cores.
    "full": BundledSize(
        tomograms=(144, 72),
        calibration=(24, 12),
        held_out=(24, 24),
        searched=(72, 72),
        fresh=96,
        ordinary=12,
        shape=(104, 384, 384),
        deep_shape=(208, 272, 272),
        segmenter={"steps": 5_000, "steps_per_epoch": 100, "batch": 8, "patch_px": 192},
        classifier={
            "steps": 1_800,
            "steps_per_epoch": 150,
            "rounds": 2,
            "negatives_per_tomogram": 700,
            "mined_per_tomogram": 200,
            "mined_slices": 10,
        },
        verifier={"steps": 2_000, "steps_per_epoch": 100, "negatives_per_tomogram": 30},
    ),
    # A few minutes, to test that the recipe runs.
    "small": BundledSize(
        tomograms=(6, 2),
        calibration=(2, 1),
        held_out=(2, 1),
        searched=(4, 2),
        fresh=1,
        ordinary=1,
        shape=(48, 224, 224),
        deep_shape=(96, 160, 160),
        segmenter={"steps": 40, "steps_per_epoch": 20, "batch": 4, "patch_px": 128, "validation_patches": 8},
        classifier={"steps": 60, "steps_per_epoch": 30, "rounds": 1, "mined_slices": 4},
        verifier={"steps": 20, "steps_per_epoch": 10, "batch": 8},
    ),
}


def train_bundled(
    out: StrPath,
    *,
    seed: int = 0,
    size: str = "full",
    tomograms: int | None = None,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Reproduce the bundled models.

    Parameters
    ----------
    out
        Folder for segmenter.pt, classifier.pt, verifier.pt, checksums.json, figures.json and the training
        curves. The simulated tomograms are kept in its subfolder "simulated", and the trained models in a
        checkpoint; both are reused by a run of the same seed, size and version.
    seed
        Random seed of the simulation and of the training.
    size
        A key of `SIZES`.
    tomograms
        Number of slabs to train on instead of the size's, with half as many volumes of whole cells.
    jobs
        Number of simulations at a time.
    device
        Device to train on.
    resume
        Reuse the models that an earlier run finished, and resume an interrupted training. The simulated
        tomograms are always reused.
    progress
        Show progress bars on a terminal.
    log
        Called with a line of text at every stage.

    Returns
    -------
    Content of figures.json: metrics on held-out simulated tomograms, and the parameters of the recipe.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no size {size!r} of the recipe; choose from {', '.join(SIZES)}.")
    recipe = SIZES[size]
    if tomograms is not None:
        recipe = replace(recipe, tomograms=(tomograms, tomograms // 2))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    segmenter, classifier, verifier = paths = [
        folder / f"{kind}.pt" for kind in ("segmenter", "classifier", "verifier")
    ]
    key = key_of({"recipe": asdict(recipe), "size": size, "seed": seed, "version": code_version()})
    finished = CheckpointStore(folder, key, name="bundled")

    def simulated(*parts: tuple[Use, int]) -> list[Example]:
        examples = []
        for use, count in parts:
            shape = recipe.deep_shape if use.whole_cells else recipe.shape
            examples += simulate_examples(folder / "simulated", use, seed, count, shape, jobs=jobs, log=log)
        return examples

    examples = simulated((Use.TRAINING, recipe.tomograms[0]), (Use.TRAINING_WHOLE, recipe.tomograms[1]))
    volumes = [e.tomogram for e in examples]
    membranes = [e.membrane for e in examples]
    common: dict[str, Any] = {"seed": seed, "device": device, "resume": resume, "progress": progress}
    if not (resume and _restore(segmenter, finished)):
        log(f"training the segmenter on {len(volumes)} tomograms")
        train_segmenter(volumes, membranes, segmenter, **common, **recipe.segmenter)
        _keep(segmenter, finished)
    if not (resume and _restore(classifier, finished)):
        log("training the classifier")
        picks = [e.picks for e in examples]
        train_classifier(volumes, picks, membranes, classifier, **common, **recipe.classifier)
        _keep(classifier, finished)
    calibration = simulated(
        (Use.CALIBRATION, recipe.calibration[0]), (Use.CALIBRATION_WHOLE, recipe.calibration[1])
    )
    update_metadata(classifier, "classifier", preselect=CoarseScan().to_dict())
    _calibrate(calibration, classifier, None, segmenter, device, log)
    if not (resume and _restore(verifier, finished)):
        log("searching for candidates to train the verifier on")
        slabs, whole = recipe.searched
        searched = [e for e in examples if not e.whole_cells][:slabs]
        searched += [e for e in examples if e.whole_cells][:whole]
        searched += simulated((Use.VERIFYING_WHOLE, recipe.fresh))
        volumes = [e.tomogram for e in searched]
        found = find_candidates(classifier, volumes, segmenter=segmenter, device=device, log=log)
        log("training the verifier")
        train_verifier(volumes, [e.picks for e in searched], found, verifier, **common, **recipe.verifier)
        _keep(verifier, finished)
    # With ordinary tomograms, scores are calibrated for similar good tomograms as well as for varied ones.
    calibration += simulated((Use.ORDINARY, recipe.ordinary))
    _calibrate(calibration, classifier, verifier, segmenter, device, log)
    held_out = simulated((Use.HELD_OUT, recipe.held_out[0]), (Use.HELD_OUT_WHOLE, recipe.held_out[1]))
    log(f"measuring on {len(held_out)} held-out tomograms")
    models = [load_model(path, model_kind=path.stem) for path in paths]
    metrics, evaluation = measure(held_out, *models, device=device, log=log)
    draw_curves(evaluation, folder / "held_out.png")
    update_metadata(verifier, "verifier", metrics={**models[2].metadata.metrics, **metrics})
    figures = {
        **metrics,
        **{f"{model.metadata.model_kind}_validation": model.metadata.metrics for model in models},
        "seed": seed,
        "size": size,
        "tomograms": recipe.tomograms,
        "shape": recipe.shape,
        "deep_shape": recipe.deep_shape,
    }
    for name, document in (
        ("figures.json", figures),
        ("checksums.json", {path.name: file_sha256(path) for path in paths}),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return figures


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


def _calibrate(
    examples: list[Example],
    classifier: Path,
    verifier: Path | None,
    segmenter: Path,
    device: str,
    log: Callable[[str], None],
) -> None:
    """Calibrate the scores of a classifier, or of a verifier, on simulated tomograms."""
    log(f"calibrating the scores on {len(examples)} tomograms")
    calibrate_models(
        classifier,
        [example.tomogram for example in examples],
        [example.truth for example in examples],
        verifier=verifier,
        segmenter=segmenter,
        device=device,
        log=log,
    )
