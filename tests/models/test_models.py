"""Networks, model files and their metadata."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from t3ssfast import models
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models import LeNet, ModelMetadata, UNet, load_model, save_model
from t3ssfast.models.normalisation import Normalisation

CLASSES = ("background", "t3ss")


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    return LeNet((2, 3), (8, 6))


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(depth=2, base=2)


def metadata(**changes):
    values = {
        "model_kind": "classifier",
        "voxel_size_angstrom": 13.6,
        "window_px": 50,
        "window_nm": 68.0,
        "normalisation": Normalisation(80.0, 5.0),
        "classes": CLASSES,
        "recipe": {"seed": 3},
        "preselect": {"statistics": ["mean"], "low": [-1.0]},
        "metrics": {"average_precision": 0.5},
    }
    return ModelMetadata(**(values | changes))


@pytest.mark.parametrize("window", [16, 32, 50, 51])
def test_lenet_answers_one_row_a_window(window):
    assert LeNet(classes=3, window=window)(torch.zeros(4, 1, window, window)).shape == (4, 3)


def test_unet_keeps_the_size(unet):
    assert unet(torch.zeros(2, 1, 16, 24)).shape == (2, 1, 16, 24)
    assert UNet()(torch.zeros(1, 1, 16, 32)).shape == (1, 1, 16, 32)


def test_a_segmenter_may_see_several_slices(tmp_path):
    path = tmp_path / "unet.pt"
    net = UNet(depth=2, base=2, slices=3)
    assert net(torch.zeros(2, 3, 16, 24)).shape == (2, 1, 16, 24)
    save_model(net, path, ModelMetadata("segmenter", slices=3))
    assert load_model(path, model_kind="segmenter").metadata.slices == 3
    save_model(net, path, ModelMetadata("segmenter"))
    with pytest.raises(ModelError, match=r"does not take slices \(N, 1, H, W\)"):
        load_model(path, model_kind="segmenter")
    for wrong in (0, 2, 17, 1.0):
        with pytest.raises(ModelError, match="slices"):
            ModelMetadata("segmenter", slices=wrong)


def test_networks_refuse_impossible_widths():
    with pytest.raises(ConfigError, match="LeNet"):
        LeNet((0, 16))
    with pytest.raises(ConfigError, match="LeNet"):
        LeNet(window=10)
    with pytest.raises(ConfigError, match="U-Net"):
        UNet(depth=0)


def test_a_file_carries_weights_and_metadata(tmp_path, lenet):
    path = tmp_path / "lenet.pt"
    said = metadata()
    sha256 = save_model(lenet, path, said)
    loaded = load_model(path, model_kind="classifier")
    assert loaded.metadata == said
    assert loaded.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.path == str(path)
    windows = torch.randn(5, 1, 50, 50)
    torch.testing.assert_close(loaded.module(windows), lenet(windows), rtol=0, atol=0)
    assert not loaded.module.training
    assert lenet.training
    assert [p.name for p in tmp_path.iterdir()] == ["lenet.pt"]
    assert save_model(lenet, path, said) == sha256, "the same weights are the same file"
    assert b"site-packages" not in path.read_bytes(), "a file says where it was made"
    assert load_model(loaded, model_kind="classifier") is loaded
    # Saved again from TorchScript, it is the same model.
    save_model(loaded.module, tmp_path / "again.pt", said)
    torch.testing.assert_close(
        load_model(tmp_path / "again.pt", model_kind="classifier").module(windows),
        lenet(windows),
        rtol=0,
        atol=0,
    )


def test_frozen_models_answer_the_same(tmp_path, unet):
    with torch.no_grad():
        for _ in range(3):
            unet(torch.randn(4, 1, 32, 32) * 3 + 1)
    save_model(unet, tmp_path / "unet.pt", metadata(kind="segmenter", classes=("membrane",)))
    loaded = load_model(tmp_path / "unet.pt", model_kind="segmenter")
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.frozen(image), unet.eval()(image), atol=1e-5, rtol=1e-5)


def test_fused_models_answer_the_same(tmp_path, unet):
    save_model(unet, tmp_path / "unet.pt", metadata(kind="segmenter", classes=("membrane",)))
    loaded = load_model(tmp_path / "unet.pt", model_kind="segmenter")
    axial = models.LoadedModel(models.AxialNet((2, 3, 4, 5), 6, 16).eval(), metadata(), "0", "here")
    unscriptable = models.LoadedModel(nn.Conv2d(1, 2, 3).requires_grad_(False), metadata(), "0", "here")
    unscriptable.module.forward = lambda *images: images[0] * 2
    for model, image in (
        (loaded, torch.randn(2, 1, 32, 48)),
        (axial, torch.randn(3, 12, 16, 8)),
        (axial, torch.randn(1, 12, 16, 8)),
        (unscriptable, torch.randn(2, 1, 8, 8)),
    ):
        with torch.inference_mode():
            torch.testing.assert_close(model.fused(image), model.module(image), atol=1e-5, rtol=1e-5)


def test_files_without_metadata_are_taken_with_a_warning(tmp_path, lenet, unet):
    lenet.eval()
    torch.jit.script(lenet).save(tmp_path / "plain.pt")
    with pytest.warns(UserWarning, match="a window of 50 px"):
        loaded = load_model(tmp_path / "plain.pt", model_kind="classifier")
    assert loaded.metadata.voxel_size_angstrom is None
    assert loaded.metadata.window_px == 50
    assert loaded.metadata.output == "logits"
    torch.jit.trace(nn.Sequential(lenet, nn.Softmax(1)), torch.zeros(3, 1, 50, 50)).save(tmp_path / "soft.pt")
    with pytest.warns(UserWarning, match="probabilities"):
        soft = load_model(tmp_path / "soft.pt", model_kind="classifier")
    assert loaded.metadata.classes == soft.metadata.classes == CLASSES
    single = nn.Sequential(nn.Flatten(), nn.Linear(2500, 1))
    with pytest.warns(UserWarning, match="logits"):
        assert load_model(single, model_kind="classifier").metadata.classes == CLASSES
    with pytest.warns(UserWarning, match="voxel size"):
        many = load_model(LeNet((2, 3), (8, 6), classes=3), kind="classifier")
    assert many.metadata.classes == ("class_0", "class_1", "t3ss")
    windows = torch.randn(4, 1, 50, 50)
    torch.testing.assert_close(
        soft.probability(soft.module(windows)), loaded.probability(loaded.module(windows))
    )
    with pytest.warns(UserWarning, match="voxel size"):
        module = load_model(unet, model_kind="segmenter")
    assert module.path == "<module>"
    assert len(module.sha256) == 64


def test_probabilities_are_of_the_class_named_so(lenet):
    answers = torch.tensor([[0.0, 2.0, -1.0]])
    for classes, index in ((("t3ss", "a", "b"), 0), (("a", "t3ss", "b"), 1), (("a", "b", "c"), 2)):
        loaded = models.LoadedModel(lenet, metadata(classes=classes), "", "")
        torch.testing.assert_close(loaded.probability(answers), torch.softmax(answers, 1)[:, index])
    single = models.LoadedModel(lenet, metadata(classes=()), "", "")
    torch.testing.assert_close(single.probability(torch.tensor([[0.0]])), torch.tensor([0.5]))


class Answering(nn.Module):
    """Answers any batch with what it was told to."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(x.shape[0], -1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_models_that_answer_nonsense_are_refused(tmp_path, bad):
    save_model(Answering(torch.tensor([bad, 0.0])), tmp_path / "nan.pt", metadata())
    with pytest.raises(ModelError, match="NaN"):
        load_model(tmp_path / "nan.pt", model_kind="classifier")


