"""Networks, model files and their metadata."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from archives import read_archive, write_archive
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models import (
    VERIFIER_ANSWERS,
    AxialNet,
    LeNet,
    LoadedModel,
    ModelMetadata,
    UNet,
    load_model,
    save_model,
)
from t3ssfast.models.bundled import BUNDLED_SHA256
from t3ssfast.models.normalisation import Normalisation

CLASSES = ("background", "t3ss")
EARLIER_MODELS = Path(__file__).parents[1] / "golden" / "models"


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


def assert_equal_outputs(a, b, inputs):
    torch.testing.assert_close(a(inputs), b(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("window", [16, 32, 50, 51])
def test_lenet_output_shape(window):
    assert LeNet(classes=3, window=window)(torch.zeros(4, 1, window, window)).shape == (4, 3)


def test_unet_keeps_image_size(unet):
    assert unet(torch.zeros(2, 1, 16, 24)).shape == (2, 1, 16, 24)
    assert UNet()(torch.zeros(1, 1, 16, 32)).shape == (1, 1, 16, 32)


def test_segmenter_with_several_input_slices(tmp_path):
    path = tmp_path / "unet.pt"
    net = UNet(depth=2, base=2, slices=3)
    assert net(torch.zeros(2, 3, 16, 24)).shape == (2, 1, 16, 24)
    save_model(net, path, ModelMetadata("segmenter", slices=3))
    assert load_model(path, model_kind="segmenter").metadata.slices == 3
    save_model(net, path, ModelMetadata("segmenter"))
    with pytest.raises(ModelError, match=r"does not take slices \(N, 1, H, W\)"):
        load_model(path, model_kind="segmenter")
    for invalid in (0, 2, 17, 1.0):
        with pytest.raises(ModelError, match="slices"):
            ModelMetadata("segmenter", slices=invalid)


def test_networks_refuse_impossible_widths():
    for name, build in (
        ("LeNet", lambda: LeNet((0, 16))),
        ("LeNet", lambda: LeNet(window=10)),
        ("U-Net", lambda: UNet(depth=0)),
        ("AxialNet", lambda: AxialNet(height=20)),
    ):
        with pytest.raises(ConfigError, match=name):
            build()


def test_save_and_load_keep_weights_and_metadata(tmp_path, lenet):
    path = tmp_path / "lenet.pt"
    saved = metadata()
    sha256 = save_model(lenet, path, saved)
    loaded = load_model(path, model_kind="classifier")
    assert loaded.metadata == saved
    assert loaded.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.path == str(path)
    windows = torch.randn(5, 1, 50, 50)
    assert_equal_outputs(loaded.module, lenet, windows)
    assert not loaded.module.training
    assert lenet.training
    assert [p.name for p in tmp_path.iterdir()] == ["lenet.pt"]
    assert save_model(lenet, path, saved) == sha256, "equal weights must give equal files"
    assert b"site-packages" not in path.read_bytes(), "the file contains source paths"
    assert load_model(loaded, model_kind="classifier") is loaded
    # A TorchScript module can be saved again.
    save_model(loaded.module, tmp_path / "again.pt", saved)
    assert_equal_outputs(load_model(tmp_path / "again.pt", model_kind="classifier").module, lenet, windows)


def test_frozen_model_gives_same_outputs(tmp_path, unet):
    with torch.no_grad():
        for _ in range(3):
            unet(torch.randn(4, 1, 32, 32) * 3 + 1)
    save_model(unet, tmp_path / "unet.pt", metadata(model_kind="segmenter", classes=("membrane",)))
    loaded = load_model(tmp_path / "unet.pt", model_kind="segmenter")
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.frozen(image), unet.eval()(image), atol=1e-5, rtol=1e-5)


def test_fused_model_gives_same_outputs(tmp_path, unet):
    save_model(unet, tmp_path / "unet.pt", metadata(model_kind="segmenter", classes=("membrane",)))
    loaded = load_model(tmp_path / "unet.pt", model_kind="segmenter")
    axial = LoadedModel(AxialNet((2, 3, 4, 5), 6, 16).eval(), metadata(), "0", "here")
    unscriptable = LoadedModel(nn.Conv2d(1, 2, 3).requires_grad_(False), metadata(), "0", "here")
    unscriptable.module.forward = lambda *images: images[0] * 2
    for model, inputs in (
        (loaded, torch.randn(2, 1, 32, 48)),
        (axial, torch.randn(3, 12, 16, 8)),
        (axial, torch.randn(1, 12, 16, 8)),
        (unscriptable, torch.randn(2, 1, 8, 8)),
    ):
        with torch.inference_mode():
            torch.testing.assert_close(model.fused(inputs), model.module(inputs), atol=1e-5, rtol=1e-5)


def test_models_without_metadata_are_accepted_with_a_warning(tmp_path, lenet, unet):
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
        many = load_model(LeNet((2, 3), (8, 6), classes=3), model_kind="classifier")
    assert many.metadata.classes == ("class_0", "class_1", "t3ss")
    windows = torch.randn(4, 1, 50, 50)
    torch.testing.assert_close(
        soft.probability(soft.module(windows)), loaded.probability(loaded.module(windows))
    )
    with pytest.warns(UserWarning, match="voxel size"):
        module = load_model(unet, model_kind="segmenter")
    assert module.path == "<module>"
    assert len(module.sha256) == 64
    with pytest.raises(ModelError, match="which a verifier needs"):
        load_model(AxialNet(height=16), model_kind="verifier")


def test_probability_is_that_of_the_class_named_t3ss(lenet):
    outputs = torch.tensor([[0.0, 2.0, -1.0]])
    for classes, index in ((("t3ss", "a", "b"), 0), (("a", "t3ss", "b"), 1), (("a", "b", "c"), 2)):
        loaded = LoadedModel(lenet, metadata(classes=classes), "", "")
        torch.testing.assert_close(loaded.probability(outputs), torch.softmax(outputs, 1)[:, index])
    single = LoadedModel(lenet, metadata(classes=()), "", "")
    torch.testing.assert_close(single.probability(torch.tensor([[0.0]])), torch.tensor([0.5]))


class ConstantOutput(nn.Module):
    """Gives the same output for any input."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output.expand(x.shape[0], -1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_models_with_non_finite_outputs_are_refused(tmp_path, value):
    save_model(ConstantOutput(torch.tensor([value, 0.0])), tmp_path / "model.pt", metadata())
    with pytest.raises(ModelError, match="NaN"):
        load_model(tmp_path / "model.pt", model_kind="classifier")


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
    with pytest.raises(ConfigError, match="model_kind is 'detector'"):
        load_model(lenet, model_kind="detector")


