"""The recipe of the bundled models: simulate, train, preselect, calibrate, measure, and pin.

`train_bundled` is the whole of it. The tomograms are drawn from `simulate.random_physics`; every seed has one
`Use`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.report import draw_curves
from t3ssfast.io import atomic_path, file_sha256
from t3ssfast.models import load_model
from t3ssfast.training import train_classifier, train_segmenter, train_verifier
from t3ssfast.training.bundled.examples import (
    CALIBRATION,
    CALIBRATION_WHOLE,
    HELD_OUT,
    HELD_OUT_WHOLE,
    ORDINARY,
    TRAINING,
    TRAINING_WHOLE,
    VERIFYING_WHOLE,
    Example,
    Use,
    simulate_examples,
)
from t3ssfast.training.bundled.measure import measure
from t3ssfast.training.calibrate import calibrate_models, find_candidates, finish_classifier, rewrite_metadata

__all__ = ["SIZES", "BundledSize", "train_bundled"]


@dataclass(frozen=True)
class BundledSize:
    """How much of everything the recipe takes.

    Parameters
    ----------
    tomograms, calibration, held_out
        Numbers of simulated tomograms to train on, to calibrate the scores on, and to measure on: slabs
        through cells, and whole cells.
    searched
        So many of those to train on are searched for what the verifier learns from.
    fresh
        Number of further volumes of whole cells for the verifier alone: what the classifier makes of cells
        that it has not learned from, and more T3SS that face the beam, which are few.
    ordinary
        Number of slabs with the physics that `simulate` has by itself, also to calibrate on.
    shape, deep_shape
        (z, y, x) voxels of a slab, and of a volume with whole cells.
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
    # Some two and a half hours on two cores.
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
    # A few minutes: shows that the recipe runs, not how well it can do.
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
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    size: str = "full",
    tomograms: int | None = None,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Make the bundled models from nothing.

    Parameters
    ----------
    out
        Folder for segmenter.pt, classifier.pt, verifier.pt, checksums.json, figures.json and the training
        curves; the simulated tomograms are kept in its folder "simulated" and used again.
    seed
        Of the simulation and the trainings.
    size
        A key of `SIZES`.
    tomograms
        Slabs to train on, instead of the size's number, with half as many volumes of whole cells.
    jobs
        Simulations at a time.
    device
        Where to train.
    resume
        Go on from what an interrupted run has left in the folder: its tomograms, checkpoints, and finished
        models.
    progress
        Show bars on a terminal.
    report
        Called with a line at every stage.

    Returns
    -------
    What figures.json holds: figures on held-out simulated tomograms, and the recipe.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no recipe of the size {size!r}; choose from {', '.join(SIZES)}.")
    recipe = SIZES[size]
    if tomograms is not None:
        recipe = replace(recipe, tomograms=(tomograms, tomograms // 2))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)

    def simulated(use: Use, count: int) -> list[Example]:
        shape = recipe.deep_shape if use.whole_cells else recipe.shape
        return simulate_examples(folder / "simulated", use, seed, count, shape, jobs=jobs, report=report)

    def both(slabs: Use, whole: Use, counts: tuple[int, int]) -> list[Example]:
        return [*simulated(slabs, counts[0]), *simulated(whole, counts[1])]

    examples = both(TRAINING, TRAINING_WHOLE, recipe.tomograms)
    volumes = [e.tomogram for e in examples]
    membranes = [e.membrane for e in examples]
    common: dict[str, Any] = {"seed": seed, "device": device, "resume": resume, "progress": progress}

    segmenter, classifier, verifier = (
        folder / f"{kind}.pt" for kind in ("segmenter", "classifier", "verifier")
    )
    if not (resume and segmenter.is_file()):
        report(f"training the segmenter on {len(volumes)} tomograms")
        train_segmenter(volumes, membranes, segmenter, **common, **recipe.segmenter)
    if not (resume and classifier.is_file()):
        report("training the classifier")
        train_classifier(
            volumes, [e.picks for e in examples], membranes, classifier, **common, **recipe.classifier
        )
    calibration = both(CALIBRATION, CALIBRATION_WHOLE, recipe.calibration)
    # Scores must be worth the same where tomograms are alike and good as where each has troubles of its own.
    ordinary = simulated(ORDINARY, recipe.ordinary)
    finish_classifier(classifier, segmenter, examples, calibration, device=device, report=report)
    if not (resume and verifier.is_file()):
        report("looking for what the classifier takes for T3SS")
        finder = load_model(segmenter, model_kind="segmenter", device=device)
        slabs, whole = recipe.searched
        shown = [e for e in examples if not e.whole_cells][:slabs]
        shown += [e for e in examples if e.whole_cells][:whole]
        shown += simulated(VERIFYING_WHOLE, recipe.fresh)
        within = [e.tomogram for e in shown]
        found = find_candidates(classifier, within, segmenter=finder, device=device, report=report)
        report("training the verifier")
        train_verifier(within, [e.picks for e in shown], found, verifier, **common, **recipe.verifier)
    known = [*calibration, *ordinary]
    report(f"calibrating the scores on {len(known)} tomograms")
    calibrate_models(
        classifier,
        [example.tomogram for example in known],
        [example.truth for example in known],
        verifier=verifier,
        segmenter=segmenter,
        device=device,
        report=report,
    )
    held_out = both(HELD_OUT, HELD_OUT_WHOLE, recipe.held_out)
    report(f"measuring on {len(held_out)} held-out tomograms")
    finder = load_model(segmenter, model_kind="segmenter")
    judge = load_model(classifier, model_kind="classifier")
    second = load_model(verifier, model_kind="verifier")
    measured, detections = measure(held_out, finder, judge, second, device=device, report=report)
    draw_curves(detections, folder / "held_out.png")
    rewrite_metadata(verifier, "verifier", metrics={**second.metadata.metrics, **measured})
    figures = {
        **measured,
        "segmenter_validation": finder.metadata.metrics,
        "classifier_validation": judge.metadata.metrics,
        "verifier_validation": second.metadata.metrics,
        "seed": seed,
        "size": size,
        "tomograms": recipe.tomograms,
        "shape": recipe.shape,
        "deep_shape": recipe.deep_shape,
    }
    for name, document in (
        ("figures.json", figures),
        ("checksums.json", {p.name: file_sha256(p) for p in (segmenter, classifier, verifier)}),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return figures