def test_models_of_another_kind_or_shape_are_refused(tmp_path, lenet, unet):
    save_model(lenet, tmp_path / "lenet.pt", metadata())
    with pytest.raises(ModelError, match="is a classifier, not a segmenter"):
        load_model(tmp_path / "lenet.pt", model_kind="segmenter")
    with pytest.raises(ModelError, match="is not a segmenter"):
        load_model(lenet, model_kind="segmenter")
    with pytest.raises(ModelError, match="is not a classifier"):
        load_model(UNet(2, 2), model_kind="classifier")
    with pytest.raises(ModelError, match="is not a classifier"):
        load_model(nn.Flatten(0), model_kind="classifier")
    save_model(lenet, tmp_path / "three.pt", metadata(classes=("a", "b", "t3ss")))
    with pytest.raises(ModelError, match=r"\(M, 3\)"):
        load_model(tmp_path / "three.pt", model_kind="classifier")
    save_model(lenet, tmp_path / "window.pt", metadata(window_px=40))
    with pytest.raises(ModelError, match="does not take"):
        load_model(tmp_path / "window.pt", model_kind="classifier")
    with pytest.raises(ConfigError, match="kind"):
        load_model(lenet, model_kind="detector")


def test_files_that_are_no_torchscript_are_refused(tmp_path, lenet):
    with pytest.raises(ModelError, match="no model file"):
        load_model(tmp_path / "missing.pt", model_kind="classifier")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(ModelError, match="not a TorchScript file"):
        load_model(tmp_path / "text.pt", model_kind="classifier")
    torch.save(lenet.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ModelError, match=r"torch\.save"):
        load_model(tmp_path / "state.pt", model_kind="classifier")
    torch.save(lenet, tmp_path / "module.pt")
    with pytest.raises(ModelError, match=r"torch\.save"):
        load_model(tmp_path / "module.pt", model_kind="classifier")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a/b.txt", "x")
    with pytest.raises(ModelError, match="zip archive"):
        load_model(tmp_path / "other.pt", model_kind="classifier")
    (tmp_path / "export.pt2").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"torch\.export"):
        load_model(tmp_path / "export.pt2", model_kind="classifier")
    save_model(lenet, tmp_path / "whole.pt", metadata())
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="TorchScript"):
        load_model(tmp_path / "cut.pt", model_kind="classifier")


