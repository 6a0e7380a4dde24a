"""Model files from TorchScript to safetensors and back."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models import (
    VERIFIER_ANSWERS,
    AxialNet,
    LeNet,
    ModelMetadata,
    UNet,
    convert_model,
    load_model,
    save_model,
    save_trained,
    saving,
)
from t3ssfast.training.calibrate import update_metadata

NETWORKS = {
    "classifier": lambda: LeNet((2, 3), (8, 6), classes=3),
    "segmenter": lambda: UNet(depth=2, base=2, slices=3),
    "verifier": lambda: AxialNet((2, 3, 4, 5), 6, height=32),
}


def metadata(kind):
    fields = {
        "classifier": {"window_px": 50, "classes": ("a", "t3ss", "b"), "metrics": {"f1": 0.5}},
        "segmenter": {"slices": 3, "classes": ("membrane",)},
        "verifier": {"window_px": 32, "classes": VERIFIER_ANSWERS},
    }
    return ModelMetadata(kind, 13.6, **fields[kind])


def network(kind):
    torch.manual_seed(0)
    return NETWORKS[kind]().eval()


@pytest.mark.parametrize("kind", NETWORKS)
def test_there_and_back_gives_the_same_file(tmp_path, kind):
    first, middle, last = (tmp_path / name for name in ("a.safetensors", "b.pt", "c.safetensors"))
    save_model(network(kind), first, metadata(kind))
    assert convert_model(first, middle) == metadata(kind)
    assert convert_model(middle, last) == metadata(kind)
    assert last.read_bytes() == first.read_bytes()
    loaded = load_model(middle, model_kind=kind)
    assert loaded.metadata == metadata(kind)
    for name, tensor in network(kind).state_dict().items():
        assert torch.equal(tensor, loaded.module.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "name"), [("classifier", "LeNet"), ("segmenter", "UNet"), ("verifier", "AxialNet")]
)
def test_weights_of_other_programs_with_the_name_of_their_network(tmp_path, kind, name):
    weights, plain = tmp_path / "weights.safetensors", tmp_path / "plain.pt"
    save_file(network(kind).state_dict(), weights)
    torch.jit.script(network(kind)).save(plain)
    for source, out in ((weights, tmp_path / "a.pt"), (plain, tmp_path / "a.safetensors")):
        with pytest.raises(ModelError, match="give --network"):
            convert_model(source, out)
        assert not out.exists()
        converted = convert_model(source, out, network=name, voxel_size_angstrom=10.0)
        loaded = load_model(out, model_kind=kind)
        assert loaded.metadata.voxel_size_angstrom == converted.voxel_size_angstrom == 10
        assert loaded.metadata.slices == (3 if kind == "segmenter" else 1)
        for key, tensor in network(kind).state_dict().items():
            assert torch.equal(tensor, loaded.module.state_dict()[key])
        wrong = "UNet" if name != "UNet" else "LeNet"
        with pytest.raises(ModelError, match=f"does not have the weights of a {wrong}"):
            convert_model(source, out, network=wrong)


def test_what_cannot_be_converted_is_refused(tmp_path):
    own, foreign = tmp_path / "own.safetensors", tmp_path / "foreign.pt"
    save_model(network("classifier"), own, metadata("classifier"))
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(2500, 2)).eval()).save(foreign)
    for source, out, options, error, words in (
        (own, "a.onnx", {}, ConfigError, "a.onnx ends in neither"),
        (own, "a.safetensors", {}, ConfigError, "both .safetensors"),
        (own, "a.pt", {"network": "ResNet"}, ConfigError, "network is 'ResNet'"),
        (own, "a.pt", {"network": "UNet"}, ConfigError, "leave out --network"),
        (own, "a.pt", {"voxel_size_angstrom": 3.0}, ConfigError, "leave out"),
        (foreign, "a.safetensors", {}, ModelError, "does not name its network"),
        (foreign, "a.safetensors", {"network": "LeNet"}, ModelError, "weights of a LeNet"),
        (tmp_path / "none.pt", "a.safetensors", {}, ModelError, "There is no model file"),
    ):
        with pytest.raises(error, match=words):
            convert_model(source, tmp_path / out, **options)
        assert not (tmp_path / out).exists()
    for content in (b"", b"\xff" * 64, (8).to_bytes(8, "little") + b"[]      "):
        (tmp_path / "odd.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match="is not a safetensors file"):
            convert_model(tmp_path / "odd.safetensors", tmp_path / "a.pt")


def test_command(tmp_path):
    own, out = tmp_path / "own.safetensors", tmp_path / "out.pt"
    save_model(network("segmenter"), own, metadata("segmenter"))
    result = CliRunner().invoke(app, ["convert", str(own), str(out)])
    assert (result.exit_code, result.output) == (0, f"wrote the segmenter to {out}\n")
    result = CliRunner().invoke(app, ["convert", str(out), str(own), "--json"])
    assert json.loads(result.output)["metadata"]["slices"] == 3
    result = CliRunner().invoke(app, ["convert", str(own), str(tmp_path / "a.txt")])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert len(result.output.splitlines()) == 1


def test_training_writes_both_formats_and_calibration_changes_both(tmp_path, monkeypatch):
    for name in ("a.pt", "b.safetensors"):
        path = tmp_path / name
        save_trained(network("classifier"), path, metadata("classifier"))
        update_metadata(path, "classifier", metrics={"f1": 0.75})
        for suffix in (".pt", ".safetensors"):
            loaded = load_model(path.with_suffix(suffix), model_kind="classifier")
            assert loaded.metadata.metrics == {"f1": 0.75}
    # Another model of the same name is left alone.
    other = LeNet((2, 3), (8, 6), classes=3)
    save_model(other, tmp_path / "a.safetensors", metadata("classifier"))
    before = (tmp_path / "a.safetensors").read_bytes()
    update_metadata(tmp_path / "a.pt", "classifier", metrics={})
    assert (tmp_path / "a.safetensors").read_bytes() == before
    # A network of one's own has no safetensors file, and without TorchScript there is no other.
    save_trained(nn.Sequential(nn.Flatten()), tmp_path / "c.pt", ModelMetadata("classifier"))
    monkeypatch.setattr(saving, "torchscript_problem", lambda: "not here")
    save_trained(network("classifier"), tmp_path / "d.safetensors", metadata("classifier"))
    assert not (tmp_path / "c.safetensors").exists()
    assert not (tmp_path / "d.pt").exists()
    with pytest.raises(ModelError, match=r"d\.pt would be TorchScript"):
        saving.check_format(tmp_path / "d.pt")
