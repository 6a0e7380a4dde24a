"""A model that is wrong says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from processes import python
from t3ssfast.errors import ModelError
from t3ssfast.models import LeNet, ModelMetadata, load_model, save_model
from t3ssfast.models.torchscript import quiet_torchscript


class Answering(nn.Module):
    """Turns windows (M, 1, 50, 50) into whatever is asked of it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.layer = nn.Linear(2500, 2)

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.layer(x.flatten(1))
        if self.how == "nan":
            answers = answers / torch.zeros_like(answers)
        if self.how == "integers":
            answers = answers.to(torch.int64)
        if self.how == "one row":
            answers = answers.mean(0, keepdim=True)
        if self.how == "three axes":
            answers = answers.unsqueeze(2)
        if self.how == "device":
            answers = answers.to(torch.device("cuda:7"))
        if self.how == "double":
            answers = answers.to(torch.float64) @ torch.ones((2, 2))
        if self.how == "random":
            answers = torch.dropout(answers, 0.5, True)
        if self.how == "batch":
            answers = answers - answers.mean(0, keepdim=True)
        if self.how == "slow":
            for _ in range(1_000_000_000):
                answers = answers + 1
        return answers


def classifier(how: str) -> nn.Module:
    torch.manual_seed(0)
    return Answering(how)


def frozen_doubles() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(classifier("").double().eval()))


# What is wrong with it: a module, and words of the sentence.
WRONG = {
    "three channels": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "does not take windows"),
    "another window": (lambda: LeNet((2, 3), (8, 6), window=40), "does not take windows"),
    "three classes": (lambda: LeNet((2, 3), (8, 6), classes=3), r"answers \(2, 3\)"),
    "a segmenter": (lambda: nn.Conv2d(1, 1, 3, padding=1), r"answers \(2, 1, 50, 50\)"),
    "three axes": (lambda: classifier("three axes"), r"answers \(2, 2, 1\)"),
    "one row for a batch": (lambda: classifier("one row"), r"answers \(1, 2\)"),
    "NaN": (lambda: classifier("nan"), "NaN or infinity"),
    "integers": (lambda: classifier("integers"), "floating-point"),
    "another device": (lambda: classifier("device"), "does not take windows"),
    "float64 half way": (lambda: classifier("double"), "does not take windows"),
    "float64 weights, frozen": (frozen_doubles, "does not take windows"),
    "dropout that stays on": (lambda: classifier("random"), "differently when asked again"),
    "batch statistics that stay on": (lambda: classifier("batch"), "in a batch"),
    "an answer that does not come": (lambda: classifier("slow"), "within 0.5 s"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_is_wrong_says_so(tmp_path, name, monkeypatch):
    make, words = WRONG[name]
    said = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    if name == "an answer that does not come":
        # Nobody can stop it; it ends with the process.
        run = f"""
            import torch, test_wrong_models as t
            from t3ssfast.models import load_model, probe
            import sys; sys.modules["t3ssfast.models.probe"].PROBE_SECONDS = 0.5
            t.save_model(t.classifier("slow"), {str(tmp_path / "slow.pt")!r}, t.ModelMetadata("classifier"))
            try:
                load_model({str(tmp_path / "slow.pt")!r}, model_kind="classifier")
            except t.ModelError as error:
                assert "within 0.5 s" in str(error), str(error)
                import os; os._exit(0)
            """
        assert python(run).returncode == 0
        return
    with quiet_torchscript():
        module = make()
        if isinstance(module, torch.jit.ScriptModule):
            path = tmp_path / "model.pt"
            torch.jit.save(module, path, _extra_files={"t3ssfast.json": said.to_json()})
        else:
            path = tmp_path / "model.pt"
            save_model(module, path, said)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(path, model_kind="classifier")
    assert str(caught.value).isprintable()


def test_weights_in_float64_and_training_mode_are_put_right(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2500, 2)).double().train()
    said = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    with quiet_torchscript():
        script = torch.jit.script(module)
        torch.jit.save(script, tmp_path / "model.pt", _extra_files={"t3ssfast.json": said.to_json()})
    loaded = load_model(tmp_path / "model.pt", model_kind="classifier").module
    x = torch.randn(3, 1, 50, 50)
    torch.testing.assert_close(loaded(x), module.float().eval()(x))


def test_there_are_twelve_ways_at_least():
    assert len(WRONG) >= 12
