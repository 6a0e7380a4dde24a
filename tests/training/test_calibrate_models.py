"""Calibration of model files on toy tomograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recipe_toys import toy_example

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import InputError
from t3ssfast.models import load_model
from t3ssfast.models.bundled import read_bundled
from t3ssfast.training.calibrate import calibrate_models, update_metadata
from toy import save_toy_models


def test_calibrated_scores_are_probabilities(tmp_path: Path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    before = load_model(classifier, model_kind="classifier").module.state_dict()
    examples = [toy_example(k) for k in range(3)]
    lines: list[str] = []
    calibrate_models(
        classifier,
        [e.tomogram for e in examples],
        [e.truth for e in examples],
        segmenter=segmenter,
        device="cpu",
        log=lines.append,
    )
    assert any("toy_2" in line for line in lines)
    model = load_model(classifier, model_kind="classifier")
    after = model.module.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    assert model.metadata.calibration is not None
    # Two of three candidates are true, at any score.
    detection = t3.detect(
        examples[0].tomogram, segmenter=segmenter, classifier=classifier, device="cpu", progress=False
    )
    assert 0.5 < detection.candidates.score.min() <= detection.candidates.score.max() < 0.85


def test_calibration_needs_two_tomograms_with_true_and_false_candidates(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    only = toy_example(0)
    with pytest.raises(InputError, match="to calibrate with"):
        calibrate_models(classifier, [only.tomogram], [only.truth], membranes=[only.membrane])
    assert load_model(classifier, model_kind="classifier").metadata.calibration is None


def test_only_the_chosen_kinds_are_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {kind: tmp_path / f"{kind}.safetensors" for kind in ("classifier", "verifier")}
    for kind, path in files.items():
        path.write_bytes(read_bundled(kind)[0])
    rng = np.random.default_rng(0)
    searched: list[tuple[str, ...]] = []

    def tomogram_of(kind: str) -> tuple[Candidates, Candidates]:
        """Thirty candidates of a kind, of which those in ten places with truth have higher scores."""
        centre = 50.0 * np.argwhere(np.ones((2, 3, 5))) + 50
        score = np.where(np.arange(30) < 10, rng.uniform(0.4, 0.9, 30), rng.uniform(0.1, 0.6, 30))
        found = Candidates(centre, score, np.tile([1.0, 0, 0], (30, 1)), 10.0, kind=[kind] * 30)
        return found, found[:10]

    pairs = [tomogram_of("flagellar_motor") for _ in range(3)]

    def find(*_: object, config: DetectConfig, **__: object) -> list[Candidates]:
        searched.append(config.kinds)
        return [found for found, _ in pairs]

    monkeypatch.setattr("t3ssfast.training.calibrate.find_candidates", find)
    arguments = (files["classifier"], [None] * 3, [truth for _, truth in pairs])
    before = load_model(files["verifier"], model_kind="verifier").metadata
    learned = calibrate_models(*arguments, verifier=files["verifier"], kinds=("flagellar_motor",))  # type: ignore[arg-type]
    after = load_model(files["verifier"], model_kind="verifier").metadata
    assert searched == [("flagellar_motor",)]
    assert after.calibration == before.calibration
    assert after.kind_calibrations == {"flagellar_motor": learned.to_dict()}
    assert after.kind_calibrations != before.kind_calibrations
    low, high = learned.apply([0.2, 0.8])
    assert low < 0.2 < 0.8 < high
    with pytest.raises(InputError, match="no secretin"):
        calibrate_models(*arguments, verifier=files["verifier"], kinds=("secretin",))  # type: ignore[arg-type]


def test_metadata_are_updated(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    update_metadata(classifier, "classifier", metrics={"f1": 0.5})
    assert load_model(classifier, model_kind="classifier").metadata.metrics == {"f1": 0.5}
