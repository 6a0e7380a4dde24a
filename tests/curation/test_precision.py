"""Precision from verdicts on a random share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

import t3ssfast as t3
from t3ssfast.errors import InputError


def judged(make_candidates, accepted, rejected, unsure=0, others=10):
    labels = ["accepted"] * accepted + ["rejected"] * rejected + ["unsure"] * unsure
    n = len(labels) + others
    chosen = ["random"] * len(labels) + ["uncertain"] * others
    label = labels + ["rejected"] * others
    return make_candidates(n, label=label, details={"chosen_by": np.array(chosen)})


def test_interval_of_the_documented_example(make_candidates):
    estimate = t3.estimate_precision(judged(make_candidates, 35, 3, unsure=2))
    assert str(estimate) == (
        "of 38 candidates looked at, 35 were accepted (2 more are unsure): precision 0.79-0.98"
    )
    assert estimate.precision == pytest.approx(35 / 38)
    # Clopper and Pearson's limits are quantiles of beta distributions.
    assert estimate.low == pytest.approx(beta.ppf(0.025, 35, 4))
    assert estimate.high == pytest.approx(beta.ppf(0.975, 36, 3))


def test_only_the_random_share_above_the_score_counts(make_candidates):
    some = judged(make_candidates, 6, 4)
    limit = float(some.score[4])
    estimate = t3.estimate_precision([some[:7], some[7:]], min_score=limit)
    assert (estimate.accepted, estimate.rejected) == (5, 0)
    assert estimate.high == 1


def test_nothing_at_random_is_an_error(make_candidates):
    with pytest.raises(InputError, match="drawn at random"):
        t3.estimate_precision(make_candidates(5, label=["accepted"] * 5))
    with pytest.raises(InputError, match="at least 2"):
        t3.estimate_precision(judged(make_candidates, 5, 5), min_score=2)
    with pytest.raises(InputError, match="drawn at random"):
        t3.estimate_precision([])


def test_interval_covers_the_true_precision(make_candidates):
    rng = np.random.default_rng(1)
    some, truth = judged(make_candidates, 30, 0, others=0), 0.85
    covered = 0
    for _ in range(60):
        label = np.where(rng.random(30) < truth, "accepted", "rejected")
        estimate = t3.estimate_precision(replace(some, label=label))
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 0.9 * 60
