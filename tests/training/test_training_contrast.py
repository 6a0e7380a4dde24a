"""Training on tomograms of either contrast, and fine-tuning that is killed and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipe_toys import write_example
from training_toys import (
    CLASSIFIER,
    SEGMENTER,
    VERIFIER,
    assert_same_weights,
    ball_example,
    checkpoints,
    columns,
    sheet_example,
)

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models import load_model
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.training import fine_tune as fine_tuning
from t3ssfast.training import train_classifier, train_segmenter, train_verifier
from t3ssfast.training.fine_tune import fine_tune_verifier
from toy import save_toy_models, save_toy_verifier, toy_tomogram


def inverted(tomograms):
    return [replace(tomogram, data=-tomogram.data) for tomogram in tomograms]


@pytest.mark.parametrize("contrast", ["auto", "light", ["light", "dark", "light"]])
def test_light_protein_trains_the_same_model(sheets, tmp_path, contrast):
    tomograms, membranes, picks = sheets
    light = inverted(tomograms)
    if isinstance(contrast, list):
        light[1] = tomograms[1]
    options = CLASSIFIER | {"rounds": 0, "steps": 6}
    dark = train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", contrast="dark", **options)
    found = train_classifier(light, picks, membranes, tmp_path / "b.pt", contrast=contrast, **options)
    assert_same_weights(dark, found, "classifier")
    assert load_model(found, model_kind="classifier").metadata.contrast == "dark"


def test_every_training_takes_the_contrast(sheets, tmp_path):
    tomograms, membranes, _ = sheets
    few = SEGMENTER | {"steps": 4}
    dark = train_segmenter(tomograms, membranes, tmp_path / "a.pt", contrast="dark", **few)
    found = train_segmenter(inverted(tomograms), membranes, tmp_path / "b.pt", **few)
    assert_same_weights(dark, found, "segmenter")
    balls, picks, candidates = columns([ball_example(seed) for seed in range(4)])
    options = VERIFIER | {"steps": 4}
    dark = train_verifier(balls, picks, candidates, tmp_path / "c.pt", contrast="dark", **options)
    given = {"contrast": "light", **options}
    found = train_verifier(inverted(balls), picks, candidates, tmp_path / "d.pt", **given)
    assert_same_weights(dark, found, "verifier")


def test_without_membranes_the_segmenter_finds_the_contrast(sheets, tmp_path, monkeypatch):
    tomograms, _, picks = sheets
    calls = []

    def find(grid, segmenter, config):
        calls.append(grid.tomogram.name)
        return {"sign": -1, "how": "a test"}

    monkeypatch.setattr("t3ssfast.detection.find_contrast.contrast_from_segmenter", find)
    options = CLASSIFIER | {"rounds": 0, "steps": 6}
    light = train_classifier(tomograms, picks, None, tmp_path / "a.pt", contrast="light", **options)
    found = train_classifier(tomograms, picks, None, tmp_path / "b.pt", **options)
    assert calls == [tomogram.name for tomogram in tomograms]
    assert_same_weights(light, found, "classifier")


def test_wrong_contrasts_are_refused(sheets, tmp_path):
    tomograms, membranes, picks = sheets
    with pytest.raises(ConfigError, match="contrast is 'grey'"):
        train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", contrast="grey", **CLASSIFIER)
    with pytest.raises(InputError, match="2 contrasts for 3 tomograms"):
        train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", contrast=["dark"] * 2, **CLASSIFIER)


def test_the_command_looks_for_the_contrast_and_takes_one_file_of_picks(tmp_path, monkeypatch):
    from functools import partial

    from t3ssfast.io.particles import export

    monkeypatch.setattr("t3ssfast.training.train_classifier", partial(train_classifier, **CLASSIFIER))
    files, picks = [], []
    for k in range(3):
        tomogram, membrane, known = sheet_example(k)
        made = write_example(tmp_path, k, replace(tomogram, data=-tomogram.data), membrane, known)
        files += [made[0], *made[3:]]
        picks.append(replace(known, tomogram_name=f"rec_{Path(made[0]).stem}.tomostar"))
    export(picks, tmp_path / "all.star")
    arguments = ["train", "classifier", *map(str, files), "-p", str(tmp_path / "all.star"), "--rounds", "0"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "c.pt"), "--steps", "6"])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("protein is light") == 3


class Killed(Exception):
    """Ends a training as a kill would."""


@pytest.fixture(scope="module")
def tuning(tmp_path_factory):
    """Arguments of a short fine-tuning on toy models, a stand-in for its search, and its model file."""
    folder = tmp_path_factory.mktemp("tuning")
    segmenter, classifier = save_toy_models(folder)
    tomogram, truth, membrane = toy_tomogram((40, 120, 132), particles=5)
    data = {"tomograms": [tomogram], "picks": [truth], "membranes": [membrane]}
    models = {"start": save_toy_verifier(folder), "classifier": classifier, "segmenter": segmenter}
    given = {**data, **models, "folds": 3, "contrast": "dark", "steps": 2, "steps_per_epoch": 1, "batch": 2}
    # Far from every T3SS, in the middle of the cell and outside.
    yx = [(60, 66), (8, 8), (8, 66), (8, 120), (110, 8), (110, 66), (110, 120)]
    centre = np.concatenate([truth.centre_zyx, [(12, y, x) for y, x in yx]])
    n = len(centre)
    both = replace(
        truth[:1], centre_zyx=centre, score=np.linspace(0.9, 0.2, n), normal_zyx=np.ones((n, 3)),
        kind=np.full(n, "t3ss"), rot_degrees=np.zeros(n), label=None,
    )  # fmt: skip

    def search(*_, **__):
        provenance = {"calibration_distance": {"statistics": {}}}
        return type("Detection", (), {"candidates": both, "provenance": provenance})

    # As the tests themselves: one thread, for equal bits.
    with pytest.MonkeyPatch.context() as patch, torch_threads(1):
        patch.setattr("t3ssfast.training.calibrate.detect", search)
        whole = fine_tune_verifier(out=folder / "whole.pt", **given)
    return given, search, whole


@pytest.mark.parametrize("killed_after", [0, 1, 3])
def test_a_killed_fine_tuning_resumes(tuning, tmp_path, monkeypatch, killed_after):
    given, search, whole = tuning
    searches, trained = [], []
    monkeypatch.setattr("t3ssfast.training.calibrate.detect", lambda *_, **__: searches.append(1) or search())
    original = fine_tuning.train_verifier

    def train(*arguments, **options):
        if len(trained) == killed_after and not killed:
            killed.append(1)
            raise Killed
        trained.append(Path(arguments[3]).name)
        return original(*arguments, **options)

    monkeypatch.setattr(fine_tuning, "train_verifier", train)
    killed: list[int] = []
    with pytest.raises(Killed):
        fine_tune_verifier(out=tmp_path / "tuned.pt", **given)
    assert checkpoints(tmp_path)
    resumed = fine_tune_verifier(out=tmp_path / "tuned.pt", resume=True, **given)
    assert (len(searches), len(trained)) == (1, 4)
    assert_same_weights(whole, resumed, "verifier")
    calibrations = [load_model(p, model_kind="verifier").metadata.calibration for p in (whole, resumed)]
    assert calibrations[0] == calibrations[1]
    assert not checkpoints(tmp_path)
