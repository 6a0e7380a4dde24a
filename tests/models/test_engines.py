"""Engines of the segmenter: same answers, and what happens where one is missing or wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import ENGINES, loaded_segmenter, openvino_only, segment, small_unet
from processes import search_path
from t3ssfast.detection.inputs import normalise
from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels.graph import graph_of
from t3ssfast.models import UNet, load_model
from t3ssfast.models.engines import engine as engine_module
from t3ssfast.models.engines.bfloat16 import can_run_bfloat16
from t3ssfast.models.engines.cuda_graphs import half_precision
from t3ssfast.models.engines.int8 import Int8Engine, has_int8_instructions
from t3ssfast.runtime.memory import free_memory
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.simulation.simulate import simulate


@pytest.fixture(scope="module")
def unet():
    return small_unet()


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_equal_the_network_with_any_number_of_threads(unet, engine):
    slab = np.random.default_rng(6).normal(size=(2, 64, 96)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(unet.module(torch.from_numpy(slab)[:, None]))[:, 0].numpy()
    answers = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            answers.append(segment(slab, unet, engine=engine))
    np.testing.assert_allclose(answers[0], expected, atol=1e-4)
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])
    used = unet.engine(engine)
    assert used.name == engine
    assert used.reason


@openvino_only
def test_openvino_is_chosen_where_installed_and_sends_no_telemetry(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import numpy as np\n"
        "from t3ssfast.models import load_model\n"
        "from networks import segment\n"
        "import t3ssfast.models.engines.engine as engine\n"
        "engine.has_bfloat16_instructions = engine.has_int8_instructions = lambda: False\n"
        "model = load_model(None, model_kind='segmenter')\n"
        "segment(np.zeros((1, 64, 64), np.float32), model)\n"
        "assert model.engine().name == 'openvino', model.engine().reason\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": search_path()}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment, cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "something was written"


@openvino_only
def test_openvino_reads_networks_that_freezing_cannot_fold(unet):
    class Strange(nn.Module):
        """Normalisation before a convolution, a loop over a list, bilinear upsampling, a size in the code."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.blocks = nn.ModuleList(nn.Conv2d(1 if k == 0 else 3, 3, 3, padding=1) for k in range(3))
            self.head = nn.Conv2d(6, 1, 1)

        def forward(self, image: Tensor) -> Tensor:
            x = self.norm(image)
            seen: list[Tensor] = []
            for block in self.blocks:
                x = nn.functional.leaky_relu(block(x), 0.1)
                seen.append(x)
            small = nn.functional.avg_pool2d(seen[-1], 2)
            back = nn.functional.interpolate(
                small, size=image.shape[2:], mode="bilinear", align_corners=False
            )
            return self.head(torch.cat([seen[0], back], dim=1))

    torch.manual_seed(1)
    net = Strange()
    net.norm.running_mean.fill_(0.3)
    net.norm.running_var.fill_(2.0)
    model = loaded_segmenter(net)
    slab = np.random.default_rng(7).normal(size=(1, 48, 64)).astype(np.float32)
    expected = segment(slab, model, engine="torch")
    np.testing.assert_allclose(segment(slab, model, engine="openvino"), expected, atol=1e-4)


