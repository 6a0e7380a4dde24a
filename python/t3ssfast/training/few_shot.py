"""Benchmark of few-shot fine-tuning: detection in an unseen domain against the number of picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import StrPath, Tomogram
from t3ssfast.training.calibrate import find_candidates
from t3ssfast.training.fine_tune import MIN_PICKS, TOLERANCE_ANGSTROM, fine_tune_verifier
from t3ssfast.training.metrics import figure_file, write_table

__all__ = ["UNSEEN_DOMAIN", "few_shot_curve", "first_picks"]

# Outside of what the bundled segmenter and classifier were trained on: farther from focus, a narrower tilt
# range, more noise, worse alignment, thicker walls. The verifier has seen such tilts and noise, but not the
# rest.
UNSEEN_DOMAIN: dict[str, Any] = {
    "defocus_um": 12.0,
    "tilt_range_degrees": 38.0,
    "noise_scale": 2.8,
    "b_factor": 4000.0,
    "shift_error_nm": 2.5,
    "membrane_gap_nm": 32.0,
    "peptidoglycan_density": 0.5,
    "t3ss_per_cell": 14,
}
# (z, y, x) voxels of the simulated tomograms; they hold about 14 T3SS each.
SHAPE = (64, 256, 256)
# Seeds of the tomograms to measure on, beyond those of the tomograms to train on.
HELD_OUT_SEED = 1_000

# Tomogram, membrane and T3SS.
Labelled = tuple[Tomogram, npt.NDArray[np.uint8], Candidates]


def few_shot_curve(
    out: StrPath,
    *,
    counts: Sequence[int] = (5, 10, 20, 50),
    classifier: StrPath | None = None,
    verifier: StrPath | None = None,
    held_out: int = 4,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
) -> list[dict[str, float]]:
    """Fine-tune a verifier on more and more picks, and detect in `held_out` tomograms of the same domain.

    The membrane is given and the classifier is not trained, so only the verifier differs. Writes
    few_labels.csv, few_labels.png and the models to `out`. Returns a row for no picks and one per count.
    """
    if not counts or min(counts) < MIN_PICKS:
        raise ConfigError(f"The numbers of picks are {list(counts)}; give numbers of at least {MIN_PICKS}.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)

    def simulated(index: int) -> Labelled:
        made = simulate(9_000_000 * (seed + 1) + index, SHAPE, **UNSEEN_DOMAIN)
        log(f"simulated {made.tomogram.name} with {len(made.truth)} T3SS")
        return made.tomogram, made.membrane, made.truth

    others = [simulated(HELD_OUT_SEED + k) for k in range(held_out)]
    labelled: list[Labelled] = []
    while sum(len(truth) for _, _, truth in labelled) < max(counts):
        labelled.append(simulated(len(labelled)))
    loaded_classifier = load_model(classifier, model_kind="classifier")
    start = load_model(verifier, model_kind="verifier")
    common: dict[str, Any] = {"start": start, "seed": seed, "device": device, "contrast": "dark"}
    common |= options or {}
    rows = []
    for count in (0, *counts):
        tuned = start
        if count:
            tomograms, membranes, picks = zip(*first_picks(labelled, count), strict=True)
            path = folder / f"verifier_{count}.safetensors"
            data: dict[str, Any] = {"classifier": loaded_classifier, "membranes": membranes}
            fine_tune_verifier(tomograms, picks, path, **data, **common)
            tuned = load_model(path, model_kind="verifier")
        rows.append(_measure(count, others, loaded_classifier, tuned, device))
        log(f"{count} picks: F1 {rows[-1]['f1']:.3f}, average precision {rows[-1]['average_precision']:.3f}")
    write_table(rows, folder / "few_labels.csv")
    _draw(rows, folder / "few_labels.png")
    return rows


def first_picks(labelled: Sequence[Labelled], count: int) -> list[Labelled]:
    """Return tomograms with `count` T3SS in total; the last one is cropped, to leave no T3SS unpicked."""
    chosen: list[Labelled] = []
    for tomogram, membrane, truth in labelled:
        if count <= 0:
            break
        if len(truth) > count:
            x = np.sort(truth.centre_zyx[:, 2])
            end = int(np.ceil((x[count - 1] + x[count]) / 2))
            inside = truth.centre_zyx[:, 2] < end
            tomogram = replace(tomogram, data=tomogram.data[:, :, :end])
            membrane, truth = membrane[:, :, :end], truth[inside]
        if len(truth):
            chosen.append((tomogram, membrane, truth))
            count -= len(truth)
    return chosen


def _measure(
    picks: int, examples: Sequence[Labelled], classifier: LoadedModel, verifier: LoadedModel, device: str
) -> dict[str, float]:
    """Detect in tomograms, and return a row of `few_shot_curve`."""
    tomograms, membranes, truth = zip(*examples, strict=True)
    config = DetectConfig(contrast="dark")
    search: dict[str, Any] = {"membranes": membranes, "config": config, "device": device}
    found = find_candidates(classifier, tomograms, verifier=verifier, **search)
    calibration = read_calibration(verifier.metadata.calibration)
    if calibration is not None:
        found = [replace(c, score=calibration.apply(c.score)) for c in found]
    curve = evaluate(found, truth, TOLERANCE_ANGSTROM)
    confident = [c[c.score >= config.score_threshold] for c in found]
    at_threshold = evaluate(confident, truth, TOLERANCE_ANGSTROM)
    interval = at_threshold.intervals()["f1"]
    return {
        "picks": picks,
        **{name: getattr(at_threshold, name) for name in ("f1", "precision", "recall")},
        "best_f1": curve.best_f1[0],
        "average_precision": curve.average_precision,
        "calibration_error": at_threshold.calibration_error,
        "f1_low": interval.low,
        "f1_high": interval.high,
    }


def _draw(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draw F1 and average precision against the number of picks."""
    at = np.arange(len(rows))
    f1, *ends = np.array([[row[name] for row in rows] for name in ("f1", "f1_low", "f1_high")])
    with figure_file(path, (5, 4), dpi=150) as figure:
        axes = figure.add_subplot()
        axes.errorbar(at, f1, np.abs(np.array(ends) - f1), marker="o", capsize=3, label="F1, 95% interval")
        axes.plot(at, [row["best_f1"] for row in rows], "s--", label="best F1 on the curve")
        axes.plot(at, [row["average_precision"] for row in rows], "^:", label="average precision")
        axes.set_xticks(at, [f"{row['picks']:.0f}" for row in rows])
        axes.set(xlabel="picks that the verifier was fine-tuned on", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
