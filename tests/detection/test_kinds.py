"""Kinds of particles within a detection: which are reported, and with which scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.assemble import calibrate_scores
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.tell_kinds import tell_kinds
from t3ssfast.detection.verify import log_odds_of_kinds
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.models import LoadedModel, ModelMetadata, verifier_answers
from toy import VOXEL, save_toy_models, toy_tomogram

HEIGHT = 16
KINDS = ("t3ss", "flagellar_motor")
CURVE = Calibration("platt", (0.0, 1.0), (0.0, 0.5), (0.5,), (0.9,), (0.9,))


class FixedLogits(nn.Module):
    """The same logits for every candidate."""

    def __init__(self, of_t3ss: float, of_motor: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([of_t3ss, of_motor, 0.0, 0.0, 0.0, 0.0, 0.0]))

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(sections.shape[0], 7)


def verifier(of_t3ss: float, of_motor: float, **changes: object) -> LoadedModel:
    metadata = ModelMetadata("verifier", VOXEL, HEIGHT, classes=verifier_answers(KINDS))
    return LoadedModel(FixedLogits(of_t3ss, of_motor), replace(metadata, **changes), "sha", "toy")  # type: ignore[arg-type]


def test_log_odds_are_those_of_a_softmax_with_none_of_the_kinds() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (7, 3))
    weight = np.exp(np.pad(logits, ((0, 0), (0, 1))))
    probability = (weight / weight.sum(axis=1, keepdims=True))[:, :3]
    np.testing.assert_allclose(log_odds_of_kinds(logits), np.log(probability / (1 - probability)))
    np.testing.assert_allclose(log_odds_of_kinds(logits[:, :1]), logits[:, :1])


def test_only_the_kinds_asked_for_are_reported(tmp_path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    tomogram, truth, _ = toy_tomogram()

    def kinds_found(model: LoadedModel, *kinds: str) -> list[str]:
        config = DetectConfig(contrast="dark", **({"kinds": kinds} if kinds else {}))
        models = {"segmenter": segmenter, "classifier": classifier, "verifier": model}
        found = t3.detect(tomogram, config=config, progress=False, **models)
        assert found.provenance["config"]["kinds"] == (kinds or ("t3ss",))
        return found.candidates.kind.tolist()

    motors, t3ss = verifier(-3.0, 4.0), verifier(4.0, -3.0)
    count = len(truth)
    assert kinds_found(t3ss) == ["t3ss"] * count
    assert kinds_found(motors) == []
    assert kinds_found(motors, "all") == kinds_found(motors, *KINDS) == ["flagellar_motor"] * count
    assert kinds_found(t3ss, "flagellar_motor") == []
    with pytest.raises(ConfigError, match="secretin"):
        kinds_found(t3ss, "secretin")
    assert DetectConfig(kinds="all").kinds == ("all",)
    for wrong in ((), None, 3, ("t3ss", "")):
        with pytest.raises(ConfigError, match="kinds"):
            DetectConfig(kinds=wrong)
    told = tell_kinds(tomogram, truth, motors)
    assert told.tolist() == ["flagellar_motor"] * count
    assert tell_kinds(tomogram, truth[:0], motors).tolist() == []
    with pytest.raises(ConfigError, match="contrast"):
        tell_kinds(tomogram, truth, motors, contrast="grey")


def test_scores_are_calibrated_by_kind() -> None:
    place = {"centre_zyx": np.eye(3), "normal_zyx": np.eye(3), "voxel_size_angstrom": 10.0}
    candidates = Candidates(score=[0.9, 0.8, 0.7], kind=["flagellar_motor", "t3ss", "t3ss"], **place)
    found = calibrate_scores(candidates, {"t3ss": None, "flagellar_motor": CURVE})
    np.testing.assert_allclose(found.score, [0.8, 0.7, 0.45])
    assert found.kind.tolist() == ["t3ss", "t3ss", "flagellar_motor"]
