"""Recipes above detection: the bundled models made, finished and measured; what few picks can do."""

from __future__ import annotations

from t3ssfast.recipe.bundled import SIZES, train_bundled
from t3ssfast.recipe.finish import calibrate_models, find_candidates, finish_classifier
from t3ssfast.recipe.measure import measure
from t3ssfast.recipe.tune import tune_verifier

__all__ = [
    "SIZES",
    "calibrate_models",
    "find_candidates",
    "finish_classifier",
    "measure",
    "train_bundled",
    "tune_verifier",
]
