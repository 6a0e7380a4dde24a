"""The recipe of the bundled models: simulated examples, training, calibration and measurement."""

from __future__ import annotations

from t3ssfast.training.bundled.measure import measure
from t3ssfast.training.bundled.recipe import SIZES, train_bundled

__all__ = ["SIZES", "measure", "train_bundled"]
