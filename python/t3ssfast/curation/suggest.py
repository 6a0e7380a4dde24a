"""The candidates whose verdict teaches the models most, and a random share that estimates the precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import rankdata

from t3ssfast.candidates import Candidates
from t3ssfast.curation.precision import RANDOM
from t3ssfast.curation.results import find_results
from t3ssfast.curation.verdicts import apply_verdicts
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io.particles.curation import load_all_curations
from t3ssfast.tomogram import StrPath

__all__ = ["DISAGREEMENT", "DIVERSE", "UNCERTAIN", "choose_next", "suggest"]

UNCERTAIN, DISAGREEMENT, DIVERSE = "uncertain", "disagreement", "diverse"
# Weight of the disagreement of classifier and verifier against the uncertainty of the score, both 0 to 1.
DISAGREEMENT_WEIGHT = 0.5
# Outside of the physics of the calibration, scores keep their order and lose their scale, by how much is not
# known before the first verdicts: standard deviation of the shift, in log-odds, and the shifts considered.
SHIFT_SIGMA = 2.0
SHIFTS = np.linspace(-8.0, 8.0, 65)
# Verdicts that are taken to be wrong, whatever the score.
WRONG_VERDICTS = 0.05
# Part of the suggestions that is drawn at random.
RANDOM_SHARE = 0.25

FloatArray = npt.NDArray[np.float64]


def suggest(
    folders: StrPath | Sequence[StrPath],
    n: int = 20,
    *,
    curation: StrPath | None = None,
    random_share: float = RANDOM_SHARE,
    seed: int = 0,
) -> list[Candidates]:
    """Suggest the candidates to look at next.

    Most are those whose score is least certain, or on which classifier and verifier disagree, spread over
    tomograms and kinds. The verdicts so far tell where that is: if candidates with low scores were accepted,
    the next ones have lower scores. The rest is drawn at random: the verdicts on it estimate the precision
    (`estimate_precision`), which those on doubtful candidates do not.

    Parameters
    ----------
    folders
        Folders of results, or folders that hold one for each tomogram.
    n
        Number of candidates to suggest.
    curation
        Curation file with the verdicts so far. What they are about is not suggested again, and is returned
        with its verdicts, so that one file holds all; suggestions without a verdict are made anew.
    random_share
        Part of `n` that is drawn at random, 0 to 1.
    seed
        Random seed. With the same results and seed, the random share of a later call extends the earlier one.

    Returns
    -------
    One entry for each tomogram with a suggestion or a verdict. `details["chosen_by"]` says why each candidate
    was chosen: "uncertain", "disagreement", "diverse" or "random". Write it with `save_curation`.

    Raises
    ------
    ReadError, InputError
        If the results or the curation cannot be read, or there is no candidate without a verdict.
    ConfigError
        If an option is out of bounds.
    """
    candidates = [one.candidates for one in find_results(folders)]
    others = [some[:0] for some in candidates]
    if curation is not None:
        candidates, others = apply_verdicts(candidates, load_all_curations(curation))
    chosen = choose_next(candidates, n, random_share=random_share, seed=seed)
    kept = []
    for some, reason, more in zip(candidates, chosen, others, strict=True):
        marked = replace(some, details={**some.details, "chosen_by": reason})
        part = marked[(reason != "") | (marked.label != "")]
        if len(more):
            empty = {name: np.full(len(more), np.nan) for name in part.details} | {
                "chosen_by": more.details.get("chosen_by", np.full(len(more), ""))
            }
            part = part.joined(replace(more, details=empty))
        if len(part):
            kept.append(part)
    return kept


def choose_next(
    candidates: Sequence[Candidates], n: int, *, random_share: float = RANDOM_SHARE, seed: int = 0
) -> list[npt.NDArray[np.str_]]:
    """Return why each candidate was chosen, (m,) for each tomogram; "" for those that were not.

    Candidates that have a verdict keep their reason, unless the random share comes to them: it is the
    beginning of one random order of all candidates, whatever was judged, so that it stays a random sample.
    """
    if n < 1 or not 0 <= random_share <= 1:
        raise ConfigError(
            f"n is {n} and random_share is {random_share:g}; give at least one candidate, and 0 to 1."
        )
    pool = _Pool.of(candidates)
    open_count = int((pool.label == "").sum())
    if open_count == 0:
        raise InputError(
            f"None of the {len(pool.label)} candidates waits for a verdict; detect with a lower --threshold, "
            "or in more tomograms."
        )
    # Suggestions that still wait for a verdict compete again.
    reason = np.where(pool.label == "", "", pool.reason)
    wanted = min(n, open_count)
    at_random = round(random_share * wanted)
    drawn = 0
    for index in np.random.default_rng([seed, 25]).permutation(pool.order):
        if drawn == at_random:
            break
        reason[index] = RANDOM
        drawn += pool.label[index] == ""
    rows = zip(pool.group, reason, pool.label, strict=True)
    taken = Counter(group for group, why, label in rows if why or label)
    value = DISAGREEMENT_WEIGHT * pool.disagreement + pool.uncertainty
    waiting = (pool.label == "") & (reason == "")
    best = set(np.argsort(-np.where(waiting, value, -1), kind="stable")[: wanted - drawn].tolist())
    for _ in range(wanted - drawn):
        # Each choice halves, thirds ... the worth of the next one of the same tomogram and kind.
        worth = np.where(waiting, value / (1 + np.array([taken[group] for group in pool.group])), -1)
        index = int(np.argmax(worth))
        if index not in best:
            reason[index] = DIVERSE
        elif DISAGREEMENT_WEIGHT * pool.disagreement[index] > pool.uncertainty[index]:
            reason[index] = DISAGREEMENT
        else:
            reason[index] = UNCERTAIN
        waiting[index] = False
        taken[pool.group[index]] += 1
    return np.split(reason, np.cumsum([len(some) for some in candidates])[:-1])


@dataclass(frozen=True)
class _Pool:
    """The candidates of all tomograms, each an entry of every array."""

    label: npt.NDArray[np.str_]
    reason: npt.NDArray[np.str_]
    group: list[tuple[int, str]]  # tomogram and kind
    uncertainty: FloatArray
    disagreement: FloatArray
    order: npt.NDArray[np.int64]  # by position, which does not depend on the order in a file

    @classmethod
    def of(cls, candidates: Sequence[Candidates]) -> _Pool:
        def joined(values: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
            return np.concatenate(values).astype(dtype) if values else np.zeros(0, dtype)

        score = joined([some.score for some in candidates], np.float64)
        scores = []
        for name in ("classifier_score", "verifier_score"):
            parts = [some.details.get(name, np.full(len(some), np.nan)) for some in candidates]
            scores.append(joined(parts, np.float64))
        known = np.isfinite(scores[0]) & np.isfinite(scores[1])
        disagreement = np.zeros(len(score))
        if known.sum() > 1:
            # By rank: the two are not on one scale.
            first, second = (rankdata(values[known]) / known.sum() for values in scores)
            disagreement[known] = np.abs(first - second)
        reasons = [some.details.get("chosen_by", np.full(len(some), "")) for some in candidates]
        group = [(t, str(kind)) for t, some in enumerate(candidates) for kind in some.kind]
        tomogram = np.array([t for t, _ in group], dtype=np.int64)
        centre = joined([some.centre_zyx for some in candidates], np.float64).reshape(-1, 3)
        order = np.lexsort((*np.round(centre.T, 1), tomogram))
        label = joined([some.label for some in candidates], "<U8")
        return cls(
            label=label,
            reason=joined(reasons, "<U32"),
            group=group,
            uncertainty=_uncertainty(score, label),
            disagreement=disagreement,
            order=order,
        )


def _uncertainty(score: FloatArray, label: npt.NDArray[np.str_]) -> FloatArray:
    """Return the expected 4 p (1 - p) of candidates, where p is the score with its log-odds shifted.

    The shift is one for all candidates. Its prior is normal, and verdicts say what it is.
    """
    log_odds = logit(np.clip(score, 1e-6, 1 - 1e-6))
    p = expit(SHIFTS[:, None] + log_odds)
    accepted = WRONG_VERDICTS + (1 - 2 * WRONG_VERDICTS) * p
    log_weight = -0.5 * (SHIFTS / SHIFT_SIGMA) ** 2
    log_weight += np.log(accepted[:, label == "accepted"]).sum(axis=1)
    log_weight += np.log(1 - accepted[:, label == "rejected"]).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(4 * (weight / weight.sum()) @ (p * (1 - p)))
