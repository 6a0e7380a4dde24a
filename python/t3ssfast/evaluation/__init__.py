"""Comparison of candidates with known particles, one to one, and calibration of their scores."""

from __future__ import annotations

from t3ssfast.evaluation.bootstrap import Interval
from t3ssfast.evaluation.curves import expected_calibration_error
from t3ssfast.evaluation.matching import Pair, TomogramMatches
from t3ssfast.evaluation.result import Evaluation

__all__ = ["Evaluation", "Interval", "Pair", "TomogramMatches", "expected_calibration_error"]
