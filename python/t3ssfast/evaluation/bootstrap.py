"""Bootstrap confidence intervals, over tomograms or, for a single tomogram, over particles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.matching import TomogramMatches

__all__ = ["Interval", "bootstrap_intervals"]


class Interval(NamedTuple):
    """Confidence interval of a metric."""

    low: float
    high: float


def bootstrap_intervals(
    matches: Sequence[TomogramMatches],
    metrics: Callable[[Sequence[TomogramMatches]], dict[str, float]],
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
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(resamples):
        for name, value in metrics(_draw(matches, rng)).items():
            samples[name].append(value)
    tail = (1 - level) / 2
    intervals = {}
    for name, values in samples.items():
        finite = np.array(values)[np.isfinite(values)]
        low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals


def _draw(matches: Sequence[TomogramMatches], rng: np.random.Generator) -> Sequence[TomogramMatches]:
    if len(matches) > 1:
        return [matches[k] for k in rng.integers(len(matches), size=len(matches))]
    if not matches:
        return []
    (one,) = matches
    total = len(one.scores) + one.n_truth - int(one.hits.sum())
    index = rng.integers(total, size=total) if total else np.zeros(0, np.int64)
    drawn = index[index < len(one.scores)]
    n_truth = int(one.hits[drawn].sum()) + len(index) - len(drawn)
    return [TomogramMatches(one.name, one.scores[drawn], one.hits[drawn], n_truth, pairs=())]
