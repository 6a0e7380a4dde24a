"""What few picks can do: the bundled models in a domain they have not seen, before and after fine-tuning."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation import Evaluation
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.io import atomic_path
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.calibrate import find_candidates
from t3ssfast.training.fine_tune import FEWEST_PICKS, fine_tune_verifier

__all__ = ["UNSEEN_DOMAIN", "few_shot_curve", "first_picks"]

# Outside of what the bundled models were trained on: farther from focus, a narrower tilt range, more noise,
# worse alignment, thicker walls.
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
TOLERANCE_ANGSTROM = 120.0

Labelled = tuple[Tomogram, npt.NDArray[np.uint8], Candidates]


def few_shot_curve(
    out: str | os.PathLike[str],
    *,
    counts: Sequence[int] = (5, 10, 20, 50),
    classifier: str | os.PathLike[str] | None = None,
    verifier: str | os.PathLike[str] | None = None,
    shape: tuple[int, int, int] = (64, 256, 256),
    held_out: int = 4,
    seed: int = 0,
    physics: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> list[dict[str, float]]:
    """Fine-tune a verifier on more and more picks, and detect in other tomograms of their domain.

    The membrane is given and the classifier stays as it is, so that the verifier alone makes the difference.

    Parameters
    ----------
    out
        Folder for few_labels.csv, few_labels.png and the fine-tuned models.
    counts
        Numbers of picks.
    classifier, verifier
        To find candidates with, and to start from; None is the bundled one.
    shape
        (z, y, x) of the simulated tomograms.
    held_out
        Number of tomograms to measure on.
    seed
        Of simulation and training.
    physics
        The domain, instead of `UNSEEN_DOMAIN`.
    options
        Of the training, beside or instead of `FINE_TUNING`.
    device
        Where to train and detect.
    report
        Called with a line at every stage.

    Returns
    -------
    A row for no picks and one for each count: picks, F1, precision and recall at the default threshold, best
    F1 on the curve, average precision, expected calibration error of the candidates above the threshold, and
    the ends of F1's 95% interval. Scores are calibrated: those of the bundled models as everywhere, those of
    a tuned verifier by its picks.

    Raises
    ------
    ConfigError
        If a count is less than three.
    """
    if not counts or min(counts) < FEWEST_PICKS:
        raise ConfigError(
            f"The numbers of picks are {list(counts)}; give numbers of at least {FEWEST_PICKS}."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    domain = UNSEEN_DOMAIN if physics is None else physics

    def simulated(index: int) -> Labelled:
        made = simulate(9_000_000 * (seed + 1) + index, shape, **domain)
        report(f"simulated {made.tomogram.name} with {len(made.truth)} T3SS")
        return made.tomogram, made.membrane, made.truth

    others = [simulated(1_000 + k) for k in range(held_out)]
    labelled: list[Labelled] = []
    while sum(len(truth) for _, _, truth in labelled) < max(counts):
        labelled.append(simulated(len(labelled)))
        if len(labelled) > 2 * max(counts):
            raise InputError(f"The domain has too few T3SS for {max(counts)} picks; give one with more.")
    judge, begun = (
        load_model(classifier, model_kind="classifier"),
        load_model(verifier, model_kind="verifier"),
    )
    rows = [_row(0, _measured(others, judge, begun, device))]
    report(f"no picks: F1 {rows[0]['f1']:.3f}, average precision {rows[0]['average_precision']:.3f}")
    for count in counts:
        picked = first_picks(labelled, count)
        volumes = [tomogram for tomogram, _, _ in picked]
        tuned = fine_tune_verifier(
            volumes,
            [truth for _, _, truth in picked],
            folder / f"verifier_{count}.pt",
            start=begun,
            classifier=judge,
            membranes=[mask for _, mask, _ in picked],
            seed=seed,
            device=device,
            **(options or {}),
        )
        rows.append(_row(count, _measured(others, judge, load_model(tuned, model_kind="verifier"), device)))
        report(f"{count} picks: F1 {rows[-1]['f1']:.3f}, AP {rows[-1]['average_precision']:.3f}")
    with (
        atomic_path(folder / "few_labels.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
    _draw(rows, folder / "few_labels.png")
    return rows


def first_picks(labelled: Sequence[Labelled], count: int) -> list[Labelled]:
    """So many T3SS as somebody would pick them: tomogram after tomogram, the last as far as the count goes.

    What has not been looked at is cut off, because a T3SS that nobody picked would be taught as none.
    """
    chosen: list[Labelled] = []
    wanted = count
    for tomogram, membrane, truth in labelled:
        if wanted <= 0:
            break
        if len(truth) > wanted:
            order = np.argsort(truth.centre_zyx[:, 2])
            x = truth.centre_zyx[order, 2]
            end = int(np.ceil((x[wanted - 1] + x[wanted]) / 2))
            inside = truth.centre_zyx[:, 2] < end
            tomogram = replace(tomogram, data=tomogram.data[:, :, :end])
            membrane, truth = membrane[:, :, :end], truth[inside]
        if len(truth):
            chosen.append((tomogram, membrane, truth))
            wanted -= len(truth)
    return chosen


def _measured(
    examples: Sequence[Labelled], classifier: LoadedModel, verifier: LoadedModel, device: str
) -> Evaluation:
    found = find_candidates(
        classifier,
        [tomogram for tomogram, _, _ in examples],
        verifier=verifier,
        membranes=[membrane for _, membrane, _ in examples],
        config=DetectConfig(contrast="dark"),
        device=device,
    )
    calibration = read_calibration(verifier.metadata.calibration)
    if calibration is not None:
        found = [replace(c, score=calibration.apply(c.score)) for c in found]
    return evaluate(found, [truth for _, _, truth in examples], TOLERANCE_ANGSTROM)


def _row(picks: int, everything: Evaluation) -> dict[str, float]:
    """Figures at the default threshold, and of all candidates."""
    threshold = DetectConfig().score_threshold
    at = replace(
        everything,
        matches=tuple(
            replace(t, scores=t.scores[t.scores >= threshold], hits=t.hits[t.scores >= threshold])
            for t in everything.matches
        ),
    )
    hits, candidates = float(at.hits.sum()), max(1, at.n_candidates)
    interval = at.intervals()["f1"]
    return {
        "picks": picks,
        "f1": 2 * hits / max(1, at.n_candidates + at.n_truth),
        "precision": hits / candidates,
        "recall": hits / max(1, at.n_truth),
        "best_f1": everything.best_f1[0],
        "average_precision": everything.average_precision,
        "calibration_error": at.calibration_error,
        "f1_low": interval.low,
        "f1_high": interval.high,
    }


def _draw(rows: Sequence[dict[str, float]], path: Path) -> None:
    """F1 and average precision against the number of picks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    place = np.arange(len(rows))
    f1 = np.array([row["f1"] for row in rows])
    ends = np.array([[row["f1_low"] for row in rows], [row["f1_high"] for row in rows]])
    axes.errorbar(place, f1, np.abs(ends - f1), marker="o", capsize=3, label="F1, 95% interval")
    axes.plot(place, [row["best_f1"] for row in rows], "s--", label="best F1 on the curve")
    axes.plot(place, [row["average_precision"] for row in rows], "^:", label="average precision")
    axes.set_xticks(place, [f"{row['picks']:.0f}" for row in rows])
    axes.set(xlabel="picks that the verifier was fine-tuned on", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