@openvino_only
def test_torch_runs_what_openvino_cannot_read():
    class Bessel(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.special.bessel_j0(image)

    model = loaded_segmenter(Bessel())
    slab = np.random.default_rng(7).normal(size=(1, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(segment(slab, model), segment(slab, model, engine="torch"))
    assert model.engine().name == "torch"
    assert "bessel_j0" in model.engine().reason


class Unreadable:
    """An engine that cannot read any network."""

    def __init__(self, network: nn.Module) -> None:
        pass

    def __call__(self, tile: Tensor) -> Tensor:
        raise NotImplementedError("no rule for aten::strange\nand more")


class Wrong(Unreadable):
    """An engine with wrong answers."""

    def __call__(self, tile: Tensor) -> Tensor:
        return torch.zeros_like(tile)


@pytest.mark.parametrize(
    ("fake", "why"), [(Unreadable, "NotImplementedError: no rule for aten::strange"), (Wrong, "differ by")]
)
def test_engine_that_fails_or_differs_is_abandoned_with_the_reason(unet, fake, why, monkeypatch):
    monkeypatch.setattr(engine_module, "has_bfloat16_instructions", lambda: False)
    monkeypatch.setattr(engine_module, "has_int8_instructions", lambda: False)
    monkeypatch.setattr(engine_module, "openvino_version", lambda: "0.0")
    monkeypatch.setattr(engine_module, "OpenVinoEngine", fake)
    slab = np.random.default_rng(8).normal(size=(1, 32, 48)).astype(np.float32)
    model = loaded_segmenter(unet.module)
    np.testing.assert_array_equal(segment(slab, model), segment(slab, model, engine="torch"))
    assert model.engine().name == "torch"
    assert model.engine().reason.startswith("openvino was tried and given up")
    assert why in model.engine().reason
    with pytest.raises(ModelError, match="openvino") as caught:
        segment(slab, model, engine="openvino")
    assert "\n" not in str(caught.value)


def test_missing_engines_raise(unet, monkeypatch):
    slab = np.zeros((1, 16, 16), np.float32)
    with pytest.raises(ConfigError, match="engine"):
        segment(slab, unet, engine="abacus")
    with pytest.raises(ConfigError, match="CUDA"):
        segment(slab, loaded_segmenter(unet.module), engine="cuda-graphs")
    monkeypatch.setattr(engine_module, "has_bfloat16_instructions", lambda: False)
    monkeypatch.setattr(engine_module, "has_int8_instructions", lambda: False)
    monkeypatch.setattr(engine_module, "openvino_version", lambda: None)
    with pytest.raises(ConfigError, match=r"t3ssfast\[openvino\]"):
        segment(slab, loaded_segmenter(unet.module), engine="openvino")
    fresh = loaded_segmenter(unet.module)
    assert fresh.engine().name == "torch"
    assert "not installed" in fresh.engine().reason


needs_bfloat16 = pytest.mark.skipif(not can_run_bfloat16(), reason="needs a processor with AVX512")


@needs_bfloat16
def test_bfloat16_is_chosen_where_the_processor_has_it_and_is_close_to_float32(unet, monkeypatch):
    monkeypatch.setattr(engine_module, "has_bfloat16_instructions", lambda: True)
    slab = np.random.default_rng(6).normal(size=(2, 64, 96)).astype(np.float32)
    model = loaded_segmenter(unet.module)
    expected, found = segment(slab, model, engine="torch"), segment(slab, model)
    assert model.engine().name == "torch-bfloat16", model.engine().reason
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.02


def test_bfloat16_is_not_for_networks_of_others(monkeypatch):
    monkeypatch.setattr(engine_module, "has_bfloat16_instructions", lambda: True)
    other = loaded_segmenter(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)))
    assert other.engine().name in ("torch", "openvino")
    with pytest.raises(ConfigError, match="U-Net of t3ssfast"):
        other.engine("torch-bfloat16")


def test_bfloat16_without_its_instructions_raises(unet, monkeypatch):
    monkeypatch.setattr(engine_module, "can_run_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="AVX512"):
        loaded_segmenter(unet.module).engine("torch-bfloat16")


needs_int8 = pytest.mark.skipif(not has_int8_instructions(), reason="needs a processor with AVX512-VNNI")


@needs_int8
def test_integers_of_8_bits_are_chosen_without_amx_and_find_the_same_membranes(monkeypatch):
    monkeypatch.setattr(engine_module, "has_bfloat16_instructions", lambda: False)
    model = load_model(None, model_kind="segmenter")
    grid = normalise(simulate(5, (24, 208, 272)).tomogram, model)
    slices = [grid.slab_around(z, model.metadata.slices) for z in (4, 12, 20)]
    expected, found = (
        np.stack([segment_slice(around, model, engine=engine) for around in slices])
        for engine in ("torch", "auto")
    )
    assert model.engine().name == "torch-int8", model.engine().reason
    difference = np.abs(found - expected)
    assert 0 < difference.mean() < 1.5e-3
    assert difference.max() < 0.15
    membrane, same = expected > 0.62, found > 0.62
    assert membrane.mean() > 0.02
    dice = 2 * (membrane & same).sum() / (membrane.sum() + same.sum())
    assert dice > 0.99


@needs_int8
def test_integers_of_8_bits_give_the_same_bits_with_any_number_of_threads_and_slices(unet):
    model = loaded_segmenter(unet.module)
    image = torch.randn((3, 1, 48, 64), generator=torch.Generator().manual_seed(2))
    engine = Int8Engine(unet.module)
    with torch.inference_mode():
        together = engine(image)
        for threads in (1, 2, 3):
            with torch_threads(threads):
                one_by_one = torch.cat([engine(image[k : k + 1]) for k in range(3)])
            assert torch.equal(one_by_one, together)
        expected = model.engine("torch")(image)
    assert (together.sigmoid() - expected.sigmoid()).abs().max() < 0.1
    other = loaded_segmenter(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)))
    assert other.engine().name in ("torch", "openvino")
    with pytest.raises(ConfigError, match="U-Net of t3ssfast"):
        other.engine("torch-int8")


