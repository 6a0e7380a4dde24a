"""A verifier before and after fine-tuning, on candidates with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from t3ssfast.errors import InputError

__all__ = ["Ranking", "comparison_text", "rank"]


@dataclass(frozen=True)
class Ranking:
    """How well scores tell accepted candidates from rejected ones.

    Parameters
    ----------
    accepted, rejected
        Number of candidates of each verdict.
    accepted_above, rejected_above
        Number of them with a score of at least 0.5.
    area
        Share of the pairs of an accepted and a rejected candidate of which the accepted one has the higher
        score (area under the ROC curve); NaN without either.
    """

    accepted: int
    rejected: int
    accepted_above: int
    rejected_above: int
    area: float


def rank(labels: Sequence[str], scores: npt.ArrayLike) -> Ranking:
    """Compare scores with verdicts, "accepted" or "rejected".

    Raises
    ------
    InputError
        If there are not as many scores as labels.
    """
    label, score = np.asarray(labels, dtype=str), np.asarray(scores, np.float64)
    if label.shape != score.shape:
        raise InputError(f"scores: {len(score)} scores for {len(label)} labels; give one for each.")
    accepted, rejected = label == "accepted", label == "rejected"
    n, m = int(accepted.sum()), int(rejected.sum())
    ranks = rankdata(np.concatenate([score[accepted], score[rejected]]))
    # The statistic of Mann and Whitney (1947); ties count as half.
    area = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m) if n and m else float("nan")
    above = score >= 0.5
    return Ranking(n, m, int((accepted & above).sum()), int((rejected & above).sum()), float(area))


def comparison_text(before: Ranking, after: Ranking) -> str:
    """Return lines of text that compare two rankings of the same candidates."""
    rows = [("", "before", "after")]
    for name in ("accepted", "rejected"):
        old, new = (f"{getattr(one, name + '_above')} of {getattr(one, name)}" for one in (before, after))
        rows.append((f"{name}, score of at least 0.5", old, new))
    rows.append(("pairs in the right order", f"{before.area:.1%}", f"{after.area:.1%}"))
    lines = [f"{first:<32}{second:>12}{third:>12}" for first, second, third in rows]
    return "\n".join([*lines, "(on the verdicts that it learned from; expect less on others)"])
