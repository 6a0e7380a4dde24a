"""The axial network and model files of verifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models import (
    AZIMUTHS,
    VERIFIER_ANSWERS,
    AxialKindNet,
    AxialNet,
    ModelMetadata,
    load_model,
    save_model,
    verifier_answers,
)

HEIGHT = 16


def axial_net() -> AxialNet:
    return AxialNet((2, 3, 4, 4), 8, HEIGHT).eval()


def metadata(**changes: object) -> ModelMetadata:
    given = {"voxel_size_angstrom": 13.6, "window_px": HEIGHT, "classes": VERIFIER_ANSWERS, **changes}
    return ModelMetadata("verifier", **given)  # type: ignore[arg-type]


def test_rotating_the_sections_rotates_only_the_vector_answers() -> None:
    torch.manual_seed(2)
    module = axial_net()
    sections = torch.randn(5, AZIMUTHS, HEIGHT, HEIGHT // 2)
    with torch.inference_mode():
        original, rotated = module(sections), module(sections.roll(AZIMUTHS // 4, dims=1))
    torch.testing.assert_close(rotated[:, :2], original[:, :2])
    for across, quarter in ((2, 3), (4, 5)):
        torch.testing.assert_close(rotated[:, across], -original[:, quarter])
        torch.testing.assert_close(rotated[:, quarter], original[:, across])
        assert original[:, across].abs().max() > 1e-4


def test_saved_verifier_answers_as_the_module_and_is_no_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module, path = axial_net(), tmp_path / "verifier.pt"
    save_model(module, path, metadata())
    sections = torch.randn(3, AZIMUTHS, HEIGHT, HEIGHT // 2)
    with torch.inference_mode():
        answers = load_model(path, model_kind="verifier").module(sections)
        torch.testing.assert_close(answers, module(sections), rtol=0, atol=0)
    with pytest.raises(ModelError, match="verifier"):
        load_model(path, model_kind="classifier")


@pytest.mark.parametrize("name", ["kinds.pt", "kinds.safetensors"])
def test_network_of_kinds_contains_that_of_one(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    kinds = ("t3ss", "flagellar_motor", "secretin")
    module, alone = AxialKindNet((2, 3, 4, 4), 8, HEIGHT, len(kinds)).eval(), axial_net()
    alone.load_state_dict({key: w for key, w in module.state_dict().items() if "kind" not in key})
    save_model(module, tmp_path / name, metadata(classes=verifier_answers(kinds)))
    model = load_model(tmp_path / name, model_kind="verifier")
    assert model.metadata.kinds == kinds
    sections = torch.randn(3, AZIMUTHS, HEIGHT, HEIGHT // 2)
    with torch.inference_mode():
        answers, single = model.fused(sections), alone(sections)
        torch.testing.assert_close(answers[:, [0, 3, 4, 5, 6, 7]], single)
        rotated = model.fused(sections.roll(AZIMUTHS // 4, dims=1))
    torch.testing.assert_close(rotated[:, :4], answers[:, :4])
    assert answers[:, 1:3].std() > 1e-4
    with pytest.raises(ConfigError, match="kinds"):
        AxialKindNet(kinds=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"window_px": None},
        {"window_px": 4000},
        {"window_px": 40},
        {"classes": ("background", "t3ss")},
        {"classes": verifier_answers(("t3ss", "t3ss"))},
        {"classes": verifier_answers(("../t3ss",))},
        {"classes": verifier_answers(())},
        {"kind_calibrations": {"flagellar_motor": {}}},
        {"output": "probabilities"},
    ],
)
def test_invalid_verifier_metadata_are_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(changes))):
        metadata(**changes)


def test_files_that_hold_no_verifier_are_rejected(tmp_path: Path) -> None:
    torch.jit.script(axial_net()).save(tmp_path / "bare.pt")
    with pytest.raises(ModelError, match="metadata"):
        load_model(tmp_path / "bare.pt", model_kind="verifier")
    save_model(nn.Flatten(), tmp_path / "flatten.pt", metadata())
    with pytest.raises(ModelError, match="verifier"):
        load_model(tmp_path / "flatten.pt", model_kind="verifier")
