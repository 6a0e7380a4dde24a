"""Precision of a detection, estimated from verdicts on candidates that were drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.runtime.counted import counted

__all__ = ["RANDOM", "PrecisionEstimate", "estimate_precision"]

# The reason, among the details as "chosen_by", of the candidates that were drawn at random.
RANDOM = "random"


@dataclass(frozen=True)
class PrecisionEstimate:
    """Share of true candidates, with the exact 95% interval of Clopper and Pearson (1934).

    The interval holds for the candidates that the random share was drawn from, here those of at least
    `min_score`, and for verdicts without errors.
    """

    accepted: int
    rejected: int
    unsure: int
    low: float
    high: float
    min_score: float = 0.0

    @property
    def precision(self) -> float:
        """Accepted among accepted and rejected; NaN without either."""
        judged = self.accepted + self.rejected
        return self.accepted / judged if judged else float("nan")

    def __str__(self) -> str:
        judged = self.accepted + self.rejected
        accepted = f"{self.accepted} {'was' if self.accepted == 1 else 'were'}"
        unsure = f" ({self.unsure} more are unsure)" if self.unsure else ""
        return (
            f"of {counted(judged, 'candidate')} looked at, {accepted} accepted{unsure}: precision "
            f"{self.low:.2f}-{self.high:.2f}"
        )


def estimate_precision(
    candidates: Candidates | Sequence[Candidates], *, min_score: float = 0.0, level: float = 0.95
) -> PrecisionEstimate:
    """Estimate the precision of candidates of at least a score from the verdicts on a random share.

    Parameters
    ----------
    candidates
        Candidates with labels and the detail "chosen_by", of one or of several tomograms.
    min_score
        Lower limit of the scores. A random share stays one above any limit.
    level
        Confidence level of the interval.

    Raises
    ------
    InputError
        If there is no verdict on a candidate that was drawn at random.
    """
    given = [candidates] if isinstance(candidates, Candidates) else candidates
    labels: list[str] = []
    for some in given:
        reasons = some.details.get("chosen_by", np.full(len(some), ""))
        labels += some.label[(reasons == RANDOM) & (some.score >= min_score)].tolist()
    accepted, rejected = labels.count("accepted"), labels.count("rejected")
    if accepted + rejected == 0:
        raise InputError(
            f"There are no verdicts on candidates drawn at random with a score of at least {min_score:g}; "
            "judge those that t3ssfast suggest marks as random."
        )
    interval = binomtest(accepted, accepted + rejected).proportion_ci(level, method="exact")
    low, high = float(interval.low), float(interval.high)
    return PrecisionEstimate(accepted, rejected, labels.count("unsure"), low, high, min_score)
