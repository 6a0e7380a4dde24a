"""What the models can do, on simulated tomograms that none of them has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.detection import Detection, detect
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.preselect import particle_windows
from t3ssfast.detection.preselect.preselect import preselect
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation import Evaluation
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.models import LoadedModel
from t3ssfast.training.bundled.examples import MODEL_VOXEL_SIZE, Example
from t3ssfast.training.bundled.membrane_metrics import membrane_figures
from t3ssfast.training.calibrate import CALIBRATION_FLOOR, VERIFIED_FLOOR

__all__ = ["DOMAINS", "measure"]

TOLERANCE_ANGSTROM = 120.0
# What a detection is asked to promise.
PROMISES = ({"min_precision": 0.9}, {"min_precision": 0.95}, {"min_recall": 0.9}, {"min_recall": 0.95})
# Bounds of the angles to the beam by which T3SS are counted.
VIEWS = (0, 18, 32, 45, 60, 90)
# Ranges of the simulation in which figures are given by themselves.
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


def measure(
    examples: Sequence[Example],
    segmenter: LoadedModel,
    classifier: LoadedModel,
    verifier: LoadedModel | None = None,
    *,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Evaluation]:
    """Detect in simulated tomograms, and count.

    Parameters
    ----------
    examples
        Seen by no model, and not calibrated on.
    segmenter, classifier, verifier
        The models; None: candidates are taken as the classifier scores them.
    device
        Where to detect.
    report
        Called with a line after each tomogram.

    Returns
    -------
    figures
        Plain values: of the membrane, of the detections together and by domain, of the promised precisions
        and recalls, of the scores' calibration, and of the preselection.
    detections
        The evaluation at the default threshold.
    """
    calibration = read_calibration((verifier or classifier).metadata.calibration)
    lowest = CALIBRATION_FLOOR if verifier is None else VERIFIED_FLOOR
    found, detections = [], []
    for k, example in enumerate(examples):
        detection = detect(
            example.tomogram,
            segmenter=segmenter,
            classifier=classifier,
            verifier=verifier,
            config=DetectConfig(score_threshold=_floor(calibration, lowest), verify=verifier is not None),
            device=device,
            progress=False,
        )
        found.append(detection.candidates)
        detections.append(detection)
        report(f"measured {k + 1} of {len(examples)}: {example.tomogram.name}")
    default = DetectConfig().score_threshold
    whole = _evaluated(examples, found, default)
    everything = _evaluated(examples, found, 0.0)
    figures: dict[str, Any] = {
        "membrane_on_held_out_simulation": membrane_figures(
            (d.membrane, e.membrane, e.physics.tilt_range_degrees)
            for d, e in zip(detections, examples, strict=True)
            if d.membrane is not None
        ),
        "detection": _summary(whole, intervals=True),
        "detection_by_domain": {
            name: _summary(_evaluated(*chosen, default))
            | {"average_precision_of_all_candidates": _evaluated(*chosen, 0.0).average_precision}
            for name, belongs in DOMAINS.items()
            for chosen in [_chosen(examples, found, belongs)]
        },
        "detection_by_view": _by_view(examples, whole),
        "candidates_down_to_low_scores": {
            "calibration_error": everything.calibration_error,
            "average_precision": everything.average_precision,
            "candidates": everything.n_candidates,
        },
        "promises": {
            f"{name} {wanted}": _promised(examples, found, calibration, {name: wanted})
            for promise in PROMISES
            for name, wanted in promise.items()
        },
        "preselection": _preselection_figures(examples, detections, classifier),
    }
    return figures, whole


def _floor(calibration: Calibration | None, lowest: float) -> float:
    """The threshold that lets everything through that a calibration was learned from."""
    return lowest if calibration is None else float(calibration.apply([lowest])[0])


def _chosen(
    examples: Sequence[Example], found: Sequence[Candidates], belongs: Callable[[Example], bool]
) -> tuple[list[Example], list[Candidates]]:
    pairs = [
        (example, candidates) for example, candidates in zip(examples, found, strict=True) if belongs(example)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _evaluated(examples: Sequence[Example], found: Sequence[Candidates], threshold: float) -> Evaluation:
    return evaluate(
        [candidates[candidates.score >= threshold] for candidates in found],
        [example.truth for example in examples],
        TOLERANCE_ANGSTROM,
        distractors=[example.distractors for example in examples],
    )


def _summary(evaluation: Evaluation, *, intervals: bool = False) -> dict[str, Any]:
    """The figures without the curves."""
    figures = evaluation.to_dict(intervals=intervals)
    return {name: value for name, value in figures.items() if name not in ("curve", "reliability")}


def _by_view(examples: Sequence[Example], evaluation: Evaluation) -> dict[str, dict[str, int]]:
    """T3SS, and those found, by the angle of axis and beam: 0 degrees from the top, 90 from the side."""
    angle = [np.degrees(np.arccos(np.abs(e.truth.normal_zyx[:, 0]).clip(0, 1))) for e in examples]
    found = [np.zeros(len(a), bool) for a in angle]
    for pair in evaluation.pairs:
        found[pair.tomogram][pair.truth] = True
    pooled, hit = np.concatenate(angle), np.concatenate(found)
    return {
        f"{low}-{high} degrees to the beam": {"truth": int(here.sum()), "found": int(hit[here].sum())}
        for low, high in pairwise(VIEWS)
        for here in [(pooled >= low) & (pooled < high + (high == VIEWS[-1]))]
    }


def _promised(
    examples: Sequence[Example],
    found: Sequence[Candidates],
    calibration: Calibration | None,
    promise: dict[str, float],
) -> dict[str, Any] | None:
    """Precision and recall at the threshold of a promise, with intervals; None where there is none."""
    if calibration is None:
        return None
    try:
        raw = picking_threshold(calibration, DetectConfig(**promise))  # type: ignore[arg-type]
    except ConfigError:
        return None
    evaluation = _evaluated(examples, found, float(calibration.apply([raw])[0]))
    intervals = evaluation.intervals()
    return {
        name: [getattr(evaluation, name), intervals[name].low, intervals[name].high]
        for name in ("precision", "recall", "f1")
    }


def _preselection_figures(
    examples: Sequence[Example], detections: Sequence[Detection], classifier: LoadedModel
) -> dict[str, Any] | None:
    """Which share of the windows near the membrane, and of those about particles, the preselection keeps."""
    if classifier.metadata.preselect is None:
        return None
    near = kept = about = about_kept = 0
    for example, detection in zip(examples, detections, strict=True):
        membrane = detection.membrane
        if membrane is None or not membrane.any():
            continue
        mask, _ = preselect(example.tomogram, membrane, classifier=classifier)
        search = SearchRegion.of(membrane, example.tomogram.voxel_size_angstrom, DetectConfig())
        region = search.slab(0, len(membrane))
        particle = particle_windows(example.tomogram, example.truth) & (region != 0)
        near += int(np.count_nonzero(region))
        kept += int(np.count_nonzero(mask))
        about += int(np.count_nonzero(particle))
        about_kept += int(np.count_nonzero(particle & (mask != 0)))
    return {
        "windows_searched": near,
        "windows_kept": kept / near if near else None,
        "windows_about_particles": about,
        "windows_about_particles_kept": about_kept / about if about else None,
    }
