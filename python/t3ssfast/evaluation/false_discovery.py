"""False-discovery rate without labels: candidates compete with decoys of their own.

A decoy is the same place scored with its axis reversed, needle into the cell (`detection.decoys`). For a
false candidate, either of the two is as likely to score higher; a T3SS beats its decoy. So the decoys that
win above a score estimate the number of false candidates that win there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from scipy.special import betainc, expit

from t3ssfast.errors import ConfigError, InputError

__all__ = ["FdrThreshold", "estimate_fdr", "fdr_interval", "fdr_threshold", "null_probability", "q_values"]

FloatArray = npt.NDArray[np.float64]

# Confidence of the interval of a false-discovery rate.
LEVEL = 0.95
# A candidate is reported only if it is more likely true than false: where nothing separates a tomogram's T3SS
# from the rest but a gap, the rate alone would allow false candidates until it is used up.
MAX_NULL_PROBABILITY = 0.5
# Where the rate cannot be promised, candidates must be true with four times the probability.
CAUTIOUS_NULL_PROBABILITY = 0.2
# Prior of the logistic curve that the decoys shift: standard deviations of its position, in log-odds, and of
# the log of its slope, and the slope of the bundled models' calibration.
POSITION_SPREAD, SLOPE_SPREAD = 1.0, 0.3
CALIBRATION_SLOPE = 2.0


@dataclass(frozen=True)
class FdrThreshold:
    """The threshold for a false-discovery rate.

    Parameters
    ----------
    asked
        False-discovery rate that was asked for.
    threshold
        Lowest log-odds of a reported candidate.
    promised
        Whether there are enough candidates for the rate that was asked for; `threshold` is a cautious one
        otherwise.
    estimate, low, high
        Estimated false-discovery rate of the reported candidates, with its interval.
    candidates, decoys
        Reported candidates, and decoys at or above the threshold that beat their candidates.
    compared, tomograms
        Candidates that competed with decoys, and tomograms that they are from.
    calibrated
        Log-odds that the calibration turns into a probability of 1/2.
    """

    asked: float
    threshold: float
    promised: bool
    estimate: float
    low: float
    high: float
    candidates: int
    decoys: int
    compared: int
    tomograms: int = 1
    calibrated: float = 0.0

    @property
    def note(self) -> str | None:
        """One sentence about a rate that cannot be promised; None where it can."""
        if self.promised:
            return None
        return (
            f"A false-discovery rate of {self.asked:g} cannot be promised with so few candidates "
            f"({self.candidates} reported, {self.decoys} decoys above the threshold; at least "
            f"{int(np.ceil(1 / self.asked))} have to be reported); the threshold is a cautious one, and more "
            f"tomograms of the same kind, pooled, would allow the promise."
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON; a threshold above all candidates is None."""
        return asdict(self) | {"threshold": self.threshold if np.isfinite(self.threshold) else None}


