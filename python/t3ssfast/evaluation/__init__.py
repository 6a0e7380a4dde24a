"""Comparison of candidates with known particles, and calibration of their scores.

Positions are compared in Angstrom and matched one to one: at most one candidate counts as the true positive
of a particle, and any further candidate on the same particle is a false positive.
"""

from __future__ import annotations

from t3ssfast.evaluation.bootstrap import Interval
from t3ssfast.evaluation.curves import expected_calibration_error
from t3ssfast.evaluation.matching import Pair, TomogramMatches
from t3ssfast.evaluation.result import Evaluation

__all__ = ["Evaluation", "Interval", "Pair", "TomogramMatches", "expected_calibration_error"]
