"""Comparison of candidates with known particles, one to one, and calibration of their scores."""

from __future__ import annotations

from t3ssfast.evaluation.curves import expected_calibration_error
from t3ssfast.evaluation.result import Evaluation

__all__ = ["Evaluation", "expected_calibration_error"]
