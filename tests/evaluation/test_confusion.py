"""Confusion of the kinds of particles."""

from __future__ import annotations

import numpy as np
import pytest

from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.confusion import NONE, confusion_of_kinds
from t3ssfast.io.particles import export

MOTOR = "flagellar_motor"


def particles(x: list[float], kind: list[str], voxel_size: float = 10.0) -> Candidates:
    centre = np.zeros((len(x), 3))
    centre[:, 2] = x
    normal = np.tile([0.0, 1.0, 0.0], (len(x), 1))
    return Candidates(centre, np.ones(len(x)), normal, voxel_size, (20, 20, 2000), kind=np.array(kind, str))


TRUTH = particles([100, 200, 300, 400, 500], ["t3ss", "t3ss", MOTOR, MOTOR, MOTOR])
FOUND = particles([201, 603, 604, 802, 1800], ["t3ss", MOTOR, "t3ss", MOTOR, "t3ss"], voxel_size=5.0)


def test_counts_by_true_and_found_kind() -> None:
    confusion = confusion_of_kinds(FOUND, TRUTH)
    assert confusion.kinds == ("t3ss", MOTOR)
    # One to one: of the two candidates on the motor at 300, the closer one counts.
    expected = [[1, 0, 1], [0, 2, 1], [2, 0, 0]]
    np.testing.assert_array_equal(confusion.counts, expected)
    assert confusion.count("t3ss", NONE) == 1
    assert confusion.f1(MOTOR) == pytest.approx(4 / 5)
    assert confusion.f1("t3ss") == pytest.approx(2 / 5)
    twice = confusion_of_kinds([FOUND, FOUND], [TRUTH, TRUTH])
    np.testing.assert_array_equal(twice.counts, 2 * np.array(expected))
    assert twice.to_dict()["counts"][MOTOR][MOTOR] == 4


def test_kinds_do_not_hinder_the_matching() -> None:
    swapped = particles([100], [MOTOR])
    assert confusion_of_kinds(swapped, TRUTH[:1]).count("t3ss", MOTOR) == 1
    assert confusion_of_kinds(TRUTH[:0], TRUTH[:0]).kinds == ()


def test_errors() -> None:
    with pytest.raises(InputError, match="both"):
        confusion_of_kinds([FOUND, FOUND], [TRUTH])
    with pytest.raises(ConfigError, match="tolerance"):
        confusion_of_kinds(FOUND, TRUTH, 0)


def test_command_counts_one_kind_and_prints_the_table(tmp_path) -> None:
    export(FOUND, tmp_path / "found.csv", "csv")
    export(TRUTH, tmp_path / "truth.csv", "csv")
    paths = [str(tmp_path / "found.csv"), str(tmp_path / "truth.csv")]
    result = CliRunner().invoke(app, ["evaluate", *paths])
    assert result.exit_code == 0, result.output
    assert "FP on flagellar_motor" in result.output
    assert "no particle" in result.output
    import json

    of_kind = {
        kind: json.loads(CliRunner().invoke(app, ["evaluate", *paths, "--kind", kind, "--json"]).output)
        for kind in ("t3ss", MOTOR, "all")
    }
    assert [of_kind[kind]["truth"] for kind in ("t3ss", MOTOR, "all")] == [2, 3, 5]
    assert of_kind["t3ss"]["kinds"]["counts"][MOTOR][MOTOR] == 2
    assert of_kind[MOTOR]["true_positives"] == 2
