"""Calibration: from the scores of candidates to probabilities, and to thresholds of precision or recall.

The curve is fitted on tomograms that the classifier was not trained on, and stored in the model file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from scipy.special import betaincinv, expit, logit

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.evaluation.calibration_domain import CalibrationDomain
from t3ssfast.evaluation.curves import expected_calibration_error
from t3ssfast.evaluation.evaluate import evaluate

__all__ = ["METHODS", "Calibration", "calibrate", "cross_validate", "fit_calibration", "read_calibration"]

METHODS = ("platt", "isotonic")
FloatArray = npt.NDArray[np.float64]

# Scores are clipped to this distance from 0 and 1, which bounds their log-odds.
SCORE_MARGIN = 1e-4
# Points of a stored logistic curve, evenly spaced in log-odds; linear interpolation errs by less than 0.002.
LOGISTIC_POINTS = 65
# Points of the curves of expected precision and recall: half of them evenly spaced in the rank of the
# candidates, half in their log-odds, between which there are few candidates where true and false part.
EXPECTATION_POINTS = 102
# The precision that is promised is exceeded with this probability.
PRECISION_CONFIDENCE = 0.95
RESAMPLES = 400
# Weight of the penalty on slopes other than 1, which keeps a few separable candidates from giving certainty.
SLOPE_PENALTY = 0.5
# With few candidates, the slope and the position of an earlier curve are a prior: scores of other tomograms
# keep their order and lose their scale. Standard deviations of the log of the slope, and of the shift in
# log-odds.
PRIOR_LOG_SLOPE_SIGMA, PRIOR_SHIFT_SIGMA = 0.3, 2.0
FOLDS = 8
# Isotonic steps, which merge the ranks within a step, must lower the log-loss by at least this fraction.
MIN_ISOTONIC_GAIN = 0.02
# Key of files that earlier versions wrote, and its present name.
EARLIER_KEYS = {"figures": "metrics"}


@dataclass(frozen=True)
class Calibration:
    """A monotone curve from scores to probabilities, with the expected precision and recall of thresholds.

    "platt" is a logistic curve in the log-odds of the score, "isotonic" steps joined by lines. The
    metrics, except for the calibration error before, are cross-validated over tomograms. A promised precision
    is a lower confidence bound, not the expected one.
    """

    method: str
    # Points of the curve, ascending and non-decreasing, interpolated linearly.
    score: tuple[float, ...]
    probability: tuple[float, ...]
    # Ascending scores, and expected precision and recall of the candidates at or above each.
    threshold: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    # Size of the data that the curve was fitted to.
    tomograms: int = 0
    candidates: int = 0
    truth: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    # Lower confidence bound of the precision at each threshold; empty in files of earlier versions.
    precision_low: tuple[float, ...] = ()
    # Of the tomograms; None in files of earlier versions, or where they were few.
    domain: CalibrationDomain | None = None

    def __post_init__(self) -> None:
        if not self.precision_low:
            object.__setattr__(self, "precision_low", self._binomial_bound())
        equal_lengths = len(self.score) == len(self.probability) >= 2
        equal_lengths &= len(self.threshold) == len(self.precision) == len(self.recall) >= 1
        equal_lengths &= len(self.precision_low) == len(self.precision)
        rising = (self.probability, self.precision, self.precision_low)
        non_decreasing = all(np.all(np.diff(x) >= 0) for x in rising)
        ascending = all(np.all(np.diff(x) > 0) for x in (self.score, self.threshold))
        if not (equal_lengths and non_decreasing and ascending and np.all(np.diff(self.recall) <= 0)):
            raise InputError(
                "The points of the calibration do not form curves; give ascending scores with as many "
                "non-decreasing probabilities, and a precision and a recall for each threshold."
            )

    def apply(self, score: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Convert scores to probabilities, both (n,); the curve is constant beyond its ends."""
        return np.interp(np.asarray(score, np.float64), self.score, self.probability).astype(np.float32)

    def score_for_probability(self, probability: float) -> float:
        """Return the lowest score with at least this probability; just above 1 if there is none."""
        if probability <= self.probability[0]:
            return 0.0
        if probability > self.probability[-1]:
            return float(np.nextafter(1.0, 2.0))
        above = int(np.searchsorted(self.probability, probability))
        (s0, s1), (p0, p1) = (x[above - 1 : above + 1] for x in (self.score, self.probability))
        return s0 + (s1 - s0) * (probability - p0) / (p1 - p0)

    def score_for_precision(self, target: float) -> float:
        """Return the lowest score with confidence in the target precision, or raise ConfigError."""
        return self.threshold[_reached("min_precision", self.precision_low, target)[0]]

    def score_for_recall(self, target: float) -> float:
        """Return the highest score whose expected recall reaches the target, or raise ConfigError."""
        return self.threshold[_reached("min_recall", self.recall, target)[-1]]

    def _binomial_bound(self) -> tuple[float, ...]:
        """Return the bound of the precision that the curves alone give, as if candidates were independent."""
        if not len(self.threshold) == len(self.precision) == len(self.recall):
            return ()
        precision = np.asarray(self.precision, np.float64)
        true = np.asarray(self.recall, np.float64) * self.truth
        found = true / np.maximum(precision, np.finfo(np.float64).tiny)
        return tuple(np.maximum.accumulate(_lower_bound(true, found)).tolist())

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and numbers, for JSON."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return plain | {"domain": None if self.domain is None else self.domain.to_dict()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Calibration:
        """Invert `to_dict`, or raise ModelError; keys of earlier versions are accepted."""
        try:
            values = {EARLIER_KEYS.get(key, key): value for key, value in entries.items()}
            for name in ("score", "probability", "threshold", "precision", "recall"):
                values[name] = tuple(float(x) for x in values[name])
            if values.get("domain") is not None:
                values["domain"] = CalibrationDomain.from_dict(values["domain"])
            values["precision_low"] = tuple(float(x) for x in values.get("precision_low", ()))
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise ModelError(
                f"The calibration cannot be read ({error}); calibrate the model again."
            ) from error


