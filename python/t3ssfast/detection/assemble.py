"""From peaks to candidates: poses from the membrane, the verifier's answer, calibrated scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from t3ssfast.candidates import Candidates
from t3ssfast.detection.contrast import trained_sign
from t3ssfast.detection.inputs import DetectionInputs, normalise
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.orient import orient
from t3ssfast.detection.pick import separate
from t3ssfast.detection.propose import add_membrane_sites, needs_membrane_sites
from t3ssfast.detection.verify import missing_membrane_penalty, verify
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.tomogram import Tomogram

__all__ = ["calibrate_scores", "inside", "orient_peaks", "verify_candidates"]

FloatArray = npt.NDArray[np.float32]


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
        normal_zyx=orient(membrane, centre, voxel_size_angstrom=grid.voxel_size_angstrom),
        voxel_size_angstrom=tomogram.voxel_size_angstrom,
        tomogram_shape=tomogram.shape,
        tomogram_name=tomogram.name,
    )


@retry_on_oom("verifying")
def verify_candidates(
    candidates: Candidates, inputs: DetectionInputs, grid: PreparedTomogram, membrane: npt.NDArray[np.uint8]
) -> Candidates:
    """Combine the scores of classifier and verifier, and move candidates to where the verifier sees them.

    Where other kinds than T3SS are reported, places along the membrane are candidates, too. Candidates far
    from the membrane (a mask on the classifier's grid) are penalised; those below the threshold of their
    kind, or of a kind that is not reported, are dropped. Where two lead to one centre, the better is kept.
    """
    verifier = inputs.verifier
    if verifier is None:
        return candidates
    own_grid = normalise(inputs.tomogram, verifier, inputs.files.check)
    # The sign of the contrast was found for the classifier; each model was trained with its own.
    sign = grid.contrast_sign * trained_sign(inputs.classifier) * trained_sign(verifier)
    own_grid = own_grid.with_contrast_sign(sign)
    if needs_membrane_sites(inputs):
        candidates = add_membrane_sites(candidates, inputs, grid, own_grid, membrane)
    centre = own_grid.from_tomogram(candidates.centre_zyx)
    given = (centre, candidates.normal_zyx, candidates.score)
    centre, axis, index, log_odds = verify(own_grid, *given, verifier)
    moved = _clipped(own_grid.to_tomogram(centre), inputs.tomogram)
    penalty = missing_membrane_penalty(membrane, grid.from_tomogram(moved), axis, grid.voxel_size_angstrom)
    score = expit(log_odds - penalty).astype(np.float32)
    kind = np.array(verifier.metadata.kinds)[index]
    moved_to: dict[str, Any] = {"centre_zyx": moved, "normal_zyx": axis.astype(np.float32)}
    verified = replace(candidates, **moved_to, score=score, kind=kind).sorted_by_score()
    distance = inputs.config.min_distance_nm / 2 * 10 / verified.voxel_size_angstrom
    thresholds = inputs.thresholds
    lowest = np.array([thresholds.get(kind, np.inf) for kind in verified.kind.tolist()])
    floor = min(thresholds.values())
    # A peak of another kind at the same place takes it, whether it is reported or not.
    verified, lowest = verified[verified.score >= floor], lowest[verified.score >= floor]
    kept = separate(verified.centre_zyx, distance)
    return verified[kept[verified.score[kept] >= lowest[kept]]]


def inside(candidates: Candidates, region: npt.NDArray[Any] | None) -> Candidates:
    """Candidates whose centre lies in a (z, y, x) mask of the tomogram; all of them without one."""
    if region is None:
        return candidates
    z, y, x = np.rint(candidates.centre_zyx).astype(np.int64).T
    return candidates[np.asarray(region[z, y, x]) != 0]


def calibrate_scores(candidates: Candidates, calibrations: Mapping[str, Calibration | None]) -> Candidates:
    """Turn scores into probabilities of the candidates' kinds, where those are calibrated; highest first."""
    score = candidates.score.copy()
    for kind, calibration in calibrations.items():
        if calibration is not None:
            chosen = candidates.kind == kind
            score[chosen] = calibration.apply(score[chosen])
    return replace(candidates, score=score).sorted_by_score()


def _clipped(centre_zyx: npt.NDArray[Any], tomogram: Tomogram) -> FloatArray:
    """Centres inside of the tomogram."""
    inside: FloatArray = np.clip(centre_zyx, 0, np.array(tomogram.shape) - 1).astype(np.float32)
    return inside
