"""Candidates against picked truth: who was found, who was missed, what was imagined, what a score is worth.

Candidates and truth are compared in Angstrom, each in its own voxel size, and matched one to one: at most
one candidate counts for a particle, and a second one on the same particle is a false positive.
"""

from __future__ import annotations

from t3ssfast.evaluation.bootstrap import Interval
from t3ssfast.evaluation.curves import expected_calibration_error
from t3ssfast.evaluation.evaluation import Evaluation
from t3ssfast.evaluation.tally import Pair, Tally

__all__ = ["Evaluation", "Interval", "Pair", "Tally", "expected_calibration_error"]
