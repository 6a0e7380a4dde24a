"""The provenance of a detection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit, logit

from t3ssfast.detection.classify import Classification
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.provenance import Identity, describe_model, describe_plan, describe_software
from t3ssfast.detection.run import Run
from t3ssfast.detection.segment import Membrane
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.evaluation.false_discovery import FdrThreshold
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["describe_detection", "describe_domain", "notes_on_scores"]

# Probabilities at which expected precision and recall are recorded, evenly spaced in log-odds.
EXPECTED_POINTS = 41
LOWEST_PROBABILITY = 0.005
# What is unlike the calibration, by group of statistics.
REASONS = {
    "image": "its noise and power spectrum differ",
    "confidence": "the models are less sure of its membranes and candidates",
}


@retry_on_oom("describing the result")
def describe_detection(
    inputs: DetectionInputs,
    identity: Identity,
    grid: PreparedTomogram,
    membrane: Membrane,
    windows: Classification,
    run: Run,
) -> dict[str, Any]:
    """Describe a detection as plain values: software, inputs, models, options, counts and timings."""
    voxels = math.prod(grid.shape)
    membrane_voxels = int(np.count_nonzero(membrane.mask))
    notes = [] if membrane_voxels else ["No membrane was found, so no window was judged."]
    if (share := grid.no_data_share()) > 0:
        values = " or ".join(f"{value:g}" for value in grid.fill_values)
        notes.append(
            f"{100 * share:.1f}% of the tomogram is filled with the constant {values} and holds no data; it "
            "was left out of the normalisation and of the search."
        )
    slabs = run.slabs
    if slabs.reductions:
        notes.append(f"Memory ran out {slabs.reductions} times; the last slabs had {slabs.slices} slices.")
    search_mask = {} if identity.search_mask is None else {"search_mask": identity.search_mask}
    return {
        "software": describe_software(),
        "device": str(inputs.device),
        "input": identity.tomogram,
        "membrane": identity.membrane,
        **search_mask,
        "models": {
            "segmenter": membrane.segmenter,
            "classifier": describe_model(inputs.classifier),
            "verifier": describe_model(inputs.verifier),
        },
        "config": inputs.config.to_dict(),
        "key": identity.key,
        "contrast": membrane.contrast,
        "grid": {"shape_zyx": list(grid.shape), "voxel_size_angstrom": grid.voxel_size_angstrom},
        "counts": {
            "voxels": voxels,
            "membrane_voxels": membrane_voxels,
            "windows_searched": windows.searched,
            "windows_judged": windows.classified,
        },
        "notes": notes,
        "expected": _expected(inputs.main_calibration),
        "plan": describe_plan(grid, inputs.classifier, windows.classified / voxels, inputs.device),
        "resumed": {"slices_segmented": membrane.resumed_slices, "slices_judged": windows.resumed_slices},
        "seconds": {name: round(seconds, 4) for name, seconds in run.stages.seconds.items()},
    }


def _expected(calibration: Calibration | None) -> dict[str, Any] | None:
    """Return the expected precision and recall of candidates at or above calibrated scores.

    Between the thresholds of the calibration they are interpolated linearly in log-odds.
    """
    if calibration is None:
        return None
    probability = calibration.apply(calibration.threshold).astype(np.float64)
    log_odds = logit(np.clip(probability, 1e-6, 1 - 1e-6))
    known, first = np.unique(log_odds, return_index=True)
    ends = logit([LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY])
    at = np.linspace(ends[0], ends[1], EXPECTED_POINTS)
    curves = {
        name: np.interp(at, known, np.asarray(values)[first]).round(5).tolist()
        for name, values in (("precision", calibration.precision), ("recall", calibration.recall))
    }
    counts = {"tomograms": calibration.tomograms, "truth": calibration.truth}
    return {"score": expit(at).round(6).tolist(), **curves, **counts}


def describe_domain(statistics: dict[str, float], calibration: Calibration | None) -> dict[str, Any]:
    """The statistics of the tomogram, and its distance from those that the scores were calibrated on."""
    domain = None if calibration is None else calibration.domain
    found = {} if domain is None else domain.distances(statistics)
    distances = {name: found.get(name) for name in REASONS}
    return {
        "calibration_distance": {
            "distance": max((d for d in distances.values() if d is not None), default=None),
            **distances,
            "statistics": {name: round(value, 5) for name, value in statistics.items()},
        }
    }


def notes_on_scores(provenance: dict[str, Any], found: FdrThreshold | None) -> list[str]:
    """Sentences about promises that do not hold."""
    notes = []
    distances = provenance["calibration_distance"]
    far = [reason for name, reason in REASONS.items() if (distances[name] or 0) > 1]
    if far:
        notes.append(
            f"This tomogram is unlike those that the scores were calibrated on: {' and '.join(far)} "
            f"(distance {distances['distance']:.1f}, where 1 bounds them). Scores keep their order, but "
            "their scale and the promises of min_precision and min_recall do not hold; max_fdr takes the "
            "threshold from the tomogram itself."
        )
    if found is not None and found.note:
        notes.append(found.note)
    return notes
