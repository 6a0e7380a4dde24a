"""How much a figure could have come out otherwise: bootstrap over tomograms or, in one, over particles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.tally import Tally

__all__ = ["Interval", "Outcomes", "resampled"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure's confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Outcomes:
    """Candidates with their hits, and how many particles there were: all that a figure is made of."""

    scores: FloatArray
    hits: FloatArray
    n_truth: int


def resampled(
    tallies: Sequence[Tally],
    figures: Callable[[Outcomes], dict[str, float]],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Percentile intervals of figures (Efron & Tibshirani 1993, chapter 13).

    Tomograms are drawn with replacement, because what goes wrong in one goes wrong there many times. A single
    tomogram has no others: its outcomes (found, imagined, missed) are drawn.

    Parameters
    ----------
    tallies
        One for each tomogram.
    figures
        From pooled outcomes, by name; NaN where one is not defined.
    level
        Of confidence, such as 0.95.
    resamples
        How many are drawn.
    seed
        Of the draws.

    Raises
    ------
    ConfigError
        If the level or the number of resamples is out of range.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level!r}; give a level of confidence between 0 and 1, such as 0.95.")
    if resamples < 10:
        raise ConfigError(f"resamples is {resamples!r}; give at least 10, such as 1000.")
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {}
    for _ in range(resamples):
        drawn = _draw_tomograms(tallies, rng) if len(tallies) > 1 else _draw_outcomes(tallies, rng)
        for name, value in figures(drawn).items():
            draws.setdefault(name, []).append(value)
    tail = (1 - level) / 2
    intervals = {}
    for name, values in draws.items():
        finite = np.array(values)[np.isfinite(values)]
        low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals


def _draw_tomograms(tallies: Sequence[Tally], rng: np.random.Generator) -> Outcomes:
    drawn = [tallies[k] for k in rng.integers(len(tallies), size=len(tallies))]
    return Outcomes(
        np.concatenate([t.scores for t in drawn]),
        np.concatenate([t.hits for t in drawn]),
        sum(t.n_truth for t in drawn),
    )


def _draw_outcomes(tallies: Sequence[Tally], rng: np.random.Generator) -> Outcomes:
    if not tallies:
        return Outcomes(np.zeros(0), np.zeros(0), 0)
    scores, hits = tallies[0].scores, tallies[0].hits
    missed = tallies[0].n_truth - int(hits.sum())
    total = len(scores) + missed
    index = rng.integers(total, size=total) if total else np.zeros(0, np.int64)
    seen = index[index < len(scores)]
    return Outcomes(scores[seen], hits[seen], int(hits[seen].sum()) + int((index >= len(scores)).sum()))
