"""Networks of other people without metadata: windows, outputs, classes, RGB, sizes of slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import segment
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels.graph import graph_of
from t3ssfast.models import LeNet, LoadedModel, UNet, load_model
from t3ssfast.models.torchscript import quiet_torchscript


def load(tmp_path, network, model_kind, **reading) -> LoadedModel:
    """Save a network as TorchScript without metadata and load it."""
    path = tmp_path / "model.pt"
    torch.manual_seed(0)
    with quiet_torchscript():
        torch.jit.script(network.eval()).save(path)
    with pytest.warns(UserWarning, match="holds no t3ssfast metadata"):
        return load_model(path, model_kind=model_kind, **reading)


class Segmenter(nn.Module):
    """A U-Net of a number of poolings, with inputs and outputs of other people."""

    def __init__(self, poolings: int = 2, channels: int = 1, classes: int = 1, form: str = "logits") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = UNet(depth=poolings, base=2, slices=channels)
        self.net.head = nn.Conv2d(2, classes, 1)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        if self.form == "sigmoid":
            y = y.sigmoid()
        if self.form == "softmax":
            y = y.softmax(1)
        if self.form == "no channel":
            y = y[:, 0]
        return y


class TwoSigmoids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = LeNet((2, 3), (8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).sigmoid()


class BarelyOutside(nn.Module):
    """Logits that lie in [0, 1] for inputs of ordinary scale."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(2500, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 0.01 + 0.5


@pytest.mark.parametrize("poolings", [1, 4, 5, 6])
def test_slices_are_padded_to_what_the_segmenter_takes(tmp_path, poolings):
    model = load(tmp_path, Segmenter(poolings), "segmenter")
    assert model.side_multiple == max(16, 2**poolings)
    slab = np.random.default_rng(0).normal(size=(1, 70, 50)).astype(np.float32)
    assert segment(slab, model, engine="torch").shape == slab.shape


def test_own_networks_of_five_poolings_are_padded_too():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="metadata"):
        model = load_model(UNet(depth=5, base=2), model_kind="segmenter")
    assert model.side_multiple == 32
    assert segment(np.zeros((1, 40, 40), np.float32), model, engine="torch").shape == (1, 40, 40)


@pytest.mark.parametrize("form", ["logits", "softmax"])
def test_two_classes_are_background_and_membrane(tmp_path, form):
    network = Segmenter(classes=2, form=form)
    model = load(tmp_path, network, "segmenter")
    assert model.metadata.output == ("logits" if form == "logits" else "probabilities")
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = network.net(x).softmax(1)[:, 1:]
        torch.testing.assert_close(model.probability(model.module(x)), expected)
        torch.testing.assert_close(model.probability(model.frozen(x)), expected, atol=1e-5, rtol=1e-5)


def test_rgb_networks_see_the_grey_slice_three_times(tmp_path):
    network = Segmenter(channels=3)
    model = load(tmp_path, network, "segmenter")
    x = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), network(x.repeat(1, 3, 1, 1)))


def test_answers_without_a_channel_get_one(tmp_path):
    model = load(tmp_path, Segmenter(form="no channel"), "segmenter")
    assert model.module(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_segmenters_of_one_size_are_refused(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 1, 64, 64)

    with quiet_torchscript():
        torch.jit.script(Fixed()).save(tmp_path / "fixed.pt")
    with pytest.raises(ModelError, match="takes only slices of 64 x 64 px"):
        load_model(tmp_path / "fixed.pt", model_kind="segmenter")


@pytest.mark.parametrize(
    ("network", "output"),
    [(TwoSigmoids(), "probabilities"), (BarelyOutside(), "logits"), (LeNet((2, 3), (8, 6)), "logits")],
    ids=["two sigmoids", "small logits", "logits"],
)
def test_outputs_are_told_by_inputs_of_many_scales(tmp_path, network, output):
    if isinstance(network, BarelyOutside):
        nn.init.constant_(network.net[1].weight, 0.1)
    assert load(tmp_path, network, "classifier").metadata.output == output


def test_what_is_given_is_not_found_out(tmp_path):
    model = load(tmp_path, TwoSigmoids(), "classifier", output="logits", target_class=0)
    assert model.metadata.output == "logits"
    assert model.metadata.target_index == 0
    assert model.metadata.classes == ("t3ss", "class_1")
    assert load(tmp_path, Segmenter(form="sigmoid"), "segmenter", output="logits").metadata.output == "logits"


def test_another_window_is_named_and_can_be_given(tmp_path):
    network = LeNet((2, 3), (8, 6), window=40)
    with quiet_torchscript():
        torch.jit.script(network.eval()).save(tmp_path / "lenet.pt")
    with pytest.raises(ModelError, match=r"but of 40 to 43; give window_px=40 \(--window 40\)"):
        load_model(tmp_path / "lenet.pt", model_kind="classifier")
    assert load(tmp_path, network, "classifier", window_px=41).metadata.window_px == 41


def test_classes_can_be_named(tmp_path):
    network = LeNet((2, 3), (8, 6), classes=3)
    assert load(tmp_path, network, "classifier").metadata.target_index == 2
    assert load(tmp_path, network, "classifier", target_class="class_1").metadata.target_index == 1
    assert load(tmp_path, network, "classifier", target_class="0").metadata.target_index == 0
    with pytest.raises(ModelError, match="has no class 'motor'; its classes are 0"):
        load_model(tmp_path / "model.pt", model_kind="classifier", target_class="motor")


@pytest.mark.parametrize("reading", [{"output": "scores"}, {"window_px": 1}], ids=str)
def test_invalid_readings_are_refused(tmp_path, reading):
    with pytest.raises(ConfigError):
        load_model(tmp_path / "absent.pt", model_kind="classifier", **reading)


def test_a_network_that_fails_in_use_is_named_in_one_sentence():
    class FailsOnLargeSlices(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] > 100:
                raise RuntimeError("first line\n\ntoo large inside")
            return x

    with pytest.warns(UserWarning, match="metadata"):
        model = load_model(FailsOnLargeSlices(), model_kind="segmenter")
    with pytest.raises(ModelError, match=r"^<module>: the segmenter cannot be run on slices of 160 x 64 px"):
        segment(np.zeros((1, 150, 50), np.float32), model, engine="torch")


@pytest.mark.parametrize("network", [Segmenter(), Segmenter(channels=3, classes=2)], ids=["plain", "adapted"])
def test_graphs_of_translated_networks_are_those_of_the_network(tmp_path, network):
    """Also where the graph is asked for before the network has run, as OpenVINO's engine does."""
    model = load(tmp_path, network, "segmenter")
    for side in (32, 48, 32):
        x = torch.randn(1, 1, side, 64)
        with torch.inference_mode():
            expected = model.module(x)
            torch.testing.assert_close(graph_of(model.frozen, x)(x), expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(model.frozen(x), expected, atol=1e-5, rtol=1e-5)
