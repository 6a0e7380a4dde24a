"""What an evaluation found, and the figures that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.bootstrap import Interval, Outcomes, resampled
from t3ssfast.evaluation.curves import (
    average_precision,
    expected_calibration_error,
    precision_at_recall,
    precision_recall,
    reliability,
)
from t3ssfast.evaluation.tally import Pair, Tally

__all__ = ["Evaluation"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# The recall at which a detector's precision is compared.
COMMON_RECALL = 0.9


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found; every figure follows from these fields.

    Where nothing could be counted the figures are defined as follows. Precision is 1 when there are no
    candidates (nothing said, nothing wrong); recall is 1 when there is no truth (nothing to miss); F is 1
    when there are neither, and 0 when only one of the two is empty. Average precision is 1 when there are
    neither, and 0 when only one of the two is empty. Angles are NaN without pairs.

    Parameters
    ----------
    tolerance_angstrom
        Largest distance of a pair.
    tallies
        One for each tomogram.
    """

    tolerance_angstrom: float
    tallies: tuple[Tally, ...]

    @property
    def per_tomogram(self) -> tuple[Evaluation, ...]:
        """The evaluation of each tomogram by itself."""
        return tuple(Evaluation(self.tolerance_angstrom, (tally,)) for tally in self.tallies)

    @cached_property
    def scores(self) -> FloatArray:
        """(n,) of all candidates, tomogram by tomogram."""
        return np.concatenate([np.zeros(0), *(t.scores for t in self.tallies)])

    @cached_property
    def hits(self) -> FloatArray:
        """(n,) 1 for each candidate that counts as true, else 0."""
        return np.concatenate([np.zeros(0), *(t.hits for t in self.tallies)])

    @property
    def tomogram_index(self) -> IntArray:
        """(n,) which tomogram each candidate is of."""
        return np.repeat(np.arange(len(self.tallies)), [len(t.scores) for t in self.tallies])

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """One for each true positive."""
        return tuple(pair for tally in self.tallies for pair in tally.pairs)

    @property
    def n_candidates(self) -> int:
        """How many candidates there were."""
        return len(self.scores)

    @property
    def n_truth(self) -> int:
        """How many particles there were."""
        return sum(tally.n_truth for tally in self.tallies)

    @property
    def false_positive_kinds(self) -> dict[str, int]:
        """False positives by the look-alike they sit on; "other" for those on none.

        Empty where no distractors were given.
        """
        kinds: dict[str, int] = {}
        for tally in self.tallies:
            for kind, count in tally.false_positive_kinds.items():
                kinds[kind] = kinds.get(kind, 0) + count
        return kinds

    @cached_property
    def _curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return precision_recall(self.scores, self.hits, self.n_truth)

    @property
    def curve_score(self) -> FloatArray:
        """Distinct scores, highest first."""
        return self._curve[0]

    @property
    def curve_precision(self) -> FloatArray:
        """Precision of the candidates with each score or more, matched as well as possible."""
        return self._curve[1]

    @property
    def curve_recall(self) -> FloatArray:
        """Their recall."""
        return self._curve[2]

    @property
    def true_positives(self) -> int:
        """Candidates that found a particle (TP)."""
        return len(self.pairs)

    @property
    def false_positives(self) -> int:
        """Candidates that found none (FP)."""
        return self.n_candidates - self.true_positives

    @property
    def false_negatives(self) -> int:
        """Particles that no candidate found (FN)."""
        return self.n_truth - self.true_positives

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1 without candidates."""
        return self.true_positives / self.n_candidates if self.n_candidates else 1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 without truth."""
        return self.true_positives / self.n_truth if self.n_truth else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.f_beta(1.0)

    def f_beta(self, beta: float) -> float:
        """(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP): recall counts `beta` times as much as precision."""
        return _f_beta(self.true_positives, self.n_candidates, self.n_truth, beta)

    @property
    def average_precision(self) -> float:
        """Sum over the curve of precision times the gain in recall (no interpolation)."""
        return average_precision(self.scores, self.hits, self.n_truth)

    def precision_at_recall(self, recall: float = COMMON_RECALL) -> float:
        """Best precision on the curve at a recall of at least so much; NaN where it is never reached."""
        return precision_at_recall(self.curve_precision, self.curve_recall, recall)

    @property
    def best_f1(self) -> tuple[float, float]:
        """Highest F1 on the curve and the score threshold that gives it; (0, NaN) without a curve."""
        total = self.curve_precision + self.curve_recall
        if self.n_truth == 0 or len(total) == 0:
            return 0.0, math.nan
        f1 = 2 * self.curve_precision * self.curve_recall / np.maximum(total, 1e-12)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.curve_score[best])

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the scores, as probabilities of a hit; NaN without candidates."""
        return expected_calibration_error(self.scores, self.hits)

    @property
    def false_positives_without_truth(self) -> float:
        """Mean number of candidates in a tomogram without particles; NaN where there is no such one."""
        empty = [float(len(tally.scores)) for tally in self.tallies if tally.n_truth == 0]
        return sum(empty) / len(empty) if empty else math.nan

    @property
    def median_distance_angstrom(self) -> float:
        """Of the pairs; NaN without pairs."""
        return _median([pair.distance_angstrom for pair in self.pairs])

    @property
    def median_normal_error_degrees(self) -> float:
        """Of the pairs, 0 to 180; NaN without pairs."""
        return _median([pair.normal_error_degrees for pair in self.pairs])

    @property
    def polarity_right(self) -> float:
        """Fraction of the pairs whose normals point to the same side; NaN without pairs."""
        right = [pair.normal_error_degrees < 90 for pair in self.pairs]
        return sum(right) / len(right) if right else math.nan

    def intervals(
        self, *, level: float = 0.95, resamples: int = 1000, beta: float = 2.0, seed: int = 0
    ) -> dict[str, Interval]:
        """Bootstrap confidence intervals of the figures that follow from scores and hits.

        Parameters
        ----------
        level
            Of confidence.
        resamples
            Draws, with replacement: of tomograms or, where there is only one, of its particles.
        beta
            Of F-beta.
        seed
            Of the draws.
        """

        def figures(drawn: Outcomes) -> dict[str, float]:
            hits, n, m = int(drawn.hits.sum()), len(drawn.scores), drawn.n_truth
            return {
                "precision": hits / n if n else 1.0,
                "recall": hits / m if m else 1.0,
                "f1": _f_beta(hits, n, m, 1.0),
                "f_beta": _f_beta(hits, n, m, beta),
                "average_precision": average_precision(drawn.scores, drawn.hits, m),
                "calibration_error": expected_calibration_error(drawn.scores, drawn.hits),
            }

        return resampled(self.tallies, figures, level=level, resamples=resamples, seed=seed)

    def to_dict(
        self, *, beta: float = 2.0, intervals: bool = False, per_tomogram: bool = False
    ) -> dict[str, Any]:
        """Every figure, as plain numbers that JSON can hold (None for NaN).

        Parameters
        ----------
        beta
            Of "f_beta".
        intervals
            Add "intervals": 95% confidence intervals, [low, high] each.
        per_tomogram
            Add "tomograms": the same figures of each, by name.
        """
        best_f1, best_threshold = self.best_f1
        figures: dict[str, Any] = {
            "tolerance_angstrom": self.tolerance_angstrom,
            "tomograms_evaluated": len(self.tallies),
            "candidates": self.n_candidates,
            "truth": self.n_truth,
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "f2": self.f_beta(2.0),
            "beta": beta,
            "f_beta": self.f_beta(beta),
            "average_precision": self.average_precision,
            "precision_at_recall_0.9": self.precision_at_recall(),
            "best_f1": best_f1,
            "best_f1_threshold": best_threshold,
            "calibration_error": self.calibration_error,
            "false_positives_without_truth": self.false_positives_without_truth,
            "median_distance_angstrom": self.median_distance_angstrom,
            "median_normal_error_degrees": self.median_normal_error_degrees,
            "polarity_right": self.polarity_right,
        }
        figures = {name: _plain(value) for name, value in figures.items()}
        figures["false_positive_kinds"] = dict(self.false_positive_kinds)
        if intervals:
            found = self.intervals(beta=beta)
            figures["intervals"] = {k: [_plain(v.low), _plain(v.high)] for k, v in found.items()}
        figures["curve"] = {
            "score": self.curve_score.tolist(),
            "precision": self.curve_precision.tolist(),
            "recall": self.curve_recall.tolist(),
        }
        figures["reliability"] = {
            name: [_plain(x) for x in values.tolist()]
            for name, values in zip(
                ("candidates", "mean_score", "fraction_true"),
                reliability(self.scores, self.hits),
                strict=True,
            )
        }
        if per_tomogram:
            figures["tomograms"] = {
                tally.name: part.to_dict(beta=beta, intervals=intervals)
                for tally, part in zip(self.tallies, self.per_tomogram, strict=True)
            }
        return figures


def _f_beta(true_positives: int, n_candidates: int, n_truth: int, beta: float) -> float:
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta is {beta!r}; give a number above 0.")
    denominator = n_candidates + beta**2 * n_truth
    return (1 + beta**2) * true_positives / denominator if denominator else 1.0


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _plain(value: Any) -> Any:
    """None for NaN, which JSON cannot hold."""
    return None if isinstance(value, float) and math.isnan(value) else value
