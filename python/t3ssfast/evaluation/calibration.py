"""From the score of a candidate to the probability that it is a T3SS, and to the threshold of a promise.

A classifier ranks candidates well, but the height of a smoothed peak is no probability. A monotone curve
from the one to the other, fitted to candidates of tomograms that the classifier has not seen, makes it one;
from the same candidates follows at which score a wanted precision or recall is reached. The curve is kept in
the model file as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.evaluation import expected_calibration_error
from t3ssfast.evaluation.evaluate import evaluate

__all__ = ["METHODS", "Calibration", "calibrate", "cross_calibrated", "fit_calibration", "read_calibration"]

METHODS = ("platt", "isotonic")
FloatArray = npt.NDArray[np.float64]

# Scores this close to 0 and 1 are told apart no further; it bounds their logarithms.
EDGE = 1e-4
# A logistic curve is kept as so many points, evenly spaced in the logarithm of the odds; linear between
# them, it is off by less than 0.002.
KNOTS = 65
# Points of the curves of precision and recall.
CURVE_POINTS = 101
# Weight of the pull towards a slope of 1: what separates few candidates perfectly must not become certainty.
SLOPE_RIDGE = 0.5
FOLDS = 8
# By this share of the log-loss steps must do better than the smooth curve to be taken: candidates on one step
# are no longer told apart.
CLEARLY = 0.02


@dataclass(frozen=True)
class Calibration:
    """A monotone curve from scores to probabilities, and what to expect above each score.

    Parameters
    ----------
    method
        "platt" (a logistic curve in the log-odds of the score) or "isotonic" (steps, joined).
    score, probability
        Points of the curve: scores ascending, probabilities never falling; linear in between.
    threshold, precision, recall
        Scores ascending; expected precision and recall of the candidates at or above each.
    tomograms, candidates, truth
        How much it was learned from.
    figures
        Expected calibration errors before and after, after by cross-validation over tomograms.
    """

    method: str
    score: tuple[float, ...]
    probability: tuple[float, ...]
    threshold: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    tomograms: int = 0
    candidates: int = 0
    truth: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        same = len(self.score) == len(self.probability) >= 2
        same &= len(self.threshold) == len(self.precision) == len(self.recall) >= 1
        rising = all(np.all(np.diff(x) >= 0) for x in (self.probability, self.precision))
        ordered = all(np.all(np.diff(x) > 0) for x in (self.score, self.threshold))
        if not (same and rising and ordered and np.all(np.diff(self.recall) <= 0)):
            raise InputError(
                "The points of a calibration do not make curves; give as many probabilities as ascending "
                "scores, none lower than the one before, and a precision and a recall for each threshold."
            )

    def apply(self, score: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Probabilities of scores, both (n,); beyond the ends of the curve those of its ends."""
        probability: npt.NDArray[np.float32] = np.interp(
            np.asarray(score, np.float64), self.score, self.probability
        ).astype(np.float32)
        return probability

    def lowest_score(self, probability: float) -> float:
        """The lowest score that is worth a probability; just above 1 where none is."""
        if probability <= self.probability[0]:
            return 0.0
        if probability > self.probability[-1]:
            return float(np.nextafter(1.0, 2.0))
        above = int(np.searchsorted(self.probability, probability))
        (s0, s1), (p0, p1) = (x[above - 1 : above + 1] for x in (self.score, self.probability))
        return s0 + (s1 - s0) * (probability - p0) / (p1 - p0)

    def score_for_precision(self, wanted: float) -> float:
        """The lowest score above which the expected precision is at least `wanted`.

        Raises
        ------
        ConfigError
            If it is not reached at any score.
        """
        reached = np.flatnonzero(np.array(self.precision) >= wanted)
        if not len(reached):
            raise ConfigError(
                f"min_precision is {wanted:g}, and this classifier reaches {self.precision[-1]:.3f} at most; "
                f"give less, or leave it out."
            )
        return float(self.threshold[reached[0]])

    def score_for_recall(self, wanted: float) -> float:
        """The highest score above which the expected recall is at least `wanted`.

        Raises
        ------
        ConfigError
            If it is not reached at any score.
        """
        reached = np.flatnonzero(np.array(self.recall) >= wanted)
        if not len(reached):
            raise ConfigError(
                f"min_recall is {wanted:g}, and this classifier reaches {self.recall[0]:.3f} at most; give "
                f"less, or leave it out."
            )
        return float(self.threshold[reached[-1]])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_dict`.

        Raises
        ------
        ModelError
            If an entry is missing, unknown or of the wrong kind.
        """
        try:
            values = dict(entries)
            for name in ("score", "probability", "threshold", "precision", "recall"):
                values[name] = tuple(float(x) for x in values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ModelError(f"A calibration cannot be read ({error}); calibrate the model again.") from error


def read_calibration(entries: Mapping[str, Any] | None) -> Calibration | None:
    """The calibration in a model's metadata, None where it carries none."""
    return None if entries is None else Calibration.from_dict(entries)


def calibrate(
    candidates: Sequence[Candidates],
    truth: Sequence[Candidates],
    tolerance_angstrom: float = 120.0,
    *,
    method: str = "auto",
) -> Calibration:
    """Learn from candidates and truth of several tomograms what their scores are worth.

    Parameters
    ----------
    candidates
        One entry for each tomogram, with uncalibrated scores, down to low ones.
    truth
        Likewise.
    tolerance_angstrom
        Within which a candidate has found a particle.
    method
        "platt", "isotonic", or "auto": the latter where it tells clearly more about tomograms left out.

    Raises
    ------
    InputError
        If there are fewer than two tomograms, or no true or no false candidates to tell apart.
    ConfigError
        If there is no such method.
    """
    found = evaluate(candidates, truth, tolerance_angstrom)
    return fit_calibration(found.scores, found.hits, found.tomogram_index, found.n_truth, method=method)


def fit_calibration(
    score: npt.ArrayLike,
    true: npt.ArrayLike,
    tomogram: npt.ArrayLike,
    n_truth: int,
    *,
    method: str = "auto",
) -> Calibration:
    """Fit the curve to scores and what they turned out to be.

    Parameters
    ----------
    score
        (n,) in [0, 1], of candidates.
    true
        (n,) whether each found a particle of its own.
    tomogram
        (n,) which tomogram each is of; the unit of the cross-validation.
    n_truth
        Particles in the tomograms, found or missed.
    method
        As in `calibrate`.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError, ConfigError
        As `calibrate`.
    """
    if method not in ("auto", *METHODS):
        raise ConfigError(f'The method of calibration is {method!r}; give "platt", "isotonic" or "auto".')
    s = np.asarray(score, np.float64)
    y = np.asarray(true, np.float64)
    group = np.asarray(tomogram)
    tomograms = len(np.unique(group))
    if tomograms < 2 or not 0 < y.sum() < len(y):
        raise InputError(
            f"There are {int(y.sum())} true and {int(len(y) - y.sum())} false candidates in {tomograms} "
            f"tomograms to calibrate with; give some of each from at least two tomograms, down to low scores."
        )
    left_out = {name: cross_calibrated(s, y, group, name) for name in METHODS if method in ("auto", name)}
    losses = {name: _log_loss(p, y) for name, p in left_out.items()}
    chosen = method
    if method == "auto":
        chosen = "isotonic" if losses["isotonic"] < (1 - CLEARLY) * losses["platt"] else "platt"
    knots, probability = _fit(s, y, chosen)
    worth = np.interp(s, knots, probability)
    threshold, precision, recall = _expectations(s, worth, n_truth)
    return Calibration(
        method=chosen,
        score=tuple(knots.tolist()),
        probability=tuple(probability.tolist()),
        threshold=tuple(threshold.tolist()),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        tomograms=tomograms,
        candidates=len(s),
        truth=int(n_truth),
        figures={
            "calibration_error_before": expected_calibration_error(s, y),
            "calibration_error_after": expected_calibration_error(left_out[chosen], y),
        }
        | {f"log_loss_{name}": value for name, value in losses.items()},
    )


def cross_calibrated(
    score: npt.NDArray[Any], true: npt.NDArray[Any], tomogram: npt.NDArray[Any], method: str
) -> FloatArray:
    """(n,) probabilities of candidates, by curves fitted without their tomogram and a share of the others."""
    s, y = np.asarray(score, np.float64), np.asarray(true, np.float64)
    _, group = np.unique(tomogram, return_inverse=True)
    # Tomograms are dealt out in turn, in the order of how many candidates they have: folds of like size.
    order = np.argsort(-np.bincount(group), kind="stable")
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % min(FOLDS, len(order))
    out = np.empty(len(s))
    for k in range(fold.max() + 1):
        left_out = fold[group] == k
        out[left_out] = np.interp(s[left_out], *_fit(s[~left_out], y[~left_out], method))
    return out


def _fit(s: FloatArray, y: FloatArray, method: str) -> tuple[FloatArray, FloatArray]:
    """Points of the curve."""
    return _fit_logistic(s, y) if method == "platt" else _fit_isotonic(s, y)


def _fit_logistic(s: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """p = 1 / (1 + exp(-(a logit(s) + b))), a >= 0, by maximum likelihood (Platt 1999, with his targets)."""
    x = logit(np.clip(s, EDGE, 1 - EDGE))
    # Platt's targets: not 0 and 1, but what one more of each kind would leave of certainty.
    positives = y.sum()
    target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))

    def loss(ab: FloatArray) -> tuple[float, FloatArray]:
        z = ab[0] * x + ab[1]
        p = expit(z)
        value = np.sum(np.logaddexp(0, z) - target * z) + SLOPE_RIDGE * (ab[0] - 1) ** 2
        gradient = np.array([np.sum((p - target) * x) + 2 * SLOPE_RIDGE * (ab[0] - 1), np.sum(p - target)])
        return float(value), gradient

    answer = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]
    )
    knots = np.linspace(logit(EDGE), logit(1 - EDGE), KNOTS)
    return expit(knots), expit(answer.x[0] * knots + answer.x[1])


def _fit_isotonic(s: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Steps that never fall (pool adjacent violators), each smoothed by one of either kind, joined by lines.

    A step stands for its candidates at their mean score; without the smoothing the lowest and the highest
    would be certainties.
    """
    score, which = np.unique(s, return_inverse=True)
    weight = np.bincount(which).astype(np.float64)
    mean = np.bincount(which, weights=y) / weight
    blocks = isotonic_regression(mean, weights=weight).blocks
    starts, stops = blocks[:-1], blocks[1:]
    count = np.add.reduceat(weight, starts)
    knots = np.add.reduceat(score * weight, starts) / count
    level = (np.add.reduceat(mean * weight, starts) + y.mean()) / (count + 1)
    # Smoothing pulls small steps more than large ones; made to rise again.
    level = np.maximum.accumulate(level)
    assert len(stops) == len(knots)
    if knots[0] > 0:
        knots, level = np.insert(knots, 0, 0.0), np.insert(level, 0, 0.0)
    if knots[-1] < 1:
        knots, level = np.append(knots, 1.0), np.append(level, level[-1])
    return knots, level


def _expectations(
    s: FloatArray, worth: FloatArray, n_truth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores and, of the candidates at or above each, expected precision and recall.

    The sum of their probabilities stands for the number of true ones among them: precision then rises and
    recall falls along the curve, and a stretch of luck in a small sample promises nothing.
    """
    order = np.argsort(-s, kind="stable")
    score, hits = s[order], np.cumsum(worth[order])
    count = np.arange(1, len(s) + 1)
    last = np.append(np.diff(score) != 0, True)
    at = np.flatnonzero(last)[::-1]
    at = at[np.unique(np.linspace(0, len(at) - 1, CURVE_POINTS).astype(int))]
    precision = np.maximum.accumulate(hits[at] / count[at])
    recall = np.minimum(hits[at] / max(n_truth, 1), 1.0)
    return score[at], precision, recall


def _log_loss(probability: FloatArray, y: FloatArray) -> float:
    """Mean negative log-likelihood (nats)."""
    p = np.clip(probability, EDGE, 1 - EDGE)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
