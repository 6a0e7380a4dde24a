"""Calibration: that a score becomes a probability, and that a wanted precision or recall is kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from t3ssfast.candidates import Candidates
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.evaluation import expected_calibration_error
from t3ssfast.evaluation.calibration import (
    METHODS,
    Calibration,
    calibrate,
    cross_calibrated,
    fit_calibration,
    read_calibration,
)


def drawn(seed: int, n: int = 2000, slope: float = 2.0, offset: float = -1.0, tomograms: int = 20) -> Any:
    """Scores, whether they are true (with probability expit(slope logit(score) + offset)), and tomograms."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.1, 0.99, n)
    true = rng.random(n) < expit(slope * logit(score) + offset)
    return score, true, rng.integers(0, tomograms, n)


@pytest.mark.parametrize("method", METHODS)
def test_a_calibrated_score_is_a_probability_on_other_data(method: str) -> None:
    score, true, tomogram = drawn(0)
    curve = fit_calibration(score, true, tomogram, 2 * true.sum(), method=method)
    other, outcome, _ = drawn(1)
    assert expected_calibration_error(other, outcome) > 0.1
    assert expected_calibration_error(curve.apply(other), outcome) < 0.05
    np.testing.assert_allclose(curve.apply(other), expit(2 * logit(other) - 1), atol=0.12)


def test_a_logistic_curve_is_found_where_there_is_one() -> None:
    score, true, tomogram = drawn(2, n=20_000)
    curve = fit_calibration(score, true, tomogram, true.sum())
    assert curve.method == "platt"
    np.testing.assert_allclose(curve.apply(score), expit(2 * logit(score) - 1), atol=0.02)


def test_steps_are_found_where_a_logistic_curve_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score = rng.uniform(0, 1, 4000)
    true = rng.random(4000) < np.where(score < 0.3, 0.02, np.where(score < 0.8, 0.6, 0.65))
    tomogram = rng.integers(0, 9, 4000)
    curve = fit_calibration(score, true, tomogram, int(true.sum()))
    assert curve.method == "isotonic"
    assert curve.figures["log_loss_isotonic"] < curve.figures["log_loss_platt"]
    np.testing.assert_allclose(curve.apply([0.1, 0.5, 0.95]), [0.02, 0.6, 0.65], atol=0.08)
    # Better is not enough: it must be clearly so.
    monkeypatch.setattr("t3ssfast.evaluation.calibration.CLEARLY", 0.9)
    assert fit_calibration(score, true, tomogram, int(true.sum())).method == "platt"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(8, 300), st.sampled_from(METHODS))
