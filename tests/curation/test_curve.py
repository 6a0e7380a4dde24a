"""Labels against F1: what the annotator judges, and how a curve is measured in pieces."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.curation import curve
from t3ssfast.curation.curve import STRATEGIES, CurveSettings, curate_curve, verdicts_on
from t3ssfast.errors import ConfigError, InputError, ReadError


@pytest.fixture
def pool(make_candidates):
    """Return candidates of two tomograms, and which of them are true: those with the higher scores."""
    shown = [make_candidates(60, seed=seed, tomogram_name=f"TS_{seed}") for seed in (1, 2)]
    return shown, [some.score > 0.5 for some in shown]


def labels_of(picks):
    return np.concatenate([some.label for some in picks])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_so_many_candidates_are_judged(strategy, pool):
    shown, true = pool
    labels = labels_of(verdicts_on(shown, true, strategy, 20, 0, wrong=0))
    assert (labels != "").sum() == 20
    truth = np.concatenate(true)
    assert (labels[truth] != "rejected").all()
    assert (labels[~truth] != "accepted").all()


def test_strategies_choose_what_they_say(pool):
    shown, true = pool
    score = np.concatenate([some.score for some in shown])
    best, suggested, random = (
        labels_of(verdicts_on(shown, true, name, 20, 0)) != ""
        for name in ("best-first", "suggested", "random")
    )
    assert score[best].min() >= score[~best].max()
    assert np.abs(score[suggested] - 0.5).mean() < np.abs(score[random] - 0.5).mean()
    more = labels_of(verdicts_on(shown, true, "random", 40, 0)) != ""
    assert more[random].all(), "fewer random candidates are a part of more"
    other = labels_of(verdicts_on(shown, true, "random", 20, 1)) != ""
    assert (other != random).any()


def test_a_share_of_the_verdicts_is_wrong_whoever_chose(pool):
    shown, true = pool
    truth = np.concatenate(true)
    wrong = []
    for strategy in STRATEGIES:
        labels = labels_of(verdicts_on(shown, true, strategy, 120, 3, wrong=0.2))
        wrong.append((labels == "accepted") != truth)
    assert 10 <= wrong[0].sum() <= 40
    np.testing.assert_array_equal(wrong[0], wrong[1])
    np.testing.assert_array_equal(wrong[0], wrong[2])


@pytest.fixture
def quick(pool, monkeypatch):
    """Replace tomograms and fine-tuning; return the verdicts of every fine-tuning."""
    shown, true = pool
    tuned = []

    class Domain:
        def __init__(self, name, count, seed, bench):
            self.made = [SimpleNamespace(tomogram=some.tomogram_name, membrane=None) for some in shown]
            self.shown, self.true, self.found = shown, true, shown

        def metrics(self, verifier):
            return {
                "f1": verifier,
                "precision": 1.0,
                "recall": 0.5,
                "best_f1": 0.9,
                "average_precision": 0.8,
            }

    def fine_tune(tomograms, picks, out, *, seed, **options):
        labels = labels_of(picks).tolist()
        tuned.append((out.name, seed, options["folds"], options["steps"]))
        if labels.count("rejected") < 3:
            raise InputError("too few are rejected")
        return len(tuned)

    monkeypatch.setattr(curve, "_Domain", Domain)
    monkeypatch.setattr(curve, "fine_tune_verifier", fine_tune)
    monkeypatch.setattr(curve, "load_model", lambda path, model_kind: 0.4 if path is None else 0.7)
    return tuned


def test_a_curve_is_measured_in_pieces(quick, tmp_path):
    settings = CurveSettings(2, 2, folds=2, steps=5)
    options = {"labels": (8, 16), "seeds": (0, 1), "settings": settings}
    counts = [len(curate_curve(tmp_path, limit=4, **options)) for _ in range(4)]
    assert counts == [4, 8, 12, 13]
    # No more is done once all points are there, and other labels are added to them.
    assert len(quick) == 12
    assert len(set(quick)) == 12
    assert {entry[2:] for entry in quick} == {(2, 5)}
    rows = curate_curve(tmp_path, labels=(32,), settings=settings)
    assert len(rows) == 16
    assert [row["labels"] for row in rows] == sorted(row["labels"] for row in rows)
    assert rows[0]["strategy"] == "none"
    assert rows[0]["f1"] == 0.4
    table = (tmp_path / "curve.csv").read_text().splitlines()
    assert len(table) == 17


def test_refused_verdicts_leave_the_bundled_verifier(quick, tmp_path):
    rows = curate_curve(tmp_path, labels=(8,))
    by_name = {row["strategy"]: row for row in rows}
    assert by_name["best-first"]["refused"]
    assert by_name["best-first"]["f1"] == by_name["none"]["f1"] == 0.4
    assert by_name["suggested"]["f1"] == 0.7
    assert "refused" not in by_name["suggested"]


def test_points_of_other_settings_are_not_mixed(quick, tmp_path):
    curate_curve(tmp_path, labels=(8,), limit=1)
    with pytest.raises(ConfigError, match="another folder"):
        curate_curve(tmp_path, labels=(8,), settings=CurveSettings(steps=5))
    with pytest.raises(ConfigError, match=r"\[5\]; give at least 6"):
        curate_curve(tmp_path, labels=(5,))
    with pytest.raises(ConfigError, match="another folder"):
        curate_curve(tmp_path, labels=(8,), settings=CurveSettings(domain="2 um defocus"))
    with pytest.raises(ConfigError, match=r"The domain is 'moon'; give one of 'few.*'2 um defocus'"):
        CurveSettings(domain="moon")
    (tmp_path / "point_none_0_0.json").write_text("{")
    with pytest.raises(ReadError, match="remove it"):
        curate_curve(tmp_path, labels=(8,), limit=1)


def test_command(quick, tmp_path):
    arguments = ["curate-curve", "-o", str(tmp_path), "--labels", "8", "--seed", "1", "--seed", "2"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["strategy"], row["seed"]) for row in rows][:3] == [
        ("none", 0),
        ("suggested", 1),
        ("suggested", 2),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "(refused)" in result.stdout
