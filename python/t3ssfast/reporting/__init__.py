"""Reports: one self-contained page over the results of detections, to look at candidates and judge them."""

from __future__ import annotations

from t3ssfast.reporting.build import report

__all__ = ["report"]
