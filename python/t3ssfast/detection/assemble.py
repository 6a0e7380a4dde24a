"""From peaks to candidates: poses from the membrane, the verifier's answer, calibrated scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import expit, logit

from t3ssfast.candidates import FLAGELLAR_MOTOR, T3SS, Candidates
from t3ssfast.detection.contrast import trained_sign
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.orient import orient
from t3ssfast.detection.pick import separate
from t3ssfast.detection.propose import add_membrane_sites, needs_membrane_sites
from t3ssfast.detection.verify import (
    MIN_PROBABILITY,
    missing_membrane_penalty,
    verifier_probability,
    verify,
)
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.tomogram import Tomogram

__all__ = [
    "calibrate_scores",
    "distinct",
    "inside",
    "is_inside",
    "orient_peaks",
    "overlapping_motors",
    "score_poses",
    "select_candidates",
    "with_membrane_sites",
]

FloatArray = npt.NDArray[np.float32]

# The smallest C-rings of motors are 34 nm across and the bases of T3SS 26 nm, so that their centres are at
# least this far apart. The verifier sees motors in parts of T3SS and of other motors, beside their axis.
MIN_MOTOR_DISTANCE_NM = 30.0
# Uncalibrated score from which a T3SS is certain enough to exclude motors: a calibrated probability of 0.91.
CERTAIN_T3SS = 0.9


@retry_on_oom("orienting")
def orient_peaks(
    grid: PreparedTomogram, membrane: npt.NDArray[np.uint8], peaks: tuple[FloatArray, FloatArray]
) -> Candidates:
    """Make candidates of peaks on the classifier's grid, with the normals of the membrane."""
    centre, score = peaks
    tomogram = grid.tomogram
    return Candidates(
        centre_zyx=_clipped(grid.to_tomogram(centre), tomogram),
        score=score,
        details={"classifier_score": score},
        normal_zyx=orient(membrane, centre, voxel_size_angstrom=grid.voxel_size_angstrom),
        voxel_size_angstrom=tomogram.voxel_size_angstrom,
        tomogram_shape=tomogram.shape,
        tomogram_name=tomogram.name,
    )


def select_candidates(scored: Candidates, inputs: DetectionInputs) -> Candidates:
    """Candidates at or above the threshold, by falling score; of two at one place the better one.

    Those below the threshold of their kind, or of a kind that is not reported, are dropped, and so are motors
    that would overlap with a better particle. Without a verifier, nothing has moved and all are kept.
    """
    if inputs.verifier is None:
        return scored
    thresholds = inputs.thresholds
    lowest = np.array([thresholds.get(kind, np.inf) for kind in scored.kind.tolist()])
    # A peak of another kind at the same place takes it, whether it is reported or not.
    plausible = np.flatnonzero(scored.score >= min(CERTAIN_T3SS, *thresholds.values()))
    kept = plausible[distinct(scored[plausible], inputs.config.min_distance_nm)]
    kept = kept[~overlapping_motors(scored[kept])]
    return scored[kept[scored.score[kept] >= lowest[kept]]]


def with_membrane_sites(
    candidates: Candidates, inputs: DetectionInputs, grid: PreparedTomogram, membrane: npt.NDArray[np.uint8]
) -> Candidates:
    """Append places along the membrane, where kinds are asked for that the classifier does not find."""
    if inputs.verifier is None or not needs_membrane_sites(inputs):
        return candidates
    return add_membrane_sites(candidates, inputs, grid, _grid_of_verifier(inputs, grid), membrane)


