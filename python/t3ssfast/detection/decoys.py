"""Decoys: every candidate is scored again with its axis reversed, needle into the cell.

A T3SS points out of the cell, so no T3SS stands at a reversed axis, but the noise, the membranes and whatever
else made the classifier stop there are the same. A candidate that is no T3SS therefore scores as high along
either direction, and the decoys show how high (`evaluation.false_discovery`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from t3ssfast.candidates import Candidates
from t3ssfast.detection.assemble import calibrate_scores, distinct, is_inside, score_poses
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.errors import ReadError
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.evaluation.false_discovery import FdrThreshold, fdr_threshold, q_values
from t3ssfast.io import atomic_path, display_path

__all__ = ["DECOY_FILE", "Competition", "default_log_odds", "score_decoys", "threshold_of"]

DECOY_FILE = "decoys.csv"
COLUMNS = (
    *("z", "y", "x", "normal_z", "normal_y", "normal_x"),
    *("score", "log_odds", "decoy_log_odds", "q_value"),
)

# Log-odds of candidates that are more probably of another kind: below every threshold.
OTHER_KIND_LOG_ODDS = -10.0
# Bounds of a score whose log-odds are taken.
MIN_PROBABILITY = 1e-6

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Competition:
    """All candidates of a tomogram, down to low scores, and their decoys.

    Parameters
    ----------
    candidates
        With the scores of an ordinary detection, highest first.
    log_odds, decoy_log_odds
        (n,) log-odds of candidates and decoys, before the calibration.
    """

    candidates: Candidates
    log_odds: FloatArray
    decoy_log_odds: FloatArray

    def above(self, threshold: float) -> Candidates:
        """Return the candidates at or above a threshold of the log-odds that beat their decoys."""
        return self.candidates[(self.log_odds >= threshold) & (self.log_odds > self.decoy_log_odds)]

    def write(self, path: Path) -> None:
        """Write a CSV file, atomically: voxels, unit vectors, scores, natural log-odds, q-values."""
        some = self.candidates
        scores = (
            some.score,
            self.log_odds,
            self.decoy_log_odds,
            q_values(self.log_odds, self.decoy_log_odds),
        )
        rows = np.column_stack([some.centre_zyx, some.normal_zyx, *scores])
        with atomic_path(path) as temporary:
            np.savetxt(temporary, rows, "%.7g", ",", header=",".join(COLUMNS), comments="", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, **grid: Any) -> Competition:
        """Read what `write` wrote; `grid` are voxel size, shape and name of the tomogram, as in `Candidates`.

        Raises ReadError if the file is missing or damaged.
        """
        try:
            with open(path, encoding="utf-8") as file:
                if tuple(file.readline().strip().split(",")) != COLUMNS:
                    raise ValueError("its columns are not those of t3ssfast")
                lines = [line for line in file if line.strip()]
            rows = np.array([line.split(",") for line in lines], np.float64).reshape(-1, len(COLUMNS))
            if not np.isfinite(rows).all():
                raise ValueError("a value is not finite")
            single = rows.astype(np.float32)
            candidates = Candidates(single[:, :3], single[:, 6], single[:, 3:6], **grid)
        except (OSError, ValueError) as error:
            raise ReadError(
                f"{display_path(path)}: the decoys cannot be read ({error}); detect again with --fdr."
            ) from error
        return cls(candidates, rows[:, 7], rows[:, 8])


def score_decoys(
    peaks: Candidates,
    scored: Candidates,
    log_odds: FloatArray,
    inputs: DetectionInputs,
    grid: PreparedTomogram,
    membrane: npt.NDArray[np.uint8],
) -> Competition:
    """Verify peaks against the normals of the membrane (a mask on the classifier's grid).

    `scored` are the peaks verified along these normals, and `log_odds` (n,) theirs. Both are refined alike.
    Candidates outside of the region that is searched, and of two at one place the lower one, are left out.
    """
    reversed_axes = replace(peaks, normal_zyx=-peaks.normal_zyx)
    reversed_, decoy_log_odds = score_poses(reversed_axes, inputs, grid, membrane)
    chosen = distinct(scored, inputs.config.min_distance_nm)
    if inputs.region is not None:
        chosen = chosen[is_inside(scored[chosen], inputs.region)]
    candidates = calibrate_scores(scored[chosen], inputs.calibrations)
    own = _of_kind(scored, log_odds, inputs)[chosen]
    return Competition(candidates, own, _of_kind(reversed_, decoy_log_odds, inputs)[chosen])


def _of_kind(scored: Candidates, log_odds: FloatArray, inputs: DetectionInputs) -> FloatArray:
    """Return the log-odds of the reported kind, (n,); low where another kind is more probable.

    Candidates and decoys are treated alike, so that either of a false pair is as likely to win.
    """
    return np.where(scored.kind == inputs.only_kind, log_odds, OTHER_KIND_LOG_ODDS)


def threshold_of(competition: Competition, inputs: DetectionInputs) -> FdrThreshold:
    """The threshold for `max_fdr` in one tomogram."""
    assert inputs.config.max_fdr is not None, "decoys are scored only for a false-discovery rate"
    return fdr_threshold(
        [competition.log_odds],
        [competition.decoy_log_odds],
        inputs.config.max_fdr,
        calibrated=default_log_odds(inputs.calibrations[inputs.only_kind]),
    )


def default_log_odds(calibration: Calibration | None) -> float:
    """The default threshold, a probability of 1/2, as log-odds before the calibration."""
    threshold = picking_threshold(calibration, DetectConfig())
    return float(logit(min(max(threshold, MIN_PROBABILITY), 1 - MIN_PROBABILITY)))
