"""A verifier before and after fine-tuning, on candidates with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.training.fine_tune import TOLERANCE_ANGSTROM

__all__ = ["Ranking", "candidates_of_verdicts", "comparison_text", "rank"]


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


def rank(labels: Sequence[str], scores: npt.ArrayLike, uncalibrated: npt.ArrayLike | None = None) -> Ranking:
    """Compare scores with verdicts, "accepted" or "rejected".

    Parameters
    ----------
    uncalibrated
        Scores for the order of the pairs, if each score has a calibration of its own: one that was fitted
        without an accepted candidate is lower, and would spoil the order. None: `scores`.

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
    ordered = score if uncalibrated is None else np.asarray(uncalibrated, np.float64)
    ranks = rankdata(np.concatenate([ordered[accepted], ordered[rejected]]))
    # The statistic of Mann and Whitney (1947); ties count as half.
    area = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m) if n and m else float("nan")
    above = score >= 0.5
    return Ranking(n, m, int((accepted & above).sum()), int((rejected & above).sum()), float(area))


def candidates_of_verdicts(
    verdicts: Candidates, candidates: Candidates
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows of accepted and rejected verdicts, and those of the nearest candidates within 12 nm.

    Verdicts without a candidate, such as added picks that the classifier did not find, are left out.
    """
    judged = np.flatnonzero(np.isin(verdicts.label, ("accepted", "rejected")))
    if not len(judged) or not len(candidates):
        return judged[:0], judged[:0]
    scale = verdicts.voxel_size_angstrom / candidates.voxel_size_angstrom
    tree = cKDTree(candidates.centre_zyx)
    distance, nearest = map(np.asarray, tree.query(verdicts.centre_zyx[judged] * scale))
    close = distance * candidates.voxel_size_angstrom <= TOLERANCE_ANGSTROM
    return judged[close], nearest[close]


def comparison_text(before: Ranking, after: Ranking, *, folds: int, verdicts: int) -> str:
    """Return lines of text that compare two rankings of the same candidates.

    Parameters
    ----------
    folds
        Folds of the cross-validation that the scores after the training are of.
    verdicts
        Number of candidates that were accepted or rejected, also of those that could not be compared.
    """
    rows = [("", "before", "after")]
    for name in ("accepted", "rejected"):
        old, new = (f"{getattr(one, name + '_above')} of {getattr(one, name)}" for one in (before, after))
        rows.append((f"{name}, score of at least 0.5", old, new))
    rows.append(("pairs in the right order", f"{before.area:.1%}", f"{after.area:.1%}"))
    lines = [f"{first:<32}{second:>12}{third:>12}" for first, second, third in rows]
    compared = before.accepted + before.rejected
    how = (
        f"On {compared} of {verdicts} verdicts, held out in turns: each candidate is scored by a verifier "
        f"that was fine-tuned without its fold (one of {folds}), and by a calibration without it. The new "
        "verifier has learned from all verdicts."
    )
    return "\n".join([*lines, "", how])
