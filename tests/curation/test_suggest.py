"""Suggestions: what is chosen and why, and that the random share stays random."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import t3ssfast as t3
from command_line import CliRunner
from result_folders import make_results
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.curation.suggest import choose_next
from t3ssfast.errors import ConfigError, InputError


def pool(scores, name="a", label=None, **details):
    n = len(scores)
    centre = np.stack([np.arange(n) * 20.0, np.zeros(n), np.zeros(n)], axis=1)
    return Candidates(
        centre, scores, np.tile([1.0, 0, 0], (n, 1)), 10.0, None, name, label=label, details=details
    )


def test_least_certain_scores_are_chosen_first():
    scores = np.linspace(0.01, 0.99, 50)
    (reason,) = choose_next([pool(scores)], 6, random_share=0)
    assert set(np.flatnonzero(reason == "uncertain")) == {22, 23, 24, 25, 26, 27}


@pytest.mark.parametrize(
    ("scores", "verdict", "lower"), [((0.03, 0.1), "accepted", True), ((0.9, 0.97), "rejected", False)]
)
def test_verdicts_tell_where_the_next_ones_are(scores, verdict, lower):
    """Scores that are too low or too high for the tomograms at hand: the middle is elsewhere."""
    others = np.linspace(0.01, 0.99, 50)
    values = np.concatenate([others, np.linspace(*scores, 6)])
    label = np.array([""] * 50 + [verdict] * 6)
    (reason,) = choose_next([pool(values, label=label)], 6, random_share=0)
    chosen = values[(reason != "") & (label == "")]
    assert len(chosen) == 6
    assert (np.median(chosen) < 0.25) if lower else (np.median(chosen) > 0.75)


def test_a_few_wrong_verdicts_move_little():
    values = np.concatenate([np.linspace(0.01, 0.99, 50), np.full(10, 0.99), np.full(10, 0.01), [0.99]])
    label = np.array([""] * 50 + ["accepted"] * 10 + ["rejected"] * 11)
    (reason,) = choose_next([pool(values, label=label)], 6, random_share=0)
    assert values[(reason != "") & (label == "")].mean() == pytest.approx(0.5, abs=0.2)


def test_models_that_disagree_are_chosen_where_the_score_is_certain():
    classifier, verifier = np.linspace(0, 1, 40), np.linspace(0, 1, 40)
    verifier[[3, 36]] = verifier[[36, 3]]
    some = pool(np.full(40, 0.999), classifier_score=classifier, verifier_score=verifier)
    (reason,) = choose_next([some], 2, random_share=0)
    assert np.flatnonzero(reason == "disagreement").tolist() == [3, 36]


def test_choices_spread_over_tomograms_and_kinds():
    doubtful, less = pool(np.full(40, 0.5), "a"), pool(np.full(5, 0.8), "b")
    reasons = choose_next([doubtful, less], 12, random_share=0)
    counts = [int((reason != "").sum()) for reason in reasons]
    assert counts[1] >= 4
    assert "diverse" in reasons[1]
    kinds = replace(doubtful, kind=["t3ss"] * 36 + ["flagellar_motor"] * 4)
    (reason,) = choose_next([kinds], 8, random_share=0)
    assert (reason[36:] != "").sum() == 4


def test_random_share_is_uniform_and_grows_with_later_calls():
    """Also where the doubtful ones were judged before, every candidate is drawn equally often."""
    n, rounds = 30, 400
    counts = np.zeros(n)
    scores = np.linspace(0.01, 0.99, n)
    for seed in range(rounds):
        some = pool(scores)
        (first,) = choose_next([some], 8, random_share=0.5, seed=seed)
        label = np.where(first != "", "accepted", "")
        judged = replace(some, label=label, details={"chosen_by": first})
        (second,) = choose_next([judged], 8, random_share=0.5, seed=seed)
        assert set(np.flatnonzero(first == "random")) <= set(np.flatnonzero(second == "random"))
        assert ((second != "") & (label == "")).sum() == 8
        counts += second == "random"
    expected = counts.sum() / n
    # Of 30 counts with a standard deviation of sqrt(400 p (1 - p)), none is 4.5 of them away.
    spread = np.sqrt(rounds * (expected / rounds) * (1 - expected / rounds))
    assert np.abs(counts - expected).max() < 4.5 * spread
    # The chance does not depend on the score.
    doubtful = np.abs(scores - 0.5) < 0.15
    assert counts[doubtful].mean() == pytest.approx(counts[~doubtful].mean(), rel=0.08)


def test_options_out_of_bounds_and_nothing_left():
    with pytest.raises(ConfigError, match="n is 0"):
        choose_next([pool([0.5])], 0)
    with pytest.raises(ConfigError, match="random_share is 2"):
        choose_next([pool([0.5])], 1, random_share=2)
    with pytest.raises(InputError, match="None of the 1 candidates"):
        choose_next([pool([0.5], label=["accepted"])], 5)
    with pytest.raises(InputError, match="None of the 0 candidates"):
        choose_next([], 5)
    (reason,) = choose_next([pool([0.5, 0.6])], 100)
    assert (reason != "").all()


def test_suggestions_keep_what_was_judged_and_added(tmp_path):
    candidates = make_results(tmp_path / "out", 10)
    added = replace(candidates[:1], centre_zyx=[[20.0, 55.0, 5.0]], label=["accepted"], details={})
    judged = replace(candidates[:3], label=["accepted", "rejected", "unsure"], details={})
    t3.save_curation(judged.joined(added), tmp_path / "v.json")
    (chosen,) = t3.suggest(tmp_path / "out", 4, curation=tmp_path / "v.json")
    assert (chosen.label == "").sum() == 4
    assert sorted(chosen.label[chosen.label != ""]) == ["accepted", "accepted", "rejected", "unsure"]
    path = t3.save_curation(chosen, tmp_path / "next.csv")
    (again,) = t3.suggest(tmp_path / "out", 4, curation=path)
    assert len(again) == len(chosen)


def test_command(tmp_path):
    make_results(tmp_path / "out", 12)
    out = tmp_path / "s.json"
    arguments = ["suggest", str(tmp_path / "out"), "-n", "8", "-o", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["suggested"] == sum(printed["reasons"].values()) == 8
    assert printed["reasons"]["random"] == 2
    (read,) = t3.load_all_curations(out)
    assert len(read) == 8
    judged = replace(read, label=["accepted"] * 8)
    t3.save_curation(judged, out)
    result = CliRunner().invoke(app, [*arguments, "-c", str(out)])
    assert result.exit_code == 0, result.output
    assert re.search(r"of (\d) candidates looked at, \1 were accepted", result.stdout)
    result = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "x.txt")])
    assert result.exit_code == 1
    assert "suffix" in result.stderr
