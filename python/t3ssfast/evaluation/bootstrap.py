"""Bootstrap confidence intervals, over tomograms or, for a single tomogram, over particles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.matching import TomogramMatches

__all__ = ["Interval", "Sample", "bootstrap_intervals"]

FloatArray = npt.NDArray[np.float64]
# Scores of candidates, 1 for each hit, and the number of particles: the input of every metric.
Sample: TypeAlias = tuple[FloatArray, FloatArray, int]


class Interval(NamedTuple):
    """Confidence interval of a metric."""

    low: float
    high: float


def bootstrap_intervals(
    matches: Sequence[TomogramMatches],
    metrics: Callable[[FloatArray, FloatArray, int], dict[str, float]],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals of metrics (Efron & Tibshirani 1993, chapter 13).

    Tomograms are drawn with replacement, because errors within a tomogram are correlated. With one tomogram,
    its outcomes (hits, false positives, missed particles) are drawn. Undefined metrics are NaN.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level!r}; give a confidence level between 0 and 1, such as 0.95.")
    if resamples < 10:
        raise ConfigError(f"resamples is {resamples!r}; give at least 10, such as 1000.")
    rng = np.random.default_rng(seed)
    draw = _draw_tomograms if len(matches) > 1 else _draw_outcomes
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(resamples):
        for name, value in metrics(*draw(matches, rng)).items():
            samples[name].append(value)
    tail = (1 - level) / 2
    intervals = {}
    for name, values in samples.items():
        finite = np.array(values)[np.isfinite(values)]
        low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals


def _draw_tomograms(matches: Sequence[TomogramMatches], rng: np.random.Generator) -> Sample:
    drawn = [matches[k] for k in rng.integers(len(matches), size=len(matches))]
    scores, hits = (np.concatenate([getattr(m, name) for m in drawn]) for name in ("scores", "hits"))
    return scores, hits, sum(m.n_truth for m in drawn)


def _draw_outcomes(matches: Sequence[TomogramMatches], rng: np.random.Generator) -> Sample:
    if not matches:
        return np.zeros(0), np.zeros(0), 0
    scores, hits = matches[0].scores, matches[0].hits
    missed = matches[0].n_truth - int(hits.sum())
    total = len(scores) + missed
    index = rng.integers(total, size=total) if total else np.zeros(0, np.int64)
    drawn = index[index < len(scores)]
    n_truth = int(hits[drawn].sum()) + int((index >= len(scores)).sum())
    return scores[drawn], hits[drawn], n_truth