def _reached(option: str, expected: tuple[float, ...], target: float) -> list[int]:
    """Return the indices of the thresholds whose expected precision or recall reaches the target."""
    reached = [index for index, value in enumerate(expected) if value >= target]
    if not reached:
        raise ConfigError(
            f"{option} is {target:g}, but this classifier reaches at most {max(expected):.3f}; give less, or "
            "leave it out."
        )
    return reached


def read_calibration(entries: Mapping[str, Any] | None) -> Calibration | None:
    """Read the calibration in a model's metadata; None if there is none."""
    return None if entries is None else Calibration.from_dict(entries)


def calibrate(candidates: Sequence[Candidates], truth: Sequence[Candidates]) -> Calibration:
    """Fit a calibration to the candidates and known particles of several tomograms, one entry each.

    The scores are uncalibrated and include low ones; see `fit_calibration` for the errors.
    """
    found = evaluate(candidates, truth)
    return fit_calibration(found.scores, found.hits, found.tomogram_index, found.n_truth)


def fit_calibration(
    score: npt.ArrayLike,
    true: npt.ArrayLike,
    tomogram: npt.ArrayLike,
    n_truth: int,
    *,
    method: str = "auto",
    prior: Calibration | None = None,
) -> Calibration:
    """Fit a calibration to the scores of candidates, in [0, 1], and whether they are true; all are (n,).

    The method is "platt", "isotonic", or "auto": isotonic if its cross-validated log-loss is clearly lower.
    `prior` is a calibration of other tomograms, from which a logistic curve departs as far as the candidates
    show.
    InputError: there are fewer than two tomograms, or no true or no false candidates.
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
            f"tomograms to calibrate with; give both from at least two tomograms, including low scores."
        )
    line = None if prior is None else _line_of(prior)
    held_out = {n: cross_validate(s, y, group, n, line) for n in METHODS if method in ("auto", n)}
    losses = {name: _log_loss(p, y) for name, p in held_out.items()}
    if method == "auto":
        isotonic_wins = losses["isotonic"] < (1 - MIN_ISOTONIC_GAIN) * losses["platt"]
        method = "isotonic" if isotonic_wins else "platt"
    curve_score, curve_probability = _fit(s, y, method, line)
    probability = np.interp(s, curve_score, curve_probability)
    threshold, precision, recall = _expected_precision_recall(s, probability, n_truth)
    precision_low = np.minimum(_precision_bound(s, y, group, threshold), precision)
    return Calibration(
        method=method,
        score=tuple(curve_score.tolist()),
        probability=tuple(curve_probability.tolist()),
        threshold=tuple(threshold.tolist()),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        precision_low=tuple(np.maximum.accumulate(precision_low).tolist()),
        tomograms=tomograms,
        candidates=len(s),
        truth=int(n_truth),
        metrics={
            "calibration_error_before": expected_calibration_error(s, y),
            "calibration_error_after": expected_calibration_error(held_out[method], y),
            **{f"log_loss_{name}": value for name, value in losses.items()},
        },
    )


def cross_validate(
    score: npt.NDArray[Any],
    true: npt.NDArray[Any],
    tomogram: npt.NDArray[Any],
    method: str,
    prior: tuple[float, float] | None = None,
) -> FloatArray:
    """Return (n,) probabilities of candidates by curves that were fitted without their tomograms.

    `prior` are slope and intercept, in log-odds, of a curve of other tomograms.
    """
    s, y = np.asarray(score, np.float64), np.asarray(true, np.float64)
    _, group = np.unique(tomogram, return_inverse=True)
    # Assigning tomograms to folds in the order of their candidate counts gives folds of similar size.
    order = np.argsort(-np.bincount(group), kind="stable")
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % min(FOLDS, len(order))
    out = np.empty(len(s))
    for k in range(fold.max() + 1):
        held_out = fold[group] == k
        out[held_out] = np.interp(s[held_out], *_fit(s[~held_out], y[~held_out], method, prior))
    return out


def _line_of(calibration: Calibration) -> tuple[float, float]:
    """Return slope and intercept, in log-odds, of the line that is closest to a calibration."""
    x, z = (
        logit(np.clip(values, SCORE_MARGIN, 1 - SCORE_MARGIN))
        for values in (calibration.score, calibration.probability)
    )
    # Clipped ends lie on no line; steps may have nothing else.
    inside = np.abs(z) < logit(1 - SCORE_MARGIN) - 1e-6
    inside |= inside.sum() < 2
    slope, intercept = np.polyfit(x[inside], z[inside], 1)
    return max(float(slope), SCORE_MARGIN), float(intercept)


def _fit(
    s: FloatArray, y: FloatArray, method: str, prior: tuple[float, float] | None
) -> tuple[FloatArray, FloatArray]:
    return _fit_logistic(s, y, prior) if method == "platt" else _fit_isotonic(s, y)


def _fit_logistic(
    s: FloatArray, y: FloatArray, prior: tuple[float, float] | None
) -> tuple[FloatArray, FloatArray]:
    """Fit p = 1 / (1 + exp(-(a logit(s) + b))), a >= 0, by maximum likelihood (Platt 1999).

    With a prior, the slope and the intercept of other tomograms, a maximum a posteriori.
    """
    x = logit(np.clip(s, SCORE_MARGIN, 1 - SCORE_MARGIN))
    # Platt's targets: Laplace-smoothed instead of 0 and 1.
    positives = y.sum()
    target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))

    def penalty(ab: FloatArray) -> tuple[float, FloatArray]:
        if prior is None:
            return SLOPE_PENALTY * (ab[0] - 1) ** 2, np.array([2 * SLOPE_PENALTY * (ab[0] - 1), 0.0])
        slope = np.log(ab[0] / prior[0]) / PRIOR_LOG_SLOPE_SIGMA
        shift = (ab[1] - prior[1]) / (PRIOR_SHIFT_SIGMA * prior[0])
        gradient = slope / (PRIOR_LOG_SLOPE_SIGMA * ab[0]), shift / (PRIOR_SHIFT_SIGMA * prior[0])
        return 0.5 * (slope**2 + shift**2), np.array(gradient)

    def loss(ab: FloatArray) -> tuple[float, FloatArray]:
        z = ab[0] * x + ab[1]
        p = expit(z)
        value, gradient = penalty(ab)
        value += float(np.sum(np.logaddexp(0, z) - target * z))
        return value, gradient + np.array([np.sum((p - target) * x), np.sum(p - target)])

    optimum = scipy.optimize.minimize(
        loss,
        np.array([1.0, 0.0] if prior is None else prior),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0 if prior is None else 1e-3 * prior[0], None), (None, None)],
    )
    log_odds = np.linspace(logit(SCORE_MARGIN), logit(1 - SCORE_MARGIN), LOGISTIC_POINTS)
    return expit(log_odds), expit(optimum.x[0] * log_odds + optimum.x[1])


def _fit_isotonic(s: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit non-decreasing steps (pool adjacent violators), placed at their mean scores and joined by lines.

    Each step is smoothed towards the overall fraction of true candidates, so that no step gives certainty.
    """
    score, index = np.unique(s, return_inverse=True)
    weight = np.bincount(index).astype(np.float64)
    mean = np.bincount(index, weights=y) / weight
    starts = scipy.optimize.isotonic_regression(mean, weights=weight).blocks[:-1]
    count = np.add.reduceat(weight, starts)
    step_score = np.add.reduceat(score * weight, starts) / count
    level = (np.add.reduceat(mean * weight, starts) + y.mean()) / (count + 1)
    # Smoothing moves small steps more than large ones, which can break the order.
    level = np.maximum.accumulate(level)
    if step_score[0] > 0:
        step_score, level = np.insert(step_score, 0, 0.0), np.insert(level, 0, 0.0)
    if step_score[-1] < 1:
        step_score, level = np.append(step_score, 1.0), np.append(level, level[-1])
    return step_score, level


