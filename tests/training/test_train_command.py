"""The commands of `t3ssfast train`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from recipe_toys import toy_example, write_example
from training_toys import CLASSIFIER, SEGMENTER

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.models import load_model
from t3ssfast.training import train_classifier, train_segmenter
from toy import save_toy_models, toy_tomogram


def run(*arguments: object) -> str:
    """Run `t3ssfast train`, and return its standard output."""
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_segmenter_and_classifier_are_trained_from_files(tmp_path, sheets, monkeypatch):
    files = [
        write_example(tmp_path, k, tomogram, membrane, picks)
        for k, (tomogram, membrane, picks) in enumerate(zip(*sheets, strict=True))
    ]
    # Options for a test; those that the command passes replace them.
    monkeypatch.setattr("t3ssfast.training.train_segmenter", partial(train_segmenter, **SEGMENTER))
    monkeypatch.setattr("t3ssfast.training.train_classifier", partial(train_classifier, **CLASSIFIER))
    segmenter, classifier = tmp_path / "s.pt", tmp_path / "c.pt"
    masks = [part for file in files for part in (file[0], *file[3:])]
    metrics = json.loads(run("segmenter", *masks, "-o", segmenter, "--steps", 2, "--json"))["figures"]
    assert set(metrics) == {"dice", "precision", "recall", "validation_loss"}
    everything = [part for file in files for part in file]
    assert "average precision: " in run("classifier", *everything, "-o", classifier, "--rounds", 0)
    assert load_model(classifier, model_kind="classifier").metadata.recipe["rounds"] == 0
    one_missing = [*everything[:-4], "-m", files[2][4]]
    refused = CliRunner().invoke(app, ["train", "classifier", *one_missing, "-o", str(classifier)])
    assert refused.exit_code == 1
    assert "2 picks for 3 tomograms" in refused.output


def test_classifier_is_calibrated(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    files: list[str] = []
    for k in range(2):
        example = toy_example(k)
        files += write_example(tmp_path, k, example.tomogram, example.membrane, example.truth)
    calibration = json.loads(run("calibrate", classifier, *files, "--json"))["calibration"]
    assert calibration == load_model(classifier, model_kind="classifier").metadata.calibration
    assert calibration["truth"] == 4


def test_verifier_is_trained_on_candidates_and_calibrated(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    files: list[str] = []
    for k in range(4):
        # Three of the six dark particles are T3SS with a bright core.
        tomogram, particles, membrane = toy_tomogram(shape=(24, 120 + 2 * k, 132), particles=6)
        for z, y, x in np.round(particles.centre_zyx[::2]).astype(int):
            tomogram.data[z, y - 2 : y + 3, x - 2 : x + 3] = 5.0
        files += write_example(tmp_path, k, tomogram, membrane, particles[::2])
    verifier = tmp_path / "verifier.pt"
    printed = run("verifier", *files, "--classifier", classifier, "-o", verifier, "--steps", 2)
    assert "average precision: " in printed
    assert "error of the axis, degrees: " in printed
    assert "_" not in printed.partition("on held-out data:")[2]
    printed = run("calibrate", classifier, *files, "--verifier", verifier, "--json")
    calibration = json.loads(printed)["calibration"]
    assert calibration == load_model(verifier, model_kind="verifier").metadata.calibration
    assert load_model(classifier, model_kind="classifier").metadata.calibration is None
    assert calibration["truth"] == 12


@pytest.mark.parametrize(
    "command", ["segmenter", "classifier", "verifier", "calibrate", "tune", "few-labels", "bundled"]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert "t3ssfast train" in run(command, "--help")
