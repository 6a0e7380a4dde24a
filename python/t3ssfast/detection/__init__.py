"""Detection of T3SS in a tomogram: each step is a module, and `pipeline` runs them in order."""

from __future__ import annotations

from t3ssfast.detection.folder import run_to_folder
from t3ssfast.detection.pipeline import detect
from t3ssfast.detection.result import Detection

__all__ = ["Detection", "detect", "run_to_folder"]