def _expected_precision_recall(
    s: FloatArray, probability: FloatArray, n_truth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return thresholds, and expected precision and recall of the candidates at or above each.

    Sums of probabilities stand for true candidates, so precision never falls and recall never rises.
    """
    order = np.argsort(-s, kind="stable")
    score, true_positives = s[order], np.cumsum(probability[order])
    count = np.arange(1, len(s) + 1)
    last_of_score = np.append(np.diff(score) != 0, True)
    at = np.flatnonzero(last_of_score)[::-1]
    by_rank = np.linspace(0, len(at) - 1, EXPECTATION_POINTS // 2).astype(int)
    log_odds = logit(np.clip(score[at], SCORE_MARGIN, 1 - SCORE_MARGIN))
    even = np.linspace(log_odds[0], log_odds[-1], EXPECTATION_POINTS // 2)
    by_log_odds = np.minimum(np.searchsorted(log_odds, even), len(at) - 1)
    at = at[np.unique(np.concatenate([by_rank, by_log_odds]))]
    precision = np.maximum.accumulate(true_positives[at] / count[at])
    recall = np.minimum(true_positives[at] / max(n_truth, 1), 1.0)
    return score[at], precision, recall


def _precision_bound(
    s: FloatArray, y: FloatArray, group: npt.NDArray[Any], threshold: FloatArray
) -> FloatArray:
    """Return a lower confidence bound of the precision of the candidates at or above each threshold.

    It is the bound of a binomial proportion (Jeffreys), of as many candidates as would be independent: those
    of one tomogram are alike, and a bootstrap over tomograms tells how much (the design effect; Kish 1965).
    """
    _, index = np.unique(group, return_inverse=True)
    tomograms = int(index.max()) + 1
    above = s[:, None] >= threshold
    found, true = np.zeros((2, tomograms, len(threshold)))
    np.add.at(found, index, above)
    np.add.at(true, index, above * y[:, None])
    n, k = found.sum(axis=0), true.sum(axis=0)
    drawn = np.random.default_rng(0).multinomial(tomograms, np.full(tomograms, 1 / tomograms), RESAMPLES)
    precision = (drawn @ true + 0.5) / (drawn @ found + 1)
    p = (k + 0.5) / (n + 1)
    effect = np.maximum(precision.var(axis=0) * n / np.maximum(p * (1 - p), 1e-12), 1.0)
    return _lower_bound(k / effect, n / effect)


def _lower_bound(true: FloatArray, found: FloatArray) -> FloatArray:
    """Return the lower bound of a proportion (Brown, Cai & DasGupta 2001: Jeffreys interval)."""
    false = np.maximum(found - true, 0)
    return np.asarray(betaincinv(true + 0.5, false + 0.5, 1 - PRECISION_CONFIDENCE))


def _log_loss(probability: FloatArray, y: FloatArray) -> float:
    """Mean negative log-likelihood in nats."""
    p = np.clip(probability, SCORE_MARGIN, 1 - SCORE_MARGIN)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
