"""The result of an evaluation and the metrics derived from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.bootstrap import Interval, bootstrap_intervals
from t3ssfast.evaluation.curves import (
    average_precision,
    expected_calibration_error,
    precision_recall,
    reliability,
)
from t3ssfast.evaluation.matching import Pair, TomogramMatches

__all__ = ["Evaluation"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Properties that `Evaluation.to_dict` includes under their own names.
METRICS = (
    *("tolerance_angstrom", "true_positives", "false_positives", "false_negatives", "precision", "recall"),
    *("f1", "average_precision", "calibration_error", "false_positives_without_truth"),
    *("median_distance_angstrom", "median_normal_error_degrees", "polarity_right"),
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Matches of candidates and particles, and the metrics derived from them.

    Metrics without data are defined as follows. Precision is 1 without candidates, and recall is 1 without
    truth. F scores and average precision are 1 if there are neither candidates nor truth, and 0 if only one
    of them is missing. Metrics of the pairs are NaN without pairs.

    Parameters
    ----------
    tolerance_angstrom
        Largest distance between the centres of a pair.
    matches
        One per tomogram.
    """

    tolerance_angstrom: float
    matches: tuple[TomogramMatches, ...]

    @property
    def per_tomogram(self) -> tuple[Evaluation, ...]:
        """A separate evaluation of each tomogram."""
        return tuple(Evaluation(self.tolerance_angstrom, (one,)) for one in self.matches)

    @cached_property
    def scores(self) -> FloatArray:
        """(n,) scores of all candidates, tomogram by tomogram."""
        return np.concatenate([np.zeros(0), *(one.scores for one in self.matches)])

    @cached_property
    def hits(self) -> FloatArray:
        """(n,) 1 for each candidate that counts as a true positive on the curve, else 0."""
        return np.concatenate([np.zeros(0), *(one.hits for one in self.matches)])

    @property
    def tomogram_index(self) -> IntArray:
        """(n,) index of each candidate's tomogram."""
        return np.repeat(np.arange(len(self.matches)), [len(one.scores) for one in self.matches])

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """One pair per true positive."""
        return tuple(pair for one in self.matches for pair in one.pairs)

    @property
    def n_candidates(self) -> int:
        """Number of candidates."""
        return len(self.scores)

    @property
    def n_truth(self) -> int:
        """Number of particles."""
        return sum(one.n_truth for one in self.matches)

    @property
    def false_positive_kinds(self) -> dict[str, int]:
        """False positives per kind of look-alike, "other" for the rest; empty without distractors."""
        return dict(sum((Counter(one.false_positive_kinds) for one in self.matches), Counter()))

    @cached_property
    def _curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return precision_recall(self.scores, self.hits, self.n_truth)

    @property
    def curve_score(self) -> FloatArray:
        """Distinct scores in descending order."""
        return self._curve[0]

    @property
    def curve_precision(self) -> FloatArray:
        """Precision of the candidates at or above each score of the curve."""
        return self._curve[1]

    @property
    def curve_recall(self) -> FloatArray:
        """Recall of the candidates at or above each score of the curve."""
        return self._curve[2]

    @property
    def true_positives(self) -> int:
        """Candidates that match a particle (TP)."""
        return int(self.hits.sum())

    @property
    def false_positives(self) -> int:
        """Candidates that match no particle (FP)."""
        return self.n_candidates - self.true_positives

    @property
    def false_negatives(self) -> int:
        """Particles that no candidate matches (FN)."""
        return self.n_truth - self.true_positives

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self.true_positives / self.n_candidates if self.n_candidates else 1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self.true_positives / self.n_truth if self.n_truth else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.f_beta(1.0)

    def f_beta(self, beta: float) -> float:
        """Return (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP); recall weighs b times as much as precision."""
        if not (math.isfinite(beta) and beta > 0):
            raise ConfigError(f"beta is {beta!r}; give a number above 0.")
        denominator = self.n_candidates + beta**2 * self.n_truth
        return (1 + beta**2) * self.true_positives / denominator if denominator else 1.0

    @property
    def average_precision(self) -> float:
        """Sum over the curve of precision times the increase in recall, without interpolation."""
        return average_precision(self.scores, self.hits, self.n_truth)

    def precision_at_recall(self, recall: float = 0.9) -> float:
        """Return the highest precision on the curve at this recall or more; NaN if it is never reached."""
        reached = self.curve_precision[self.curve_recall >= recall]
        return float(reached.max()) if len(reached) else math.nan

    @property
    def best_f1(self) -> tuple[float, float]:
        """Highest F1 on the curve and its score threshold; (0, NaN) without a curve."""
        total = self.curve_precision + self.curve_recall
        if self.n_truth == 0 or len(total) == 0:
            return 0.0, math.nan
        f1 = 2 * self.curve_precision * self.curve_recall / np.maximum(total, 1e-12)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.curve_score[best])

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the scores as probabilities; NaN without candidates."""
        return expected_calibration_error(self.scores, self.hits)

    @property
    def false_positives_without_truth(self) -> float:
        """Mean number of candidates in tomograms without particles; NaN if there are no such tomograms."""
        return _mean([len(one.scores) for one in self.matches if one.n_truth == 0])

    @property
    def median_distance_angstrom(self) -> float:
        """Median distance of the pairs."""
        return _median([pair.distance_angstrom for pair in self.pairs])

    @property
    def median_normal_error_degrees(self) -> float:
        """Median angle between the normals of the pairs, 0 to 180."""
        return _median([pair.normal_error_degrees for pair in self.pairs])

    @property
    def polarity_right(self) -> float:
        """Fraction of the pairs whose normals differ by less than 90 degrees."""
        return _mean([pair.normal_error_degrees < 90 for pair in self.pairs])

    def intervals(
        self, *, level: float = 0.95, resamples: int = 1000, beta: float = 2.0, seed: int = 0
    ) -> dict[str, Interval]:
        """Compute bootstrap confidence intervals of the metrics that depend on scores and hits only.

        Parameters
        ----------
        level
            Confidence level.
        resamples
            Number of bootstrap samples, of tomograms or, for a single one, of its particles.
        """

        def metrics(drawn: Sequence[TomogramMatches]) -> dict[str, float]:
            one = Evaluation(self.tolerance_angstrom, tuple(drawn))
            return {
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
                "f_beta": one.f_beta(beta),
                "average_precision": one.average_precision,
                "calibration_error": one.calibration_error,
            }

        return bootstrap_intervals(self.matches, metrics, level=level, resamples=resamples, seed=seed)

    def to_dict(
        self, *, beta: float = 2.0, intervals: bool = False, per_tomogram: bool = False
    ) -> dict[str, Any]:
        """Convert all metrics to values that JSON can represent (None for NaN).

        Parameters
        ----------
        intervals
            Add "intervals": 95% confidence intervals as [low, high].
        per_tomogram
            Add "tomograms": the metrics of each tomogram by name.
        """
        metrics: dict[str, Any] = {name: getattr(self, name) for name in METRICS} | {
            "tomograms_evaluated": len(self.matches),
            "candidates": self.n_candidates,
            "truth": self.n_truth,
            "f2": self.f_beta(2.0),
            "beta": beta,
            "f_beta": self.f_beta(beta),
            "precision_at_recall_0.9": self.precision_at_recall(),
            "best_f1": self.best_f1[0],
            "best_f1_threshold": self.best_f1[1],
            "false_positive_kinds": self.false_positive_kinds,
        }
        if intervals:
            metrics["intervals"] = self.intervals(beta=beta)
        metrics["curve"] = dict(zip(("score", "precision", "recall"), self._curve, strict=True))
        names = ("candidates", "mean_score", "fraction_true")
        metrics["reliability"] = dict(zip(names, reliability(self.scores, self.hits), strict=True))
        if per_tomogram:
            metrics["tomograms"] = {
                one.matches[0].name: one.to_dict(beta=beta, intervals=intervals) for one in self.per_tomogram
            }
        plain: dict[str, Any] = _plain(metrics)
        return plain


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _plain(value: Any) -> Any:
    """Replace arrays and tuples by lists, and NaN by None, also inside dictionaries and lists."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
