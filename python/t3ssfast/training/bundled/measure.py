"""Metrics of the models on simulated tomograms that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from t3ssfast.candidates import T3SS, Candidates
from t3ssfast.detection import Detection, detect
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import ALL_KINDS, DetectConfig
from t3ssfast.detection.preselect import particle_windows
from t3ssfast.detection.preselect.preselect import preselect
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation import Evaluation
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.evaluation.confusion import confusion_of_kinds
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.models import LoadedModel
from t3ssfast.training.bundled.examples import MODEL_VOXEL_SIZE, Example
from t3ssfast.training.bundled.membrane_metrics import membrane_metrics
from t3ssfast.training.calibrate import MIN_CLASSIFIER_SCORE, MIN_VERIFIER_SCORE

__all__ = ["DOMAINS", "measure", "measure_kinds"]

TOLERANCE_ANGSTROM = 120.0
# Expected precisions and recalls that are compared with the measured ones.
PROMISES = (("min_precision", 0.9), ("min_precision", 0.95), ("min_recall", 0.9), ("min_recall", 0.95))
# Bounds, in degrees, of the angle between axis and beam by which T3SS are counted.
VIEWS = (0, 18, 32, 45, 60, 90)
# Parts of the simulated domain that are measured separately.
DOMAINS: dict[str, Callable[[Example], bool]] = {
    "slabs through cells": lambda e: not e.whole_cells,
    "whole cells": lambda e: e.whole_cells,
    "low noise": lambda e: e.physics.noise_scale < 0.65,
    "medium noise": lambda e: 0.65 <= e.physics.noise_scale < 1.0,
    "high noise": lambda e: e.physics.noise_scale >= 1.0,
    "defocus below 5 um": lambda e: e.physics.defocus_um < 5,
    "defocus above 5 um": lambda e: e.physics.defocus_um >= 5,
    "tilts to less than 52 degrees": lambda e: e.physics.tilt_range_degrees < 52,
    "the models' voxel size": lambda e: e.tomogram.voxel_size_angstrom == MODEL_VOXEL_SIZE,
    "other voxel sizes": lambda e: e.tomogram.voxel_size_angstrom != MODEL_VOXEL_SIZE,
    "without T3SS": lambda e: e.physics.t3ss_per_cell == 0 or e.physics.cells == 0,
}

# Examples, and the candidates found in each.
Results = list[tuple[Example, Candidates]]


def measure(
    examples: Sequence[Example],
    segmenter: LoadedModel,
    classifier: LoadedModel,
    verifier: LoadedModel | None = None,
    *,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Evaluation]:
    """Detect in simulated tomograms that no model was trained or calibrated on, and compare with the truth.

    Returns metrics of membrane, detection, calibration and preselection, as plain values; and the evaluation
    at the default threshold.
    """
    calibration = read_calibration((verifier or classifier).metadata.calibration)
    lowest = MIN_CLASSIFIER_SCORE if verifier is None else MIN_VERIFIER_SCORE
    # All candidates that a calibration is learned from.
    threshold = lowest if calibration is None else float(calibration.apply([lowest])[0])
    config = DetectConfig(score_threshold=threshold, verify=verifier is not None)
    models: dict[str, Any] = {"segmenter": segmenter, "classifier": classifier, "verifier": verifier}
    detections = []
    for k, example in enumerate(examples):
        detections.append(detect(example.tomogram, config=config, device=device, progress=False, **models))
        log(f"measured {k + 1} of {len(examples)}: {example.tomogram.name}")
    results = [(e, d.candidates) for e, d in zip(examples, detections, strict=True)]
    default = DetectConfig().score_threshold
    evaluation, of_all = _evaluate(results, default), _evaluate(results, 0.0).to_dict()
    metrics: dict[str, Any] = {
        "membrane_on_held_out_simulation": membrane_metrics(
            (d.membrane, e.membrane, e.physics.tilt_range_degrees)
            for d, e in zip(detections, examples, strict=True)
            if d.membrane is not None
        ),
        "detection": _summary(evaluation, intervals=True),
        "detection_by_domain": {
            name: _summary(_evaluate(part, default))
            | {"average_precision_of_all_candidates": _evaluate(part, 0.0).average_precision}
            for name, belongs in DOMAINS.items()
            for part in [[result for result in results if belongs(result[0])]]
        },
        "detection_by_view": _by_view(examples, evaluation),
        "candidates_down_to_low_scores": {
            name: of_all[name] for name in ("calibration_error", "average_precision", "candidates")
        },
        "promises": {
            f"{name} {value}": _at_promise(results, calibration, {name: value}) for name, value in PROMISES
        },
        "preselection": _preselection_metrics(examples, detections, classifier),
    }
    return metrics, evaluation


def measure_kinds(
    examples: Sequence[Example],
    segmenter: LoadedModel,
    classifier: LoadedModel,
    verifier: LoadedModel,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """Detect all kinds of particles at the default threshold, and count how the models tell them apart.

    Returns the confusion of kinds and the false T3SS on motors in a tomogram, as plain values.
    """
    config, known = DetectConfig(kinds=(ALL_KINDS,)), verifier.metadata.kinds
    models: dict[str, Any] = {"segmenter": segmenter, "classifier": classifier, "verifier": verifier}
    found, truth = [], []
    for example in examples:
        detection = detect(example.tomogram, config=config, device=device, progress=False, **models)
        found.append(detection.candidates)
        truth.append(example.truth.joined(example.distractors).of_kinds(*known))
    confusion = confusion_of_kinds(found, truth, TOLERANCE_ANGSTROM)
    taken = sum(confusion.count(kind, T3SS) for kind in confusion.kinds if kind != T3SS)
    return {**confusion.to_dict(), "other_kinds_taken_for_t3ss_per_tomogram": taken / max(1, len(examples))}


def _evaluate(results: Results, threshold: float) -> Evaluation:
    """Evaluate the candidates at or above a threshold."""
    return evaluate(
        [candidates[candidates.score >= threshold] for _, candidates in results],
        [example.truth for example, _ in results],
        TOLERANCE_ANGSTROM,
        distractors=[example.distractors for example, _ in results],
    )


def _summary(evaluation: Evaluation, *, intervals: bool = False) -> dict[str, Any]:
    """Return the metrics without the curves."""
    metrics = evaluation.to_dict(intervals=intervals)
    return {name: value for name, value in metrics.items() if name not in ("curve", "reliability")}


def _by_view(examples: Sequence[Example], evaluation: Evaluation) -> dict[str, dict[str, int]]:
    """Count T3SS, and those found, by the angle of their axis to the beam: 0 degrees is a top view."""
    angles = [np.degrees(np.arccos(np.abs(e.truth.normal_zyx[:, 0]).clip(0, 1))) for e in examples]
    hits = [np.zeros(len(a), bool) for a in angles]
    for pair in evaluation.pairs:
        hits[pair.tomogram][pair.truth] = True
    angle, hit = np.concatenate(angles), np.concatenate(hits)
    views = {}
    for low, high in pairwise(VIEWS):
        inside = (angle >= low) & (angle < high + (high == VIEWS[-1]))
        counts = {"truth": int(inside.sum()), "found": int(hit[inside].sum())}
        views[f"{low}-{high} degrees to the beam"] = counts
    return views


def _at_promise(
    results: Results, calibration: Calibration | None, promise: dict[str, Any]
) -> dict[str, Any] | None:
    """Return metrics and intervals at the threshold for a promise; None if no score should keep it."""
    if calibration is None:
        return None
    try:
        threshold = picking_threshold(calibration, DetectConfig(**promise))
    except ConfigError:
        return None
    metrics = _evaluate(results, float(calibration.apply([threshold])[0])).to_dict(intervals=True)
    return {name: [metrics[name], *metrics["intervals"][name]] for name in ("precision", "recall", "f1")}


def _preselection_metrics(
    examples: Sequence[Example], detections: Sequence[Detection], classifier: LoadedModel
) -> dict[str, Any] | None:
    """Return the fractions of windows in the search region, and around particles, that preselection keeps."""
    if classifier.metadata.preselect is None:
        return None
    counts = np.zeros(4, np.int64)
    for example, detection in zip(examples, detections, strict=True):
        membrane = detection.membrane
        if membrane is None or not membrane.any():
            continue
        mask, _ = preselect(example.tomogram, membrane, classifier=classifier)
        search = SearchRegion.of(membrane, example.tomogram.voxel_size_angstrom, DetectConfig())
        region = search.slab(0, len(membrane))
        particle = particle_windows(example.tomogram, example.truth) & (region != 0)
        counts += [np.count_nonzero(m) for m in (region, mask, particle, particle & (mask != 0))]
    searched, kept, around, around_kept = counts.tolist()
    return {
        "windows_searched": searched,
        "windows_kept": kept / searched if searched else None,
        "windows_about_particles": around,
        "windows_about_particles_kept": around_kept / around if around else None,
    }
