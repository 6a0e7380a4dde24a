"""Candidates against picked truth: who was found, who was missed, what was imagined, what a score is worth.

Candidates and truth are compared in Angstrom, each in its own voxel size, and matched one to one: at most
one candidate counts for a particle, and a second one on the same particle is a false positive.
"""

from __future__ import annotations

from t3ssfast.evaluate.bootstrap import Interval
from t3ssfast.evaluate.count import evaluate
from t3ssfast.evaluate.curves import expected_calibration_error
from t3ssfast.evaluate.evaluation import Evaluation, Pair, Tally

__all__ = ["Evaluation", "Interval", "Pair", "Tally", "evaluate", "expected_calibration_error"]
