"""Rejection of outliers: two groups of scores are told apart, one group is kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.averaging.reject_outliers import reject_outliers


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(20, 200), st.floats(0.05, 0.6))
def test_lower_group_is_rejected(seed, count, fraction):
    rng = np.random.default_rng(seed)
    n_low = max(3, int(fraction * count))
    scores = np.r_[rng.normal(0.15, 0.03, n_low), rng.normal(0.4, 0.03, count)]
    kept = reject_outliers(scores)
    assert (~kept[:n_low]).mean() > 0.9
    assert kept[n_low:].mean() > 0.95
    assert kept[scores.argmax()]


def test_single_group_is_kept():
    kept = [
        reject_outliers(np.random.default_rng([seed, count]).normal(0.3, 0.05, count)).mean()
        for seed in range(100)
        for count in (1, 11, 12, 16, 20, 30, 60, 200)
    ]
    # The evidence for two groups is very strong in about one of two thousand.
    assert np.mean(np.array(kept) <= 0.95) < 0.003
    assert reject_outliers(np.random.default_rng(1661).normal(0.3, 0.05, 23)).all()


def test_few_or_equal_scores_are_kept():
    assert reject_outliers([]).shape == (0,)
    assert reject_outliers([0.1] * 5 + [0.9] * 6).all()
    assert reject_outliers([0.3] * 50).all()