@needs_int8
def test_integers_of_8_bits_hold_maps_beside_the_border_and_channels_without_weights():
    torch.manual_seed(4)
    net = UNet(depth=2, base=4).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.1, 0.3)
            layer.bias.data.normal_(0, 0.5)
        if isinstance(layer, nn.ConvTranspose2d):
            # Upsampled maps that are far from 0, which lies beyond the border.
            layer.bias.data.add_(torch.tensor([3.0, -3.0]).repeat(len(layer.bias) // 2))
    normalisations = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    normalisations[2].weight.data[1] = normalisations[2].bias.data[1] = 0
    image = torch.randn((1, 1, 32, 48), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = net(image), Int8Engine(net)(image)
    scale = expected.std()
    assert (found - expected).abs().max() < 0.2 * scale
    # A border of the wrong value would show along the edges.
    edges, inside = (found - expected).clone(), (found - expected)[:, :, 2:-2, 2:-2]
    edges[:, :, 2:-2, 2:-2] = 0
    rms_at_edges = (edges.square().sum() / (edges.numel() - inside.numel())).sqrt()
    assert rms_at_edges < 2 * inside.square().mean().sqrt()


def test_half_precision_is_close_to_the_network(unet):
    image = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    flat = half_precision(graph_of(unet.frozen, image))
    with torch.no_grad():
        answer = flat(image.half())
        expected = unet.module(image)
    assert answer.dtype == torch.float16
    assert abs(answer.float().sigmoid() - expected.sigmoid()).max() < 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_graphs_equal_the_network(unet):
    model = unet.to("cuda")
    slab = np.random.default_rng(9).normal(size=(3, 40, 70)).astype(np.float32)
    expected = segment(slab, model, engine="torch")
    assert model.engine().name == "cuda-graphs"
    for shape in ((slice(None), slice(None)), (slice(0, 2), slice(0, 50)), (slice(None), slice(None))):
        np.testing.assert_allclose(
            segment(slab[:, shape[0], shape[1]], model),
            segment(slab[:, shape[0], shape[1]], model, engine="torch"),
            atol=2e-2,
        )
    np.testing.assert_allclose(segment(slab, model), expected, atol=2e-2)
    free_memory()
    # The graphs were released, and are captured again.
    np.testing.assert_allclose(segment(slab, model), expected, atol=2e-2)
    assert model.engine().name == "cuda-graphs", model.engine().reason
