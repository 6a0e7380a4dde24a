"""Faulty models are refused with a message that names the fault."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from processes import python
from t3ssfast.errors import ModelError
from t3ssfast.models import LeNet, ModelMetadata, load_model, save_model
from t3ssfast.models.torchscript import quiet_torchscript


class FaultyClassifier(nn.Module):
    """A classifier of windows (M, 1, 50, 50) with a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.layer = nn.Linear(2500, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x.flatten(1))
        if self.fault == "nan":
            outputs = outputs / torch.zeros_like(outputs)
        if self.fault == "integers":
            outputs = outputs.to(torch.int64)
        if self.fault == "one row":
            outputs = outputs.mean(0, keepdim=True)
        if self.fault == "three axes":
            outputs = outputs.unsqueeze(2)
        if self.fault == "device":
            outputs = outputs.to(torch.device("cuda:7"))
        if self.fault == "double":
            outputs = outputs.to(torch.float64) @ torch.ones((2, 2))
        if self.fault == "random":
            outputs = torch.dropout(outputs, 0.5, True)
        if self.fault == "batch":
            outputs = outputs - outputs.mean(0, keepdim=True)
        if self.fault == "slow":
            for _ in range(1_000_000_000):
                outputs = outputs + 1
        return outputs


def classifier(fault: str) -> nn.Module:
    torch.manual_seed(0)
    return FaultyClassifier(fault)


# Fault: a function that makes the module, and a part of the message.
FAULTS = {
    "three channels": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "does not take windows"),
    "another window": (lambda: LeNet((2, 3), (8, 6), window=40), "does not take windows"),
    "three classes": (lambda: LeNet((2, 3), (8, 6), classes=3), r"output is \(2, 3\)"),
    "a segmenter": (lambda: nn.Conv2d(1, 1, 3, padding=1), r"output is \(2, 1, 50, 50\)"),
    "three axes": (lambda: classifier("three axes"), r"output is \(2, 2, 1\)"),
    "one row for a batch": (lambda: classifier("one row"), r"output is \(1, 2\)"),
    "NaN": (lambda: classifier("nan"), "NaN or infinity"),
    "integers": (lambda: classifier("integers"), "another dtype than float32"),
    "float64 inside the network": (lambda: classifier("double"), "another dtype than float32"),
    "permanent dropout": (lambda: classifier("random"), "training mode"),
    "permanent batch statistics": (lambda: classifier("batch"), "in a batch"),
    "no output in time": (lambda: classifier("slow"), "within 0.5 s"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_models_are_refused(tmp_path, name):
    make, message = FAULTS[name]
    metadata = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    if name == "no output in time":
        # The thread cannot be stopped, so it runs in a process that exits.
        script = f"""
            import torch, test_wrong_models as t
            from t3ssfast.models import load_model
            import sys; sys.modules["t3ssfast.models.probe"].TIMEOUT_SECONDS = 0.5
            t.save_model(t.classifier("slow"), {str(tmp_path / "slow.pt")!r}, t.ModelMetadata("classifier"))
            try:
                load_model({str(tmp_path / "slow.pt")!r}, model_kind="classifier", trust_model=True)
            except t.ModelError as error:
                assert "within 0.5 s" in str(error), str(error)
                import os; os._exit(0)
            """
        assert python(script).returncode == 0
        return
    with quiet_torchscript():
        module = make()
        path = tmp_path / "model.pt"
        if isinstance(module, torch.jit.ScriptModule):
            torch.jit.save(module, path, _extra_files={"t3ssfast.json": metadata.to_json()})
        else:
            save_model(module, path, metadata)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path, model_kind="classifier")
    assert str(caught.value).isprintable()


def test_float64_weights_and_training_mode_are_corrected(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2500, 2)).double().train()
    metadata = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    with quiet_torchscript():
        script = torch.jit.script(module)
        torch.jit.save(script, tmp_path / "model.pt", _extra_files={"t3ssfast.json": metadata.to_json()})
    loaded = load_model(tmp_path / "model.pt", model_kind="classifier").module
    x = torch.randn(3, 1, 50, 50)
    torch.testing.assert_close(loaded(x), module.float().eval()(x))
