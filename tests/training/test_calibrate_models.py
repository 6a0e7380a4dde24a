"""Calibration of model files on toy tomograms."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_toys import toy_example

import t3ssfast as t3
from t3ssfast.errors import InputError
from t3ssfast.models import load_model
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


def test_metadata_are_updated(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    update_metadata(classifier, "classifier", metrics={"f1": 0.5})
    assert load_model(classifier, model_kind="classifier").metadata.metrics == {"f1": 0.5}