def test_metadata_are_checked():
    for wrong in (
        {"kind": "judge"},
        {"voxel_size_angstrom": -1.0},
        {"window_px": 1},
        {"contrast": "grey"},
        {"output": "words"},
    ):
        with pytest.raises(ModelError, match=next(iter(wrong))):
            metadata(**wrong)
    assert ModelMetadata.from_json(metadata().to_json()) == metadata()
    for text in ("[]", "{", "{}", '{"kind": "classifier", "normalisation": {}}'):
        with pytest.raises(ModelError, match="metadata"):
            ModelMetadata.from_json(text)
    with pytest.raises(ModelError, match="update"):
        ModelMetadata.from_json('{"format": 99, "kind": "classifier"}')


def test_unscriptable_modules_are_refused(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.from_numpy(np.zeros((len(x), 2), np.float32))

    with pytest.raises(ModelError, match="TorchScript"):
        save_model(Odd(), tmp_path / "odd.pt", metadata())
    assert not list(tmp_path.iterdir())


def test_bundled_models_are_pinned(tmp_path, monkeypatch, lenet):
    monkeypatch.setattr(models.files.resources, "files", lambda package: tmp_path)
    weights = tmp_path / "weights"
    weights.mkdir()
    with pytest.raises(ModelError, match="not installed"):
        load_model(None, model_kind="classifier")
    sha256 = save_model(lenet, weights / "classifier.pt", metadata())
    (weights / "checksums.json").write_text(json.dumps({"classifier.pt": sha256}))
    assert load_model(None, model_kind="classifier").path == "bundled:classifier.pt"
    with pytest.raises(ModelError, match="not installed"):
        load_model(None, model_kind="segmenter")
    # Tampered with: another model in its place.
    save_model(LeNet((2, 3), (8, 6)), tmp_path / "other.pt", metadata())
    shutil.copy(tmp_path / "other.pt", weights / "classifier.pt")
    with pytest.raises(ModelError, match="damaged"):
        load_model(None, model_kind="classifier")
