"""Fine-tuning on few picks: cross-validation folds, and the curve over numbers of picks."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.calibration import fit_calibration
from t3ssfast.models import load_model
from t3ssfast.training.few_shot import few_shot_curve, first_picks
from t3ssfast.training.fine_tune import (
    assign_folds,
    calibrated_rows,
    examples_of_verdicts,
    fine_tune_verifier,
)
from toy import VOXEL, save_toy_models, save_toy_verifier, toy_tomogram


def test_candidates_are_in_the_fold_of_the_pick_close_by() -> None:
    rng = np.random.default_rng(3)
    picks, found = [], []
    for count in (5, 0, 4):
        centre = rng.uniform(20, 400, (count + 1, 3)).astype(np.float32)
        kind = np.array(["t3ss"] * count + ["gold_bead"])
        up = np.tile(np.float32([1, 0, 0]), (count + 7, 1))
        known = Candidates(centre, np.ones(count + 1, np.float32), up[: count + 1], VOXEL, None, "toy", kind)
        near = centre[:count] + np.float32([0, 3, 0])
        far = rng.uniform(1000, 2000, (7, 3)).astype(np.float32)
        centres = np.concatenate([far, near])
        picks.append(known)
        found.append(Candidates(centres, np.ones(len(centres), np.float32), up, VOXEL, None, "toy"))
    folds = assign_folds(picks, found, 4, seed=0)
    for (of_picks, of_found), count in zip(folds, (5, 0, 4), strict=True):
        assert of_picks[count] == -1
        np.testing.assert_array_equal(of_found[7:], of_picks[:count])
        assert set(of_found[:7].tolist()) == {0, 1, 2, 3}
    numbers = np.concatenate([of_picks[of_picks >= 0] for of_picks, _ in folds])
    assert np.ptp(np.bincount(numbers, minlength=4)) <= 1


def test_fine_tuning_needs_picks() -> None:
    with pytest.raises(InputError, match="0 picked T3SS"):
        fine_tune_verifier([], [], "never.pt")


def test_first_picks_crop_the_last_tomogram() -> None:
    labelled = []
    for k in range(3):
        tomogram, truth, membrane = toy_tomogram(shape=(24, 120, 132))
        labelled.append((replace(tomogram, name=f"toy_{k}"), membrane, truth))
    for count in range(1, 10):
        chosen = first_picks(labelled, count)
        assert sum(len(truth) for _, _, truth in chosen) == count
        assert len(chosen) == -(-count // 3)
        for tomogram, membrane, truth in chosen:
            assert tomogram.shape == membrane.shape
            assert (truth.centre_zyx[:, 2] < tomogram.shape[2]).all()
    cropped = first_picks(labelled, 4)[1]
    x = np.sort(labelled[1][2].centre_zyx[:, 2])
    assert x[0] < cropped[0].shape[2] <= x[1]


def test_few_shot_curve_has_a_row_per_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ToySimulation:
        """Six dark particles, three of them T3SS."""

        def __init__(self, seed: int) -> None:
            self.tomogram, truth, self.membrane = toy_tomogram(shape=(24, 120, 132), particles=6)
            self.tomogram, self.truth = replace(self.tomogram, name=f"toy_{seed}"), truth[::2]

    monkeypatch.setattr(
        "t3ssfast.training.few_shot.simulate", lambda seed, shape, **physics: ToySimulation(seed)
    )
    _, classifier = save_toy_models(tmp_path)
    verifier = save_toy_verifier(tmp_path)
    options: dict[str, Any] = {"steps": 2, "steps_per_epoch": 2, "batch": 8}
    rows = few_shot_curve(
        tmp_path, counts=(6, 9), held_out=1, options=options, classifier=classifier, verifier=verifier
    )
    assert [row["picks"] for row in rows] == [0, 6, 9]
    assert all(0 <= row["f1_low"] <= row["f1"] <= row["f1_high"] <= 1 for row in rows)
    with open(tmp_path / "few_labels.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert (tmp_path / "few_labels.png").read_bytes()[:4] == b"\x89PNG"
    tuned = load_model(tmp_path / "verifier_9.safetensors", model_kind="verifier")
    assert tuned.metadata.calibration is not None
    assert tuned.metadata.calibration["truth"] == 9


def test_few_shot_curve_needs_three_picks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 3"):
        few_shot_curve(tmp_path, counts=(1,))


def test_verdicts_leave_out_what_nobody_judged() -> None:
    rng = np.random.default_rng(5)
    centre = rng.uniform(0, 2000, (8, 3)).astype(np.float32)
    up = np.tile(np.float32([1, 0, 0]), (8, 1))
    found = Candidates(centre, np.linspace(0.9, 0.2, 8), up, VOXEL)
    label = ["accepted", "rejected", "unsure", "", "rejected"]
    judged = Candidates(centre[:5] / 2 + 0.5, np.ones(5), up[:5], 2 * VOXEL, label=label)
    kept = examples_of_verdicts(found[:4], judged)
    # The last one was not found by the classifier.
    np.testing.assert_allclose(kept.centre_zyx, centre[[0, 1, 4]] + [[0], [0], [1]], atol=1e-3)
    assert kept.label.tolist() == ["", "", ""]
    assert len(examples_of_verdicts(found, judged[:0])) == 0
    assert len(examples_of_verdicts(found[:0], judged)) == 2


def test_particles_taken_for_another_kind_do_not_flatten_the_calibration() -> None:
    rng = np.random.default_rng(8)
    score = np.concatenate([expit(rng.normal(2, 1, 40)), expit(rng.normal(-2, 1, 8)), np.zeros(7)])
    true = np.repeat([1, 0, 1, 0], [40, 8, 5, 2])
    rows = calibrated_rows(score, true)
    # Rejected candidates with a score of 0 are where they belong.
    assert rows.tolist() == [*range(48), 53, 54]
    curve, flat = (
        fit_calibration(score[kept], true[kept], np.arange(len(kept)) % 2, 45, method="platt")
        for kept in (rows, np.arange(len(score)))
    )
    assert curve.apply(np.array([1e-3]))[0] < 0.05
    assert flat.apply(np.array([1e-3]))[0] > 0.4


def test_verdicts_of_one_kind_teach_nothing(make_candidates: Any) -> None:
    picks = make_candidates(9, label=["accepted"] * 8 + ["rejected"])
    with pytest.raises(InputError, match="8 candidates are accepted and 1 rejected"):
        fine_tune_verifier([], [picks], "never.pt")
    # Of three rejected ones, half would leave one to learn from and none to validate with.
    picks = make_candidates(9, label=["accepted"] * 6 + ["rejected"] * 3)
    with pytest.raises(InputError, match="3 rejected; judge more, at least 4 of each for 2 folds"):
        fine_tune_verifier([], [picks], "never.pt", folds=2)
