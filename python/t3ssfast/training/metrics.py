"""Validation metrics of the trainings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["overlap_metrics", "score_metrics"]


def score_metrics(score: npt.NDArray[np.float32], true: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return average precision, and precision and recall at a score of 0.5, from (n,) scores and labels.

    Average precision is the mean precision at every true example, ranked by score.
    """
    ranked = true[np.argsort(-score, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    hits = float((score[true] > 0.5).sum())
    return {
        "average_precision": float(precision[ranked].mean()) if ranked.any() else 0.0,
        "precision": hits / max(1.0, float((score > 0.5).sum())),
        "recall": hits / max(1.0, float(true.sum())),
    }


def overlap_metrics(hits: int, found: int, true: int) -> dict[str, float]:
    """Return Dice, precision and recall from numbers of voxels: both found and true, found, true."""
    return {
        "dice": 2 * hits / max(1, found + true),
        "precision": hits / max(1, found),
        "recall": hits / max(1, true),
    }
