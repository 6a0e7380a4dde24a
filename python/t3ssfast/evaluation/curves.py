"""What follows from scores and hits alone: the precision-recall curve and the calibration of the scores."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = [
    "average_precision",
    "expected_calibration_error",
    "precision_at_recall",
    "precision_recall",
    "reliability",
]

FloatArray = npt.NDArray[np.float64]

# Bins of a reliability diagram, of equal width in the score.
BINS = 10


def precision_recall(
    scores: npt.ArrayLike, hits: npt.ArrayLike, n_truth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distinct scores, highest first, with precision and recall of the candidates at or above each.

    Parameters
    ----------
    scores, hits
        (n,) of candidates: their score, and 1 for each that found a particle of its own.
    n_truth
        Particles there are; recall is 1 where there are none.
    """
    score, hit = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last_of_score = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else order
    found = np.cumsum(hit[order])[last_of_score]
    recall = found / n_truth if n_truth else np.ones(len(found))
    return ordered[last_of_score], found / (last_of_score + 1), recall


def average_precision(scores: npt.ArrayLike, hits: npt.ArrayLike, n_truth: int) -> float:
    """Sum over the curve of precision times the gain in recall; without truth, 1 if nothing was found."""
    if n_truth == 0 or np.size(scores) == 0:
        return float(n_truth == np.size(scores))
    _, precision, recall = precision_recall(scores, hits, n_truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_at_recall(precision: FloatArray, recall: FloatArray, wanted: float) -> float:
    """Best precision on a curve where the recall is at least `wanted`; NaN where it never is."""
    reached = precision[recall >= wanted]
    return float(reached.max()) if len(reached) else math.nan


def reliability(scores: npt.ArrayLike, hits: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Candidates in ten bins of score: how many, their mean score, and the fraction that are hits.

    Empty bins have NaN for both.
    """
    score, hit = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    which = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(which, minlength=BINS).astype(np.float64)
    safe = np.where(count > 0, count, np.nan)
    return (
        count,
        np.bincount(which, weights=score, minlength=BINS) / safe,
        np.bincount(which, weights=hit, minlength=BINS) / safe,
    )


def expected_calibration_error(scores: npt.ArrayLike, hits: npt.ArrayLike) -> float:
    """Mean over candidates of how far the mean score of their bin is from its fraction of hits.

    Ten bins of equal width (Naeini, Cooper & Hauskrecht 2015); NaN without candidates.
    """
    count, said, true = reliability(scores, hits)
    if count.sum() == 0:
        return math.nan
    return float(np.nansum(count * np.abs(said - true)) / count.sum())