def test_files_that_are_not_torchscript_are_refused(tmp_path, lenet):
    (tmp_path / "text.pt").write_text("weights")
    torch.save(lenet.state_dict(), tmp_path / "state.pt")
    torch.save(lenet, tmp_path / "module.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a/b.txt", "x")
    (tmp_path / "export.pt2").write_bytes(b"PK")
    save_model(lenet, tmp_path / "whole.pt", metadata())
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "truncated.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder.pt").mkdir()
    for name, message in {
        "missing.pt": "no model file",
        "folder.pt": "is not a file",
        "text.pt": "not a TorchScript file",
        "state.pt": r"torch\.save",
        "module.pt": r"torch\.save",
        "other.pt": "zip archive",
        "export.pt2": r"torch\.export",
        "truncated.pt": "TorchScript",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(tmp_path / name, model_kind="classifier")


def test_metadata_validation():
    for change in (
        {"model_kind": "judge"},
        {"voxel_size_angstrom": -1.0},
        {"window_px": 1},
        {"contrast": "grey"},
        {"output": "words"},
    ):
        with pytest.raises(ModelError, match=next(iter(change))):
            metadata(**change)
    for change in ({"window_px": 24}, {"classes": CLASSES}, {"output": "probabilities"}):
        verifier = {"model_kind": "verifier", "window_px": 16, "classes": VERIFIER_ANSWERS}
        metadata(**verifier)
        with pytest.raises(ModelError, match=next(iter(change))):
            metadata(**(verifier | change))
    assert ModelMetadata.from_json(metadata().to_json()) == metadata()
    for text in ("[]", "{", "{}", '{"model_kind": "classifier", "normalisation": {}}'):
        with pytest.raises(ModelError, match="metadata"):
            ModelMetadata.from_json(text)
    with pytest.raises(ModelError, match="update"):
        ModelMetadata.from_json('{"format": 99, "model_kind": "classifier"}')


def test_metadata_keys_of_earlier_versions_are_read(tmp_path, lenet):
    document = json.loads(metadata().to_json())
    document["kind"] = document.pop("model_kind")
    document["figures"] = document.pop("metrics")
    assert ModelMetadata.from_json(json.dumps(document)) == metadata()
    assert {"model_kind", "metrics"} <= set(json.loads(metadata().to_json()))
    extra = {"t3ssfast.json": json.dumps(document)}
    torch.jit.save(torch.jit.script(lenet.eval()), tmp_path / "earlier.pt", _extra_files=extra)
    assert load_model(tmp_path / "earlier.pt", model_kind="classifier").metadata == metadata()


@pytest.mark.parametrize("model_kind", ["classifier", "segmenter", "verifier"])
def test_model_files_of_earlier_versions_have_metrics(model_kind):
    loaded = load_model(EARLIER_MODELS / f"{model_kind}.pt", model_kind=model_kind)
    assert loaded.metadata.model_kind == model_kind
    assert "validation_loss" in loaded.metadata.metrics


def test_unscriptable_modules_are_refused(tmp_path):
    class Unscriptable(nn.Module):
        def forward(self, x):
            return torch.from_numpy(np.zeros((len(x), 2), np.float32))

    with pytest.raises(ModelError, match="TorchScript"):
        save_model(Unscriptable(), tmp_path / "model.pt", metadata())
    assert not list(tmp_path.iterdir())


def test_bundled_models_must_match_their_checksums(tmp_path, monkeypatch, lenet):
    monkeypatch.setattr("t3ssfast.models.bundled.resources.files", lambda package: tmp_path)
    weights = tmp_path / "weights"
    weights.mkdir()
    with pytest.raises(ModelError, match="not installed"):
        load_model(None, model_kind="classifier")
    sha256 = save_model(lenet, weights / "classifier.safetensors", metadata())
    with pytest.raises(ModelError, match="damaged"):
        load_model(None, model_kind="classifier")
    monkeypatch.setitem(BUNDLED_SHA256, "classifier", sha256)
    assert load_model(None, model_kind="classifier").path == "bundled:classifier"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_networks_of_the_package_are_saved_in_both_formats(tmp_path, suffix):
    """Neither the code in a TorchScript file nor a child process is needed to read them."""
    networks = {
        "classifier": (LeNet((2, 3), (8, 6), window=53), (2, 1, 53, 53), {"window_px": 53}),
        "segmenter": (UNet(depth=2, base=4, slices=3), (2, 3, 32, 32), {"slices": 3}),
        "verifier": (
            AxialNet((2, 3, 4, 5), hidden=6, height=32),
            (2, 12, 32, 16),
            {"window_px": 32, "classes": VERIFIER_ANSWERS},
        ),
    }
    for model_kind, (network, shape, options) in networks.items():
        path = tmp_path / f"{model_kind}{suffix}"
        save_model(network, path, ModelMetadata(model_kind, **options))
        loaded = load_model(path, model_kind=model_kind)
        assert type(loaded.module) is type(network)
        x = torch.randn(shape)
        with torch.no_grad():
            assert torch.equal(loaded.module(x), network.eval()(x))


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "Elsewhere"},
        {"name": "LeNet", "channels": [2, 3], "hidden": [8, 7]},
        {"name": "LeNet", "channels": [2**40, 3]},
        {"name": "LeNet", "depth": 3},
        {"name": "UNet", "depth": 200},
        {"name": "LeNet", "channels": "no", "hidden": None},
        {"name": ["LeNet"]},
    ],
    ids=str,
)
def test_architectures_that_the_weights_do_not_have_are_refused(tmp_path, lenet, architecture):
    path = tmp_path / "model.pt"
    save_model(lenet, path, metadata())
    members = read_archive(path)
    (name,) = (name for name in members if name.endswith("t3ssfast.json"))
    members[name] = replace(metadata(), architecture=architecture).to_json().encode()
    path.write_bytes(write_archive(members))
    with pytest.raises(ModelError, match="does not hold the network"):
        load_model(path, model_kind="classifier")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}", (2**40).to_bytes(8, "little"), b"[" * 5000],
    ids=["empty", "long header", "no metadata", "huge header", "depth"],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError):
        load_model(tmp_path / "model.safetensors", model_kind="classifier")


def test_other_modules_are_not_saved_as_safetensors(tmp_path):
    with pytest.raises(ModelError, match=r"ends in \"\.pt\""):
        save_model(nn.Sequential(nn.Flatten(), nn.Linear(2500, 2)), tmp_path / "m.safetensors", metadata())
    assert not list(tmp_path.iterdir())
