"""Nothing on the way of the bundled models, and of trained ones as safetensors, needs TorchScript."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from t3ssfast.models import AxialNet, LeNet, LoadedModel, ModelMetadata, UNet
from t3ssfast.models.frozen import freeze, fuse

CPU = torch.device("cpu")


def test_detection_and_training_without_torchscript(tmp_path):
    script = Path(__file__).parent / "no_torchscript.py"
    finished = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr
    message, files = finished.stdout.splitlines()
    assert "a.pt would be TorchScript" in message
    assert "torch.jit.script is used" in message
    assert message.endswith("give a name that ends in .safetensors.")
    written = {"classifier.safetensors", "unet.safetensors", "found"}
    assert written <= set(files.split())
    assert not [name for name in files.split() if name.endswith(".pt")]


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: LeNet((2, 3), (8, 6)), (3, 1, 50, 50)),
        (lambda: UNet(depth=2, base=2, slices=3), (2, 3, 16, 24)),
        (AxialNet, (3, 12, 48, 24)),
    ],
)
def test_prepared_networks_answer_as_before(build, shape):
    torch.manual_seed(0)
    module: nn.Module = build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    image = torch.randn(shape)
    frozen = freeze(module, CPU)
    fused = fuse(frozen, CPU)
    with torch.inference_mode():
        expected = module(image)
        for prepared in (frozen, fused):
            torch.testing.assert_close(prepared(image), expected, rtol=1e-4, atol=1e-5)
            assert not any(isinstance(layer, nn.BatchNorm2d) for layer in prepared.modules())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), "the module that was given is changed"


def test_networks_without_onednn_are_left_as_they_are(monkeypatch):
    frozen = LoadedModel(LeNet((2, 3), (8, 6)).eval(), ModelMetadata("classifier"), "", "<module>").frozen
    assert fuse(frozen, CPU) is not frozen
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fuse(frozen, CPU) is frozen
    assert fuse(frozen, torch.device("cuda")) is frozen