def test_a_curve_never_falls_and_keeps_the_order(seed: int, n: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    # Ties included.
    score = np.round(rng.random(n), rng.integers(1, 6))
    true = rng.random(n) < score
    true[:2] = [True, False]
    tomogram = np.arange(n) % 3
    curve = fit_calibration(score, true, tomogram, n, method=method)
    grid = np.linspace(0, 1, 999)
    assert (np.diff(curve.apply(grid)) >= 0).all()
    assert 0 <= curve.apply(grid).min() <= curve.apply(grid).max() <= 1
    for probability in rng.random(5):
        lowest = curve.lowest_score(probability)
        assert (curve.apply(grid[grid >= lowest + 1e-6]) >= probability - 1e-5).all()
        assert (curve.apply(grid[grid < lowest - 1e-6]) <= probability + 1e-5).all()
    assert (np.diff(curve.precision) >= 0).all()
    assert (np.diff(curve.recall) <= 0).all()


def test_a_promise_is_kept_on_other_data() -> None:
    score, true, tomogram = drawn(4, n=4000)
    curve = fit_calibration(score, true, tomogram, true.sum())
    other, outcome, _ = drawn(5, n=4000)
    for wanted in (0.7, 0.9, 0.95):
        chosen = other >= curve.score_for_precision(wanted)
        assert outcome[chosen].mean() == pytest.approx(wanted, abs=0.03)
        chosen = other >= curve.score_for_recall(wanted)
        assert outcome[chosen].sum() / outcome.sum() == pytest.approx(wanted, abs=0.03)


def test_cross_calibration_never_sees_a_tomogram_it_judges() -> None:
    score, true, tomogram = drawn(6, n=300, tomograms=5)
    for method in METHODS:
        before = cross_calibrated(score, true, tomogram, method)
        turned = np.where(tomogram == 2, ~true, true)
        after = cross_calibrated(score, turned, tomogram, method)
        np.testing.assert_array_equal(before[tomogram == 2], after[tomogram == 2])
        assert not np.array_equal(before[tomogram != 2], after[tomogram != 2])


def test_candidates_and_truth_of_tomograms_are_enough() -> None:
    rng = np.random.default_rng(7)
    found, known = [], []
    for _ in range(6):
        true = rng.uniform(0, 300, (8, 3))
        false = rng.uniform(400, 900, (8, 3))
        score = np.concatenate([rng.uniform(0.4, 1, 6), rng.uniform(0.1, 0.6, 8)])
        centre = np.concatenate([true[:6], false])
        found.append(Candidates(centre, score, np.ones((14, 3)), 10.0))
        known.append(Candidates(true, np.ones(8), np.ones((8, 3)), 10.0))
    curve = calibrate(found, known)
    assert (curve.tomograms, curve.candidates, curve.truth) == (6, 84, 48)
    assert curve.recall[0] == pytest.approx(36 / 48, abs=0.05)
    assert curve.precision[0] == pytest.approx(36 / 84, abs=0.05)
    with pytest.raises(ConfigError, match=r"min_recall is 0\.95"):
        curve.score_for_recall(0.95)
    with pytest.raises(ConfigError, match="at most"):
        Calibration("platt", (0, 1), (0, 0.8), (0.5,), (0.8,), (0.9,)).score_for_precision(0.9)


def test_a_calibration_survives_json() -> None:
    score, true, tomogram = drawn(8, n=100)
    curve = fit_calibration(score, true, tomogram, 80)
    assert Calibration.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve
    assert read_calibration(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"score": [0.0]},
        {"score": [1.0, 0.0]},
        {"probability": [0.9, 0.1]},
        {"probability": ["x", 1.0]},
        {"precision": [0.9, 0.8]},
        {"recall": [0.8, 0.9]},
        {"threshold": []},
        {"unknown": 1},
    ],
)
def test_a_calibration_that_is_none_is_refused(change: dict[str, Any]) -> None:
    good = {
        "method": "platt",
        "score": [0.0, 1.0],
        "probability": [0.1, 0.9],
        "threshold": [0.2, 0.8],
        "precision": [0.8, 0.9],
        "recall": [0.9, 0.8],
    }
    read_calibration(good)
    with pytest.raises(ModelError, match="calibrate the model again"):
        read_calibration(good | change)


@pytest.mark.parametrize(
    ("score", "true", "tomogram", "words"),
    [
        ([0.5, 0.6], [1, 1], [0, 1], "0 false"),
        ([0.5, 0.6], [0, 0], [0, 1], "0 true"),
        ([0.5, 0.6], [1, 0], [0, 0], "1 tomograms"),
        ([], [], [], "0 true"),
    ],
)
def test_too_little_to_calibrate_with_is_said(score: Any, true: Any, tomogram: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_calibration(score, true, tomogram, 2)
    with pytest.raises(ConfigError, match="method"):
        fit_calibration(score, true, tomogram, 2, method="guess")


def test_the_threshold_is_what_a_configuration_wants() -> None:
    curve = Calibration("platt", (0.0, 1.0), (0.0, 0.9), (0.2, 0.5, 0.8), (0.7, 0.9, 1.0), (0.99, 0.95, 0.5))
    assert picking_threshold(None, DetectConfig(score_threshold=0.4)) == 0.4
    assert picking_threshold(curve, DetectConfig(score_threshold=0.45)) == pytest.approx(0.5)
    assert picking_threshold(curve, DetectConfig(score_threshold=0.0)) == 0.0
    assert picking_threshold(curve, DetectConfig(score_threshold=1.0)) > 1
    assert picking_threshold(curve, DetectConfig(min_precision=0.9)) == 0.5
    assert picking_threshold(curve, DetectConfig(min_precision=0.5)) == 0.2
    assert picking_threshold(curve, DetectConfig(min_recall=0.95)) == 0.5
    for options in ({"min_precision": 0.9}, {"min_recall": 0.9}):
        with pytest.raises(ModelError, match="carries no calibration"):
            picking_threshold(None, DetectConfig(**options))
    with pytest.raises(ConfigError, match="one of the two"):
        DetectConfig(min_precision=0.9, min_recall=0.9)
    with pytest.raises(ConfigError, match="min_recall"):
        DetectConfig(min_recall=0.0)