@retry_on_oom("verifying")
def score_poses(
    candidates: Candidates, inputs: DetectionInputs, grid: PreparedTomogram, membrane: npt.NDArray[np.uint8]
) -> tuple[Candidates, npt.NDArray[np.float64]]:
    """Verify candidates along their normals.

    Candidates far from the membrane (a mask on the classifier's grid) are penalised. Returns the candidates
    in their order, with new centres, axes, scores and kinds, and the log-odds (n,) of these kinds. Without a
    verifier they are returned as they are.
    """
    verifier = inputs.verifier
    if verifier is None:
        probability = np.clip(candidates.score.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        return candidates, logit(probability)
    own_grid = _grid_of_verifier(inputs, grid)
    centre = own_grid.from_tomogram(candidates.centre_zyx)
    given = (centre, candidates.normal_zyx, candidates.score)
    centre, axis, index, log_odds = verify(own_grid, *given, verifier, drop_hopeless=True)
    moved = _clipped(own_grid.to_tomogram(centre), inputs.tomogram)
    penalty = missing_membrane_penalty(membrane, grid.from_tomogram(moved), axis, grid.voxel_size_angstrom)
    kind = np.array(verifier.metadata.kinds)[index]
    own = verifier_probability(log_odds, candidates.score, kind)
    log_odds = log_odds - penalty
    scored = replace(
        candidates,
        centre_zyx=moved,
        normal_zyx=axis.astype(np.float32),
        score=expit(log_odds).astype(np.float32),
        kind=kind,
        details={**candidates.details, "verifier_score": own},
    )
    return scored, log_odds


def _grid_of_verifier(inputs: DetectionInputs, grid: PreparedTomogram) -> PreparedTomogram:
    """The tomogram on the verifier's grid."""
    verifier = inputs.verifier
    assert verifier is not None, "there is no grid without a verifier"
    own_grid = inputs.grid_of(verifier)
    # The sign of the contrast was found for the classifier; each model was trained with its own.
    sign = grid.contrast_sign * trained_sign(inputs.classifier) * trained_sign(verifier)
    return own_grid.with_contrast_sign(sign)


def distinct(candidates: Candidates, min_distance_nm: float) -> npt.NDArray[np.int64]:
    """Return indices by falling score, without candidates within half of the distance of a better one."""
    order = np.argsort(-candidates.score, kind="stable")
    distance = min_distance_nm / 2 * 10 / candidates.voxel_size_angstrom
    return np.asarray(order[separate(candidates.centre_zyx[order], distance)])


def overlapping_motors(candidates: Candidates) -> npt.NDArray[np.bool_]:
    """Return which candidates are motors too close to a certain T3SS or to a better motor.

    The candidates (n,) come by falling score, not calibrated; the result is (n,) bool.
    """
    position = candidates.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom / 10
    motor = np.flatnonzero(candidates.kind == FLAGELLAR_MOTOR)
    t3ss = np.flatnonzero((candidates.kind == T3SS) & (candidates.score >= CERTAIN_T3SS))
    distance, _ = cKDTree(position[t3ss]).query(position[motor], distance_upper_bound=MIN_MOTOR_DISTANCE_NM)
    free = motor[np.isinf(distance)]
    overlapping = np.zeros(len(candidates), bool)
    overlapping[motor] = True
    overlapping[free[separate(position[free], MIN_MOTOR_DISTANCE_NM)]] = False
    return overlapping


def inside(candidates: Candidates, region: npt.NDArray[Any] | None) -> Candidates:
    """Candidates whose centre lies in a (z, y, x) mask of the tomogram; all of them without one."""
    return candidates if region is None else candidates[is_inside(candidates, region)]


def is_inside(candidates: Candidates, region: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each centre lies in a (z, y, x) mask of the tomogram."""
    z, y, x = np.rint(candidates.centre_zyx).astype(np.int64).T
    return np.asarray(region[z, y, x] != 0, np.bool_)


def calibrate_scores(candidates: Candidates, calibrations: Mapping[str, Calibration | None]) -> Candidates:
    """Turn scores into probabilities of the candidates' kinds, where those are calibrated; in their order."""
    score = candidates.score.copy()
    for kind, calibration in calibrations.items():
        if calibration is not None:
            chosen = candidates.kind == kind
            score[chosen] = calibration.apply(score[chosen])
    return replace(candidates, score=score)


def _clipped(centre_zyx: npt.NDArray[Any], tomogram: Tomogram) -> FloatArray:
    """Centres inside of the tomogram."""
    inside: FloatArray = np.clip(centre_zyx, 0, np.array(tomogram.shape) - 1).astype(np.float32)
    return inside