def estimate_fdr(candidate: npt.ArrayLike, decoy: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Estimate the false-discovery rate above each score by target-decoy competition.

    Of each candidate and its decoy only the better one counts. The rate above a score is
    (1 + decoys) / candidates (Barber & Candes 2015; Elias & Gygi 2007 without the 1). The 1 makes the
    expected rate at a threshold chosen by it no higher than asked.

    Parameters
    ----------
    candidate, decoy
        (n,) scores of candidates, and of the decoy of each.

    Returns
    -------
    Scores of the winning candidates, highest first, and the estimated rate at or above each, at most 1.
    """
    score, is_decoy = _compete(candidate, decoy)
    decoys = np.cumsum(is_decoy)
    wins = np.cumsum(~is_decoy)
    rate = np.minimum((1 + decoys) / np.maximum(wins, 1), 1.0)
    return score[~is_decoy], rate[~is_decoy]


def q_values(candidate: npt.ArrayLike, decoy: npt.ArrayLike) -> FloatArray:
    """Return the (n,) lowest estimated false-discovery rate at which each candidate would be reported.

    Candidates that their decoys beat have 1. Parameters are those of `estimate_fdr`.
    """
    own = np.asarray(candidate, np.float64)
    score, rate = estimate_fdr(candidate, decoy)
    lowest = np.minimum.accumulate(rate[::-1])[::-1]
    q = np.ones(len(own))
    wins = own > np.asarray(decoy, np.float64)
    # Equal scores are reported together.
    position = np.searchsorted(-score, -own[wins], side="right") - 1
    q[wins] = lowest[position]
    return q


def fdr_interval(candidates: int, decoys: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the false-discovery rate of winning candidates, given the winning decoys.

    If a false candidate beats its decoy with probability 1/2, the false candidates seen before decoy d + 1
    follow a negative binomial distribution (Luo et al. 2023).
    """
    if candidates == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    false = np.arange(candidates + 1)
    # Probability of at most so many false winners before decoy number d, and d + 1.
    low = np.searchsorted(betainc(decoys, false + 1, 0.5), tail) if decoys else 0
    high = np.searchsorted(betainc(decoys + 1, false + 1, 0.5), 1 - tail)
    return float(min(low / candidates, 1.0)), float(min(high / candidates, 1.0))


def null_probability(
    candidate: npt.ArrayLike, decoy: npt.ArrayLike, at: npt.ArrayLike, *, calibrated: float = 0.0
) -> FloatArray:
    """Return the probability that candidates with the scores `at`, which beat their decoys, are false.

    Among pairs whose better score is s, the fraction g(s) without a T3SS is modelled as logistic, and half of
    these are won by the decoy. g is fitted to who won (maximum a posteriori). Its prior is the calibration,
    which gives even odds at the log-odds `calibrated`: the decoys of a tomogram shift it.
    """
    score, is_decoy = _compete(candidate, decoy)
    position, slope = _fit_null(score, is_decoy, calibrated)
    g = expit(-slope * (np.asarray(at, np.float64) - position))
    return np.asarray(0.5 * g / (1 - 0.5 * g))


def fdr_threshold(
    candidate: Sequence[npt.ArrayLike],
    decoy: Sequence[npt.ArrayLike],
    max_fdr: float,
    *,
    calibrated: float = 0.0,
) -> FdrThreshold:
    """Find the threshold of the log-odds for a false-discovery rate, pooled over tomograms.

    Parameters
    ----------
    candidate, decoy
        For each tomogram the (n,) log-odds of candidates, and of the decoy of each.
    max_fdr
        False-discovery rate asked for.
    calibrated
        Log-odds that the calibration turns into a probability of 1/2.

    Raises
    ------
    ConfigError
        `max_fdr` is not between 0 and 1.
    InputError
        Numbers of candidates and decoys differ.
    """
    if not 0 < max_fdr < 1:
        raise ConfigError(f"max_fdr is {max_fdr!r}; give a rate above 0 and below 1, such as 0.05.")
    if len(candidate) != len(decoy):
        raise InputError(f"There are candidates of {len(candidate)} tomograms and decoys of {len(decoy)}.")
    targets = np.concatenate([np.zeros(0), *(np.asarray(c, np.float64).ravel() for c in candidate)])
    decoys = np.concatenate([np.zeros(0), *(np.asarray(d, np.float64).ravel() for d in decoy)])
    score, rate = estimate_fdr(targets, decoys)
    reached = rate <= max_fdr
    promised = bool(reached.any())
    won = decoys[decoys >= targets]
    lowest = score[reached][-1] if promised else -np.inf
    limit = MAX_NULL_PROBABILITY if promised else CAUTIOUS_NULL_PROBABILITY
    likely = score[null_probability(targets, decoys, score, calibrated=calibrated) <= limit]
    threshold = float(max(lowest, likely[-1])) if len(likely) else np.inf
    reported = int(np.sum(score >= threshold))
    winning_decoys = int(np.sum(won >= threshold))
    low, high = fdr_interval(reported, winning_decoys)
    return FdrThreshold(
        asked=max_fdr,
        threshold=threshold,
        promised=promised,
        estimate=float(min((1 + winning_decoys) / max(reported, 1), 1.0)),
        low=low,
        high=high,
        candidates=reported,
        decoys=winning_decoys,
        compared=len(targets),
        tomograms=len(candidate),
        calibrated=calibrated,
    )


def _compete(candidate: npt.ArrayLike, decoy: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the higher score of each pair, highest first, and whether it is the decoy's; ties are."""
    target, other = np.asarray(candidate, np.float64).ravel(), np.asarray(decoy, np.float64).ravel()
    if target.shape != other.shape:
        raise InputError(
            f"There are {len(target)} candidates and {len(other)} decoys; give one decoy for each candidate."
        )
    score, is_decoy = np.maximum(target, other), other >= target
    # Decoys first among equal scores.
    order = np.lexsort((~is_decoy, -score))
    return score[order], is_decoy[order]


def _fit_null(score: FloatArray, is_decoy: npt.NDArray[np.bool_], calibrated: float) -> tuple[float, float]:
    """Return position and slope of the logistic fraction of pairs without a T3SS."""
    decoy = is_decoy.astype(np.float64)

    def loss(parameters: FloatArray) -> float:
        position, log_slope = parameters
        g = expit(-np.exp(log_slope) * (score - position))
        likelihood = decoy * np.log(np.maximum(g / 2, 1e-12)) + (1 - decoy) * np.log(1 - g / 2)
        shift = (position - calibrated) / POSITION_SPREAD
        stretch = (log_slope - np.log(CALIBRATION_SLOPE)) / SLOPE_SPREAD
        return float(-likelihood.sum() + 0.5 * (shift**2 + stretch**2))

    # The posterior can have several maxima; the best of a few starts.
    starts = (calibrated, calibrated - 1.5, calibrated - 3)
    fits = [scipy.optimize.minimize(loss, [s, np.log(CALIBRATION_SLOPE)], method="L-BFGS-B") for s in starts]
    best = min(fits, key=lambda fit: float(fit.fun))
    return float(best.x[0]), float(np.exp(best.x[1]))
