"""False-discovery rates from decoys: known answers, and the promise on simulated scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.false_discovery import (
    estimate_fdr,
    fdr_interval,
    fdr_threshold,
    null_probability,
    q_values,
)


def draw(rng: np.random.Generator, true: int, false: int) -> tuple[Any, Any, Any]:
    """Scores of candidates, of their decoys, and which candidates are true; null pairs are exchangeable."""
    is_true = np.arange(true + false) < true
    place = rng.normal(-2.0, 0.8, true + false)
    pairs = place[:, None] + rng.normal(0, 0.6, (true + false, 2))
    return np.where(is_true, rng.normal(2.0, 1.5, true + false), pairs[:, 0]), pairs[:, 1], is_true


def test_known_answer() -> None:
    candidate, decoy = [5.0, 4.0, 3.0, 1.0], [0.0, 4.5, 1.0, 2.0]
    score, rate = estimate_fdr(candidate, decoy)
    assert score.tolist() == [5.0, 3.0]
    # One decoy, 4.5, is above 3; one more for the candidate that nobody has seen.
    assert rate.tolist() == [1.0, 1.0]
    assert q_values(candidate, decoy).tolist() == [1.0, 1.0, 1.0, 1.0]
    many = np.concatenate([np.full(40, 9.0), [4.0, 3.0]])
    assert q_values(many, np.concatenate([np.zeros(40), [5.0, 1.0]])).tolist() == [1 / 40] * 40 + [
        1.0,
        2 / 41,
    ]


def test_ties_are_decoys() -> None:
    score, _ = estimate_fdr([1.0, 2.0], [1.0, 1.0])
    assert score.tolist() == [2.0]


@pytest.mark.parametrize(
    ("candidates", "decoys", "expected"),
    # P(no more than k heads before the first tail) = 1 - 2^-(k+1) >= 0.975 from k = 5 on.
    [(100, 0, (0.0, 0.05)), (2, 0, (0.0, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_interval_of_known_coins(candidates: int, decoys: int, expected: tuple[float, float]) -> None:
    assert fdr_interval(candidates, decoys) == pytest.approx(expected)


def test_interval_covers_the_false_candidates() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        # Coins until the fifth decoy: as many false candidates as heads came first.
        false = int(rng.negative_binomial(5, 0.5))
        low, high = fdr_interval(200, 4)
        covered += low * 200 <= false <= high * 200
    assert covered >= 370


def test_rate_is_kept_on_average() -> None:
    rng = np.random.default_rng(2)
    asked, realised, found = 0.1, [], []
    for _ in range(60):
        candidate, decoy, is_true = draw(rng, 50, 120)
        chosen = fdr_threshold([candidate[::2], candidate[1::2]], [decoy[::2], decoy[1::2]], asked)
        assert chosen.promised
        kept = (candidate >= chosen.threshold) & (candidate > decoy)
        assert kept.sum() == chosen.candidates
        realised.append(np.sum(kept & ~is_true) / max(kept.sum(), 1))
        found.append(np.sum(kept & is_true) / 50)
    assert np.mean(realised) <= asked
    assert np.mean(found) > 0.8


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_threshold_follows_the_scale_of_the_scores(shift: float) -> None:
    candidate, decoy, _ = draw(np.random.default_rng(3), 60, 150)
    here = fdr_threshold([candidate], [decoy], 0.05)
    there = fdr_threshold([candidate + shift], [decoy + shift], 0.05)
    assert there.threshold == pytest.approx(here.threshold + shift, abs=1e-6)
    assert there.candidates == here.candidates


def test_nothing_but_false_candidates() -> None:
    candidate, decoy, _ = draw(np.random.default_rng(4), 0, 200)
    chosen = fdr_threshold([candidate], [decoy], 0.05, calibrated=1.2)
    assert not chosen.promised
    assert chosen.candidates <= 2


def test_few_candidates_promise_nothing() -> None:
    rng = np.random.default_rng(5)
    realised = []
    for _ in range(30):
        candidate, decoy, is_true = draw(rng, 8, 30)
        chosen = fdr_threshold([candidate], [decoy], 0.05)
        assert not chosen.promised
        assert chosen.note is not None
        assert "cannot be promised" in chosen.note
        assert chosen.note.endswith(".")
        kept = (candidate >= chosen.threshold) & (candidate > decoy)
        realised.append(np.sum(kept & ~is_true) / max(kept.sum(), 1))
    assert np.mean(realised) <= 0.05
    assert fdr_threshold([], [], 0.05).candidates == 0


def test_no_candidate() -> None:
    chosen = fdr_threshold([[]], [[]], 0.05)
    assert (chosen.candidates, chosen.compared, chosen.promised) == (0, 0, False)
    assert chosen.to_dict()["threshold"] is None


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_q_values_order_as_the_scores(seed: int) -> None:
    candidate, decoy, _ = draw(np.random.default_rng(seed), 20, 30)
    q = q_values(candidate, decoy)
    wins = candidate > decoy
    order = np.argsort(-candidate[wins], kind="stable")
    assert np.all(np.diff(q[wins][order]) >= 0)
    assert np.all(q[~wins] == 1)
    chosen = fdr_threshold([candidate], [decoy], 0.2)
    assert chosen.promised == bool((q <= 0.2).any())


def test_probability_of_a_false_candidate_falls_with_the_score() -> None:
    candidate, decoy, _ = draw(np.random.default_rng(6), 60, 150)
    at = np.linspace(-6, 6, 30)
    probability = null_probability(candidate, decoy, at)
    assert np.all(np.diff(probability) <= 0)
    assert probability[0] > 0.9
    assert probability[-1] < 0.01


def test_invalid_arguments_are_refused() -> None:
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="max_fdr"):
            fdr_threshold([[1.0]], [[0.0]], rate)
    with pytest.raises(InputError, match="one decoy for each"):
        fdr_threshold([[1.0, 2.0]], [[0.0]], 0.05)
    with pytest.raises(InputError, match="tomograms"):
        fdr_threshold([[1.0]], [], 0.05)
