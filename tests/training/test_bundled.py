"""The recipes: finishing a classifier, measuring it, and learning from few picks; on the toy world."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models import load_model
from t3ssfast.simulation.simulate import Physics
from t3ssfast.training.bundled import examples as recipe_examples
from t3ssfast.training.bundled import measure
from t3ssfast.training.bundled.examples import Example, Use, simulate_examples
from t3ssfast.training.calibrate import calibrate_models, finish_classifier, rewrite_metadata
from t3ssfast.training.few_shot import few_shot_curve, first_picks
from t3ssfast.training.fine_tune import _deal, fine_tune_verifier
from toy import VOXEL, save_toy_models, save_toy_verifier, toy_tomogram


def toy_example(k: int) -> Example:
    """The toy cell, one of its three particles a look-alike."""
    tomogram, truth, membrane = toy_tomogram(shape=(24, 120 + 2 * k, 132))
    tomogram = replace(tomogram, name=f"toy_{k}")
    known, other = truth[:2], replace(truth[2:], kind=np.array(["secretin"]))
    physics = Physics(noise_scale=(0.5, 0.8, 1.2)[k % 3])
    return Example(tomogram, membrane, known, known, other, physics)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [toy_example(k) for k in range(3)]


def test_no_seed_has_two_uses() -> None:
    uses = [use for use in vars(recipe_examples).values() if isinstance(use, Use)]
    assert len(uses) == 8
    assert len({use.seed(s, k) for use in uses for s in range(3) for k in range(1000)}) == 24_000


def test_whole_cells_show_their_tops(tmp_path: Path) -> None:
    """Of the same run, cells that fit into a deep volume; kept in files, and read from them again."""
    made = simulate_examples(tmp_path, recipe_examples.TRAINING_WHOLE, 0, 3, (72, 96, 96))
    lines: list[str] = []
    again = simulate_examples(
        tmp_path, recipe_examples.TRAINING_WHOLE, 0, 3, (72, 96, 96), report=lines.append
    )
    assert not lines
    assert len({example.tomogram.name for example in made}) == 3
    for first, second in zip(made, again, strict=True):
        assert first.whole_cells
        assert 80 <= first.physics.cell_radius_nm <= 180
        assert 0.5 <= first.physics.cell_flattening <= 1
        assert first.physics == second.physics
        np.testing.assert_array_equal(first.tomogram.data, second.tomogram.data)
        np.testing.assert_array_equal(first.membrane, second.membrane)
        np.testing.assert_array_equal(first.truth.centre_zyx, second.truth.centre_zyx)
    slab = simulate_examples(tmp_path, recipe_examples.TRAINING, 0, 1, (32, 64, 64))[0]
    assert not slab.whole_cells
    ordinary = simulate_examples(tmp_path, recipe_examples.ORDINARY, 0, 1, (32, 64, 64))[0]
    assert ordinary.physics == Physics()


def test_a_classifier_is_finished_and_measured(tmp_path: Path, examples: list[Example]) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    before = load_model(classifier, model_kind="classifier").module.state_dict()
    lines: list[str] = []
    finish_classifier(classifier, segmenter, examples, examples, report=lines.append)
    assert any("toy_2" in line for line in lines)
    judge = load_model(classifier, model_kind="classifier")
    after = judge.module.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    assert judge.metadata.preselect is not None
    assert judge.metadata.preselect["kind"] == "coarse_scan"
    assert judge.metadata.calibration is not None
    # Two in three of its candidates are true, whatever they score: that is what a score is now worth.
    detection = t3.detect(
        examples[0].tomogram, segmenter=segmenter, classifier=classifier, device="cpu", progress=False
    )
    assert 0.5 < detection.candidates.score.min() <= detection.candidates.score.max() < 0.85
    figures, whole = measure(examples, load_model(segmenter, model_kind="segmenter"), judge)
    json.dumps(figures, allow_nan=False)
    assert (whole.true_positives, whole.false_positives, whole.false_negatives) == (6, 3, 0)
    assert figures["detection"]["false_positive_kinds"] == {"secretin": 3}
    assert figures["detection_by_domain"]["low noise"]["truth"] == 2
    assert figures["detection_by_domain"]["whole cells"]["truth"] == 0
    views = figures["detection_by_view"].values()
    assert (sum(v["truth"] for v in views), sum(v["found"] for v in views)) == (6, 6)
    assert figures["membrane_on_held_out_simulation"]["everywhere"]["dice"] > 0.6
    assert figures["preselection"]["windows_kept"] < 0.5
    assert figures["preselection"]["windows_about_particles_kept"] > 0.97
    assert figures["promises"]["min_recall 0.9"]["recall"][0] == 1
    assert figures["promises"]["min_precision 0.95"] is None
    with pytest.raises(ConfigError, match="min_precision"):
        t3.detect(
            examples[0].tomogram,
            segmenter=segmenter,
            classifier=classifier,
            config=DetectConfig(min_precision=0.95),
            progress=False,
        )
    with pytest.raises(ConfigError, match='"look" or "model"'):
        finish_classifier(classifier, segmenter, examples, examples, preselection="guess")


def test_calibration_needs_something_to_tell_apart(tmp_path: Path, examples: list[Example]) -> None:
    _, classifier = save_toy_models(tmp_path)
    only = examples[0]
    with pytest.raises(InputError, match="to calibrate with"):
        calibrate_models(classifier, [only.tomogram], [only.truth], membranes=[only.membrane])
    assert load_model(classifier, model_kind="classifier").metadata.calibration is None
    rewrite_metadata(classifier, "classifier", metrics={"f1": 0.5})
    assert load_model(classifier, model_kind="classifier").metadata.metrics == {"f1": 0.5}


def test_the_command_calibrates(tmp_path: Path, examples: list[Example]) -> None:
    _, classifier = save_toy_models(tmp_path)
    given: list[str] = []
    for k, example in enumerate(examples[:2]):
        t3.write(tmp_path / f"{k}.mrc", example.tomogram.data, VOXEL)
        t3.write(tmp_path / f"{k}_m.mrc", example.membrane, VOXEL)
        t3.export(example.truth, tmp_path / f"{k}.csv", "csv")
        given += [str(tmp_path / f"{k}.mrc"), "-p", str(tmp_path / f"{k}.csv")]
        given += ["-m", str(tmp_path / f"{k}_m.mrc")]
    result = CliRunner().invoke(app, ["train", "calibrate", str(classifier), *given, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)["calibration"]
    assert said == load_model(classifier, model_kind="classifier").metadata.calibration
    assert said["truth"] == 4


def test_picks_are_counted_out_and_the_rest_is_cut_off() -> None:
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
    cut = first_picks(labelled, 4)[1]
    left = labelled[1][2].centre_zyx
    assert sorted(left[:, 2])[0] < cut[0].shape[2] <= sorted(left[:, 2])[1]


def test_the_curve_of_few_labels_has_a_row_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        """Six dark particles, of which three are T3SS."""

        def __init__(self, seed: int) -> None:
            self.tomogram, truth, self.membrane = toy_tomogram(shape=(24, 120, 132), particles=6)
            self.tomogram, self.truth = replace(self.tomogram, name=f"toy_{seed}"), truth[::2]

    monkeypatch.setattr("t3ssfast.training.few_shot.simulate", lambda seed, shape, **physics: Made(seed))
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
    tuned = load_model(tmp_path / "verifier_9.pt", model_kind="verifier")
    assert tuned.metadata.calibration is not None
    assert tuned.metadata.calibration["truth"] == 9
    with pytest.raises(ConfigError, match="at least 3"):
        few_shot_curve(tmp_path, counts=(1,))


def test_a_verifier_is_trained_on_what_the_classifier_finds_and_calibrated(tmp_path: Path) -> None:
    """By the commands: six dark particles, three of them T3SS that have a light core."""
    _, classifier = save_toy_models(tmp_path)
    given: list[str] = []
    for k in range(4):
        tomogram, truth, membrane = toy_tomogram(shape=(24, 120 + 2 * k, 132), particles=6)
        for z, y, x in np.round(truth.centre_zyx[::2]).astype(int):
            tomogram.data[z, y - 2 : y + 3, x - 2 : x + 3] = 5.0
        t3.write(tmp_path / f"{k}.mrc", tomogram.data, VOXEL)
        t3.write(tmp_path / f"{k}_m.mrc", membrane, VOXEL)
        t3.export(truth[::2], tmp_path / f"{k}.csv", "csv")
        given += [str(tmp_path / f"{k}.mrc"), "-p", str(tmp_path / f"{k}.csv")]
        given += ["-m", str(tmp_path / f"{k}_m.mrc")]
    verifier = tmp_path / "verifier.pt"
    trained = CliRunner().invoke(
        app,
        ["train", "verifier", *given, "--classifier", str(classifier), "-o", str(verifier), "--steps", "2"],
    )
    assert trained.exit_code == 0, trained.output
    assert "average_precision" in trained.stdout
    result = CliRunner().invoke(
        app, ["train", "calibrate", str(classifier), *given, "--verifier", str(verifier), "--json"]
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)["calibration"]
    assert said == load_model(verifier, model_kind="verifier").metadata.calibration
    assert load_model(classifier, model_kind="classifier").metadata.calibration is None
    assert said["truth"] == 12


def test_parts_of_picks_take_the_candidates_about_them_along() -> None:
    rng = np.random.default_rng(3)
    picks, found = [], []
    for count in (5, 0, 4):
        centre = rng.uniform(20, 400, (count + 1, 3)).astype(np.float32)
        kind = np.array(["t3ss"] * count + ["gold_bead"])
        up = np.tile(np.float32([1, 0, 0]), (count + 7, 1))
        known = Candidates(centre, np.ones(count + 1, np.float32), up[: count + 1], VOXEL, None, "toy", kind)
        near = centre[:count] + np.float32([0, 3, 0])
        far = rng.uniform(1000, 2000, (7, 3)).astype(np.float32)
        at = np.concatenate([far, near])
        picks.append(known)
        found.append(Candidates(at, np.ones(len(at), np.float32), up, VOXEL, None, "toy"))
    dealt = _deal(picks, found, 4, seed=0)
    for (of_picks, of_found), count in zip(dealt, (5, 0, 4), strict=True):
        assert of_picks[count] == -1
        np.testing.assert_array_equal(of_found[7:], of_picks[:count])
        assert set(of_found[:7].tolist()) == {0, 1, 2, 3}
    parts = np.concatenate([of_picks[of_picks >= 0] for of_picks, _ in dealt])
    assert np.ptp(np.bincount(parts, minlength=4)) <= 1
    with pytest.raises(InputError, match="0 picked T3SS"):
        fine_tune_verifier([], [], "never.pt")
