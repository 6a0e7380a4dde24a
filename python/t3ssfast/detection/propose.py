"""Candidates of kinds that the classifier does not find: places along the membrane."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.membrane_sites import membrane_sites
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.orient import orient
from t3ssfast.detection.pick import separate
from t3ssfast.detection.verify import approach
from t3ssfast.models.metadata import TARGET_CLASS
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["add_membrane_sites", "needs_membrane_sites"]

# Least of the highest log-odds of a kind after each of the verifier's looks. From the edge of its reach, it
# needs about eight looks to arrive at a particle, of which `verify` makes the last three. Chosen on 19
# calibration tomograms.
MIN_LOG_ODDS = (-5.0, -2.0, -2.0, -2.0, -2.0)
# Grid of the membrane's edges for the normals of places, of which there are thousands: half the time of that
# for peaks, and normals that differ by 2 degrees (median), far less than the verifier corrects.
NORMAL_GRID_NM = 4.5
# Places that lead to positions this close are at the same particle.
SAME_NM = 4.0


def needs_membrane_sites(inputs: DetectionInputs) -> bool:
    """Return whether kinds are asked for that the classifier does not propose."""
    return any(kind != TARGET_CLASS for kind in inputs.thresholds)


@retry_on_oom("looking along the membrane")
def add_membrane_sites(
    candidates: Candidates,
    inputs: DetectionInputs,
    grid: PreparedTomogram,
    own_grid: PreparedTomogram,
    membrane: npt.NDArray[np.uint8],
) -> Candidates:
    """Append places on the envelope of cells at which the verifier sees a particle of another kind than T3SS.

    `membrane` is a mask on `grid`, the classifier's; `own_grid` is the verifier's. The score of these
    candidates is 0: the classifier has no peak there.
    """
    verifier = inputs.verifier
    assert verifier is not None, "a classifier alone knows no other kinds"
    site, direction = membrane_sites(membrane, grid.voxel_size_angstrom)
    normal = np.zeros_like(site)
    normal[:, 0] = direction
    beside = direction == 0
    voxel_size = grid.voxel_size_angstrom
    normal[beside] = orient(membrane, site[beside], voxel_size_angstrom=voxel_size, grid_nm=NORMAL_GRID_NM)
    start = own_grid.from_tomogram(grid.to_tomogram(site))
    centre, axis, log_odds = approach(own_grid, start, normal, verifier, MIN_LOG_ODDS)
    order = np.argsort(-log_odds, kind="stable")
    kept = order[separate(centre[order], SAME_NM * 10 / own_grid.voxel_size_angstrom)]
    shape: Any = np.array(inputs.tomogram.shape) - 1
    no_score = np.zeros(len(kept), np.float32)
    sites = Candidates(
        centre_zyx=np.clip(own_grid.to_tomogram(centre[kept]), 0, shape),
        score=no_score,
        details=dict.fromkeys(candidates.details, no_score),
        normal_zyx=axis[kept].astype(np.float32),
        voxel_size_angstrom=candidates.voxel_size_angstrom,
    )
    return candidates.joined(sites)
