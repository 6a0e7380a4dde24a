"""Preselection: rules over window statistics, learned from picks and applied to masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import t3ssfast as t3
from t3ssfast.cli import app
from t3ssfast.errors import InputError, ModelError
from t3ssfast.preselect import (
    DEFAULT_STATISTICS,
    PreselectRule,
    apply_rule,
    learn_rule,
    rule_keeps,
)
from t3ssfast.statistics import window_statistics
from t3ssfast.types import DetectConfig
from t3ssfast.windows import pad_for_windows
from toy import VOXEL, save_toy_models, toy_tomogram

NAMES = ("mean", "std", "min")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 400), st.floats(0.5, 1.0), st.floats(0.0, 1.0))
def test_a_rule_keeps_as_many_positives_as_it_promises(seed: int, n: int, keep: float, margin: float) -> None:
    rng = np.random.default_rng(seed)
    positives = rng.standard_t(2, size=(3, n)) * [[1.0], [100.0], [1e-3]] + [[0.0], [1e4], [-5.0]]
    rule = learn_rule(positives, NAMES, keep=keep, margin=margin)
    kept = rule_keeps(rule, positives)
    assert kept.mean() >= keep
    assert rule.positives_kept == pytest.approx(kept.mean())
    assert rule.positives == n


def test_a_rule_is_tight_where_it_may_be_and_says_what_it_drops() -> None:
    rng = np.random.default_rng(0)
    positives = rng.normal(size=(3, 2000))
    negatives = rng.normal(size=(3, 5000)) + np.array([[4.0], [0.0], [0.0]])
    rule = learn_rule(positives, NAMES, negatives, keep=0.95, margin=0.0)
    assert 0.95 <= rule.positives_kept < 0.96
    assert rule.negatives == 5000
    assert rule.negatives_kept is not None
    assert rule.negatives_kept < 0.1
    assert rule.negatives_kept == rule_keeps(rule, negatives).mean()
    # Outliers among the picks do not open the bounds.
    spoilt = positives.copy()
    spoilt[0, :5] = 1e6
    assert learn_rule(spoilt, NAMES, keep=0.95).high[0] < 10
    wider = learn_rule(positives, NAMES, keep=0.95, margin=1.0)
    np.testing.assert_allclose(np.subtract(wider.high, rule.high), 1.0, atol=0.1)
    np.testing.assert_allclose(np.subtract(rule.low, wider.low), 1.0, atol=0.1)


def test_a_rule_survives_json() -> None:
    rule = learn_rule(np.random.default_rng(0).normal(size=(3, 50)), NAMES, np.zeros((3, 4)), size=20)
    assert PreselectRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"size": 50, "statistics": ["mean"], "low": [0.0]},
        {"size": 50, "statistics": ["mean"], "low": [1.0], "high": [0.0]},
        {"size": 50, "statistics": ["mean"], "low": [0.0], "high": ["x"]},
        {"size": 50, "statistics": ["mean"], "low": [0.0], "high": [1.0], "new": 1},
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="learn it again"):
        PreselectRule.from_dict(entries)


@pytest.mark.parametrize(
    ("positives", "options", "words"),
    [
        (np.zeros((3, 0)), {}, "at least one window"),
        (np.zeros((2, 5)), {}, "3 names"),
        (np.full((3, 5), np.nan), {}, "not finite"),
        (np.zeros((3, 5)), {"keep": 0.0}, "keep"),
        (np.zeros((3, 5)), {"margin": -1.0}, "margin"),
    ],
)
def test_a_rule_cannot_be_learned_from_nonsense(
    positives: np.ndarray, options: dict[str, float], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        learn_rule(positives, NAMES, **options)


@pytest.mark.parametrize("size", [11, 12])
def test_a_mask_shrinks_to_the_windows_that_pass(size: int) -> None:
    rng = np.random.default_rng(1)
    slab = rng.normal(size=(2, 40, 45)).astype(np.float32)
    mask = rng.random(slab.shape) < 0.3
    rule = PreselectRule(size, NAMES, (-0.05, 0.9, -3.5), (0.1, 1.02, -2.0))
    padded = pad_for_windows(slab, size)
    kept = apply_rule(rule, padded, mask)
    assert kept.dtype == bool
    assert 0 < kept.sum() < mask.sum()
    assert not (kept & ~mask).any()
    for n, y, x in np.argwhere(mask):
        # The window centred at (y, x) of the slab begins at (y, x) of the padded slice.
        window = padded[n, y : y + size, x : x + size].astype(np.float64)
        assert window[size // 2, size // 2] == slab[n, y, x]
        values = np.array([[window.mean()], [window.std()], [window.min()]])
        assert kept[n, y, x] == rule_keeps(rule, values)[0]
    assert not apply_rule(rule, padded, np.zeros_like(mask)).any()
    single = apply_rule(rule, padded[0], mask[0].astype(np.uint8))
    np.testing.assert_array_equal(single, kept[0])


def test_constant_windows_never_pass() -> None:
    rule = PreselectRule(10, ("skewness",), (-9.0,), (9.0,))
    assert not apply_rule(rule, np.ones((1, 20, 20), np.float32), np.ones((1, 11, 11), bool)).any()


def test_picks_teach_which_windows_are_worth_a_look(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    mask, rule = t3.preselect(tomogram, membrane, truth, classifier=classifier)
    assert mask.shape == tomogram.shape
    assert mask.dtype == np.uint8
    assert rule.statistics == DEFAULT_STATISTICS
    assert rule.positives_kept >= 0.995
    assert rule.negatives_kept is not None
    assert rule.negatives_kept < 0.7
    for z, y, x in np.round(truth.centre_zyx).astype(int):
        assert mask[z - 2 : z + 3, y - 1 : y + 2, x - 1 : x + 2].mean() > 0.9
    # The rule, carried by a classifier, gives the same mask, and is used in detection.
    _, carrying = save_toy_models(tmp_path, preselect=rule.to_dict())
    again, carried = t3.preselect(tomogram, membrane, classifier=carrying)
    assert carried == rule
    np.testing.assert_array_equal(again, mask)
    options = {"membrane": membrane, "classifier": carrying, "device": "cpu", "progress": False}
    chosen = t3.detect(tomogram, **options)
    every = t3.detect(tomogram, **options, config=DetectConfig(preselect=False))
    assert chosen.provenance["counts"]["windows_judged"] == int(mask.sum())
    assert every.provenance["counts"]["windows_judged"] == every.provenance["counts"]["windows_near_membrane"]
    assert t3.evaluate(chosen.candidates, truth, 120.0).f1 == 1
    assert t3.evaluate(chosen.candidates, every.candidates, 50.0).f1 == 1


def test_preselection_says_what_is_missing(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram(shape=(4, 110, 110))
    _, classifier = save_toy_models(tmp_path)
    with pytest.raises(ModelError, match="no preselection rule"):
        t3.preselect(tomogram, membrane, classifier=classifier)
    with pytest.raises(InputError, match="empty"):
        t3.preselect(tomogram, np.zeros_like(membrane), classifier=classifier)
    with pytest.raises(InputError, match="mask"):
        t3.preselect(tomogram, membrane[1:], classifier=classifier)
    with pytest.raises(InputError, match="picks"):
        t3.preselect(tomogram, membrane, truth[:0], classifier=classifier)


def test_the_command_writes_the_mask(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram(shape=(8, 110, 110))
    _, classifier = save_toy_models(tmp_path)
    t3.write(tmp_path / "t.mrc", tomogram.data, VOXEL)
    t3.write(tmp_path / "m.mrc", membrane, VOXEL)
    t3.export(truth, tmp_path / "picks.csv", "csv")
    files = [str(tmp_path / "t.mrc"), str(tmp_path / "m.mrc"), "--picks", str(tmp_path / "picks.csv")]
    options = ["-o", str(tmp_path / "w.mrc"), "--classifier", str(classifier)]
    result = CliRunner().invoke(app, ["preselect", *files, *options, "--json"])
    assert result.exit_code == 0, result.output
    rule = PreselectRule.from_dict(json.loads(result.stdout))
    expected, learned = t3.preselect(tomogram, membrane, truth, classifier=classifier)
    assert rule == learned
    np.testing.assert_array_equal(t3.read(tmp_path / "w.mrc").data, expected)
    assert "window centres" in CliRunner().invoke(app, ["preselect", *files, *options]).output
    wrong = CliRunner().invoke(app, ["preselect", *files, *options, "--contrast", "blue"])
    assert wrong.exit_code == 1


def test_statistics_of_padded_slices_are_those_of_every_voxel() -> None:
    slab = np.random.default_rng(0).normal(size=(1, 30, 31)).astype(np.float32)
    assert window_statistics(pad_for_windows(slab, 14), 14, ("mean",)).shape == (1, 1, 30, 31)
