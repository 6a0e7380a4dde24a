"""Precision-recall curve and reliability diagram, computed from scores and hits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["average_precision", "expected_calibration_error", "precision_recall", "reliability"]

FloatArray = npt.NDArray[np.float64]

# Bins of a reliability diagram, of equal width in the score.
BINS = 10


def precision_recall(
    scores: npt.ArrayLike, hits: npt.ArrayLike, n_truth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return distinct scores, descending, and precision and recall (1 without truth) at or above each."""
    score, hit = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last_of_score = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else order
    true_positives = np.cumsum(hit[order])[last_of_score]
    recall = true_positives / n_truth if n_truth else np.ones(len(true_positives))
    return ordered[last_of_score], true_positives / (last_of_score + 1), recall


def average_precision(scores: npt.ArrayLike, hits: npt.ArrayLike, n_truth: int) -> float:
    """Sum precision times the increase in recall over the curve; 1 without truth and candidates."""
    if n_truth == 0 or np.size(scores) == 0:
        return float(n_truth == np.size(scores))
    _, precision, recall = precision_recall(scores, hits, n_truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def reliability(scores: npt.ArrayLike, hits: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the number of candidates, and mean score and fraction of hits (or NaN), in ten bins of score."""
    score, hit = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    bins = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS).astype(np.float64)
    divisor = np.where(count > 0, count, np.nan)
    mean_score, fraction = (np.bincount(bins, weights=w, minlength=BINS) / divisor for w in (score, hit))
    return count, mean_score, fraction


def expected_calibration_error(scores: npt.ArrayLike, hits: npt.ArrayLike) -> float:
    """Average the difference between mean score and fraction of hits over ten bins, weighted by their counts.

    Source: Naeini, Cooper & Hauskrecht (2015). NaN without candidates.
    """
    count, mean_score, fraction = reliability(scores, hits)
    if count.sum() == 0:
        return math.nan
    return float(np.nansum(count * np.abs(mean_score - fraction)) / count.sum())
