"""Calibration of scores to probabilities, and thresholds for a given precision or recall."""

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
    cross_validate,
    fit_calibration,
    read_calibration,
)
from t3ssfast.models import load_model


def simulated_scores(seed: int, n: int = 2000, tomograms: int = 20) -> Any:
    """Scores, outcomes (true with probability expit(2 logit(score) - 1)), and tomograms."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.1, 0.99, n)
    true = rng.random(n) < expit(2 * logit(score) - 1)
    return score, true, rng.integers(0, tomograms, n)


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_scores_are_probabilities_on_new_data(method: str) -> None:
    score, true, tomogram = simulated_scores(0)
    curve = fit_calibration(score, true, tomogram, 2 * true.sum(), method=method)
    other, outcome, _ = simulated_scores(1)
    assert expected_calibration_error(other, outcome) > 0.1
    assert expected_calibration_error(curve.apply(other), outcome) < 0.05
    np.testing.assert_allclose(curve.apply(other), expit(2 * logit(other) - 1), atol=0.12)


def test_auto_selects_platt_for_logistic_data() -> None:
    score, true, tomogram = simulated_scores(2, n=20_000)
    curve = fit_calibration(score, true, tomogram, true.sum())
    assert curve.method == "platt"
    np.testing.assert_allclose(curve.apply(score), expit(2 * logit(score) - 1), atol=0.02)


def other_tomograms(seed: int, shift: float, n: int, low: float, high: float) -> Any:
    """As `simulated_scores`, between two log-odds, where the same score means less by a shift in log-odds."""
    rng = np.random.default_rng(seed)
    log_odds = rng.uniform(low, high, n)
    return expit(log_odds), rng.random(n) < expit(2 * (log_odds - shift) - 1), np.arange(n) % 2


def test_few_uncertain_candidates_leave_the_slope_to_the_prior() -> None:
    prior = fit_calibration(*simulated_scores(4), 1000)
    hopeless, certain = expit([-6.0, 3.0])
    for seed in range(20):
        score, true, fold = other_tomograms(seed, -2.0, 14, -2.5, -0.5)
        if not 3 <= true.sum() <= 11:
            continue
        curve = fit_calibration(score, true, fold, 14, method="platt", prior=prior)
        assert curve.apply(np.array([hopeless]))[0] < 0.02
        assert curve.apply(np.array([certain]))[0] > 0.98
        # The even odds are at -1.5.
        middle = np.interp(0.5, curve.probability, logit(np.asarray(curve.score)))
        assert middle == pytest.approx(-1.5, abs=0.8)


def test_many_candidates_outweigh_the_prior() -> None:
    prior = fit_calibration(*simulated_scores(5), 1000)
    score, true, fold = other_tomograms(6, 3.0, 20_000, -3, 7)
    with_prior, without = (
        fit_calibration(score, true, fold, 20_000, method="platt", prior=given) for given in (prior, None)
    )
    np.testing.assert_allclose(with_prior.apply(score), without.apply(score), atol=0.01)
    # A prior of two points, as of steps, is a line, too.
    steps = Calibration("isotonic", (0.0, 0.5, 1.0), (0.0, 0.3, 1.0), (0.5,), (1.0,), (1.0,))
    assert fit_calibration(score, true, fold, 20_000, method="platt", prior=steps).method == "platt"


def test_auto_selects_isotonic_only_if_clearly_better(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score = rng.uniform(0, 1, 4000)
    true = rng.random(4000) < np.where(score < 0.3, 0.02, np.where(score < 0.8, 0.6, 0.65))
    tomogram = rng.integers(0, 9, 4000)
    curve = fit_calibration(score, true, tomogram, int(true.sum()))
    assert curve.method == "isotonic"
    assert curve.metrics["log_loss_isotonic"] < curve.metrics["log_loss_platt"]
    np.testing.assert_allclose(curve.apply([0.1, 0.5, 0.95]), [0.02, 0.6, 0.65], atol=0.08)
    monkeypatch.setattr("t3ssfast.evaluation.calibration.MIN_ISOTONIC_GAIN", 0.9)
    assert fit_calibration(score, true, tomogram, int(true.sum())).method == "platt"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(8, 300), st.sampled_from(METHODS))
def test_curves_are_monotonic(seed: int, n: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    # Rounding creates ties.
    score = np.round(rng.random(n), rng.integers(1, 6))
    true = rng.random(n) < score
    true[:2] = [True, False]
    tomogram = np.arange(n) % 3
    curve = fit_calibration(score, true, tomogram, n, method=method)
    grid = np.linspace(0, 1, 999)
    assert (np.diff(curve.apply(grid)) >= 0).all()
    assert 0 <= curve.apply(grid).min() <= curve.apply(grid).max() <= 1
    for probability in rng.random(5):
        lowest = curve.score_for_probability(probability)
        assert (curve.apply(grid[grid >= lowest + 1e-6]) >= probability - 1e-5).all()
        assert (curve.apply(grid[grid < lowest - 1e-6]) <= probability + 1e-5).all()
    assert (np.diff(curve.precision) >= 0).all()
    assert (np.diff(curve.recall) <= 0).all()


def test_target_precision_and_recall_are_reached_on_new_data() -> None:
    score, true, tomogram = simulated_scores(4, n=4000)
    curve = fit_calibration(score, true, tomogram, true.sum())
    other, outcome, _ = simulated_scores(5, n=4000)
    for target in (0.7, 0.9, 0.95):
        chosen = other >= curve.score_for_precision(target)
        assert outcome[chosen].mean() == pytest.approx(target, abs=0.03)
        chosen = other >= curve.score_for_recall(target)
        assert outcome[chosen].sum() / outcome.sum() == pytest.approx(target, abs=0.03)


def test_cross_validation_excludes_the_own_tomogram() -> None:
    score, true, tomogram = simulated_scores(6, n=300, tomograms=5)
    for method in METHODS:
        before = cross_validate(score, true, tomogram, method)
        flipped = np.where(tomogram == 2, ~true, true)
        after = cross_validate(score, flipped, tomogram, method)
        np.testing.assert_array_equal(before[tomogram == 2], after[tomogram == 2])
        assert not np.array_equal(before[tomogram != 2], after[tomogram != 2])


def test_calibrate_from_candidates_and_truth() -> None:
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


def test_json_round_trip() -> None:
    score, true, tomogram = simulated_scores(8, n=100)
    curve = fit_calibration(score, true, tomogram, 80)
    assert Calibration.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve
    assert read_calibration(None) is None


def test_metrics_key_of_earlier_versions_is_read() -> None:
    curve = fit_calibration(*simulated_scores(8, n=100), 80)
    entries = curve.to_dict()
    entries["figures"] = entries.pop("metrics")
    assert Calibration.from_dict(entries) == curve
    bundled = load_model(None, model_kind="classifier").metadata.calibration
    assert bundled is not None
    assert "calibration_error_after" in Calibration.from_dict(bundled).metrics


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
def test_invalid_calibrations_are_refused(change: dict[str, Any]) -> None:
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
    ("score", "true", "tomogram", "message"),
    [
        ([0.5, 0.6], [1, 1], [0, 1], "0 false"),
        ([0.5, 0.6], [0, 0], [0, 1], "0 true"),
        ([0.5, 0.6], [1, 0], [0, 0], "1 tomograms"),
        ([], [], [], "0 true"),
    ],
)
def test_too_little_data_is_refused(score: Any, true: Any, tomogram: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_calibration(score, true, tomogram, 2)
    with pytest.raises(ConfigError, match="method"):
        fit_calibration(score, true, tomogram, 2, method="guess")


def test_promised_precision_is_a_lower_bound() -> None:
    rng = np.random.default_rng(0)

    def draw(tomograms: int) -> tuple[Any, Any, Any]:
        # Tomograms differ in the scores of their false candidates, which makes few of them uncertain.
        tomogram = np.repeat(np.arange(tomograms), 40)
        true = rng.random(len(tomogram)) < 0.25
        low = rng.normal(-2.5, 1.2, len(true)) + rng.normal(0, 0.8, tomograms)[tomogram]
        return expit(np.where(true, rng.normal(3, 1.5, len(true)), low)), true, tomogram

    new, new_true, _ = draw(1000)
    for _ in range(8):
        score, true, tomogram = draw(32)
        fitted = fit_calibration(score, true, tomogram, int(true.sum()), method="platt")
        assert np.all(np.asarray(fitted.precision_low) <= np.asarray(fitted.precision))
        assert new_true[new >= fitted.score_for_precision(0.9)].mean() >= 0.9


def test_picking_threshold_of_a_configuration() -> None:
    curve = Calibration(
        "platt", (0.0, 1.0), (0.0, 0.9), (0.2, 0.5, 0.8), (0.7, 0.9, 1.0), (0.99, 0.95, 0.5), truth=10**6
    )
    assert picking_threshold(None, DetectConfig(score_threshold=0.4)) == 0.4
    assert picking_threshold(curve, DetectConfig(score_threshold=0.45)) == pytest.approx(0.5)
    assert picking_threshold(curve, DetectConfig(score_threshold=0.0)) == 0.0
    assert picking_threshold(curve, DetectConfig(score_threshold=1.0)) > 1
    assert picking_threshold(curve, DetectConfig(min_precision=0.899)) == 0.5
    # The lower bound of the precision at 0.5 is below 0.9.
    assert picking_threshold(curve, DetectConfig(min_precision=0.9)) == 0.8
    assert picking_threshold(curve, DetectConfig(min_precision=0.5)) == 0.2
    assert picking_threshold(curve, DetectConfig(min_recall=0.95)) == 0.5
    for options in ({"min_precision": 0.9}, {"min_recall": 0.9}):
        with pytest.raises(ModelError, match="has no calibration"):
            picking_threshold(None, DetectConfig(**options))
    with pytest.raises(ConfigError, match="one of the two"):
        DetectConfig(min_precision=0.9, min_recall=0.9)
    with pytest.raises(ConfigError, match="min_recall"):
        DetectConfig(min_recall=0.0)
