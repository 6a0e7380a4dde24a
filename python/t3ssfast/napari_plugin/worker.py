"""The process behind the widgets Detect and Train: a task comes in as JSON, events go out, one a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import T3Error

__all__ = ["detect_task", "main", "train_task"]

# Called with the kind of an event and its content.
Emit = Callable[..., None]
FloatArray = npt.NDArray[np.float64]
# Of the cross-validation of a fine-tuning, as in `fine_tune_verifier`; fewer with fewer accepted candidates.
FOLDS = 4


def main() -> None:
    """Read a task from standard input, run it, and write its events to standard output."""
    # Whatever else is printed must not come between the events.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, **content: Any) -> None:
        events.write(json.dumps({"event": event, **content}) + "\n")
        events.flush()

    tasks: dict[str, Callable[..., dict[str, Any]]] = {"detect": detect_task, "train": train_task}
    options = json.loads(sys.stdin.readline())
    try:
        emit("done", **tasks[options.pop("task")](emit, **options))
    except (T3Error, OSError) as error:
        emit("failed", message=str(error))
        sys.exit(1)


def detect_task(
    emit: Emit,
    *,
    tomogram: str,
    out: str,
    models: dict[str, str] | None = None,
    device: str = "auto",
    threshold: float | None = None,
    voxel_size_angstrom: float | None = None,
) -> dict[str, Any]:
    """Find T3SS in a tomogram, and save the results into a folder; an interrupted run resumes.

    Parameters
    ----------
    emit
        Gets "progress" with the stage, and the slices done and in total.
    tomogram, out
        File of the tomogram, and folder for the results.
    models
        Files of "segmenter", "classifier" and "verifier"; the bundled ones by default.
    device, voxel_size_angstrom
        As for `detect`.
    threshold
        Lowest score of a candidate.

    Returns
    -------
    The folder and the number of candidates, and whether they are new.
    """
    from t3ssfast.detection import run_to_folder
    from t3ssfast.detection.config import DetectConfig

    def progress(stage: str, done: int, total: int) -> None:
        emit("progress", stage=stage, done=done, total=total)

    config = DetectConfig() if threshold is None else DetectConfig(score_threshold=threshold)
    detection, new = run_to_folder(
        out,
        tomogram,
        config=config,
        progress=progress,
        device=device,
        voxel_size_angstrom=voxel_size_angstrom,
        **(models or {}),  # type: ignore[arg-type]
    )
    return {"folder": out, "candidates": len(detection.candidates), "new": new}


def train_task(
    emit: Emit,
    *,
    folders: list[str],
    verdicts: str,
    out: str,
    models: dict[str, str] | None = None,
    device: str = "cpu",
    steps: int | None = None,
) -> dict[str, Any]:
    """Fine-tune the verifier on verdicts, and score the judged candidates before and after.

    The scores after are cross-validated: each is of a verifier that was fine-tuned without the candidate, and
    of a calibration without it. All scores are calibrated.

    Parameters
    ----------
    emit
        Gets "log" with a line of text at every stage.
    folders
        Results that the verdicts are about.
    verdicts
        Curation file.
    out
        Model file to write.
    models
        Files of "segmenter", "classifier", and of the "verifier" to start from.
    device, steps
        As for `fine_tune_verifier`.

    Returns
    -------
    The model file; the labels of the compared candidates with their scores before and after, and the latter
    uncalibrated; the number of folds; and that of all verdicts.
    """
    from t3ssfast.curation.results import find_results, open_tomogram_of
    from t3ssfast.curation.verdicts import apply_verdicts
    from t3ssfast.errors import InputError
    from t3ssfast.evaluation.calibration import cross_validate, read_calibration
    from t3ssfast.io.particles.curation import load_all_curations
    from t3ssfast.io.particles.particle_file import merge_candidates
    from t3ssfast.models import load_model
    from t3ssfast.napari_plugin.compare import candidates_of_verdicts
    from t3ssfast.training.fine_tune import calibrated_rows, fine_tune_verifier, verified_scores

    models = dict(models or {})
    start = models.pop("verifier", None)
    results = find_results(folders)
    labelled, others = apply_verdicts([one.candidates for one in results], load_all_curations(verdicts))
    judged = []
    for one, some, more in zip(results, labelled, others, strict=True):
        # The verifier was trained on the classifier's scores.
        score = some.details.get("classifier_score", some.score)
        known = merge_candidates([replace(some, score=score, details={}), replace(more, details={})])
        if (known.label != "").any():
            judged.append((one, known))
    if not judged:
        raise InputError(f"{verdicts}: there is no verdict on these results; judge candidates first.")
    tomograms = [open_tomogram_of(one) for one, _ in judged]
    masks = [one.read_membrane(tomogram) for (one, _), tomogram in zip(judged, tomograms, strict=True)]
    given: dict[str, Any] = {**models} if steps is None else {**models, "steps": steps}
    begun = load_model(start, model_kind="verifier", device=device)
    learned: list[Candidates] = []
    path = fine_tune_verifier(
        tomograms,
        [known for _, known in judged],
        out,
        start=start,
        membranes=None if any(mask is None for mask in masks) else masks,
        contrast=["dark" if one.contrast_sign == 1 else "light" for one, _ in judged],
        folds=FOLDS,
        resume=True,
        device=device,
        log=lambda line: emit("log", message=line),
        cross_validated=learned,
        **given,
    )
    emit("log", message="scoring the judged candidates by the verifier before")
    labels: list[str] = []
    scores: list[FloatArray] = []
    held_out: list[FloatArray] = []
    for (one, known), some, tomogram in zip(judged, learned, tomograms, strict=True):
        rows, index = candidates_of_verdicts(known, some)
        labels += known.label[rows].tolist()
        scores.append(verified_scores(tomogram, some, index, begun, one.contrast_sign))
        held_out.append(some.score[index].astype(np.float64))
    calibration = read_calibration(begun.metadata.calibration)
    before, uncalibrated = np.concatenate(scores), np.concatenate(held_out)
    accepted = np.array(labels) == "accepted"
    fitted = calibrated_rows(uncalibrated, accepted)
    # Each candidate is a group of its own: the curve that calibrates it was fitted without it.
    after = np.zeros(len(accepted))
    after[fitted] = cross_validate(uncalibrated[fitted], accepted[fitted], np.arange(len(fitted)), "platt")
    all_labels = np.concatenate([known.label for _, known in judged]).tolist()
    return {
        "model": str(path),
        "labels": labels,
        "before": np.round(before if calibration is None else calibration.apply(before), 6).tolist(),
        "after": np.round(after, 6).tolist(),
        "after_uncalibrated": np.round(uncalibrated, 6).tolist(),
        "folds": min(FOLDS, all_labels.count("accepted")),
        "verdicts": all_labels.count("accepted") + all_labels.count("rejected"),
    }
