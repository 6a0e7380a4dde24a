"""Segmentation, contrast, pruning, and the region to search."""

from __future__ import annotations

import os
import subprocess
import sys

import cc3d
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from t3ssfast.detection import segment as module
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.segment import find_contrast_sign, prune_membrane, segment, segment_slice
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.kernels._native import openvino_version
from t3ssfast.models import LoadedModel, ModelMetadata, UNet
from t3ssfast.models.engines import engine as engine_module
from t3ssfast.models.engines.cuda_graphs import half_precision
from t3ssfast.models.engines.flatten import flatten_network
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.tomogram import Tomogram
from threads import on_threads

openvino_only = pytest.mark.skipif(openvino_version() is None, reason="OpenVINO is not installed")
ENGINES = ["torch", pytest.param("openvino", marks=openvino_only)]


def loaded(net: nn.Module) -> LoadedModel:
    return LoadedModel(net.eval(), ModelMetadata("segmenter", 13.6), "0", "test")


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    net = UNet(depth=4, base=2)
    # Batch statistics that are not those of a fresh network, so that folding them matters.
    net.train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(4, 1, 32, 32))
    return loaded(net)


class Darkness(nn.Module):
    """Sees membrane where it is dark."""

    def forward(self, image: Tensor) -> Tensor:
        return -4.0 * image - 8.0


@pytest.mark.parametrize("shape", [(5, 32, 48), (4, 37, 50), (3, 5, 7), (2, 1, 20)])
def test_slices_are_answered_alike_in_any_slab(unet, shape):
    slab = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = segment(slab, unet)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    assert 0 <= whole.min() <= whole.max() <= 1
    for thickness in (1, 2, 3):
        parts = [segment(slab[z : z + thickness], unet) for z in range(0, shape[0], thickness)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_slices_are_answered_as_by_the_network_alone(unet):
    slab = np.random.default_rng(1).normal(size=(2, 32, 64)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(unet.module(torch.from_numpy(slab)[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(segment(slab, unet), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_of_several_slices_sees_those_around(engine):
    torch.manual_seed(3)
    net = UNet(depth=4, base=2, slices=5)
    model = LoadedModel(net.eval(), ModelMetadata("segmenter", 13.6, slices=5), "0", "test")
    slab = np.random.default_rng(2).normal(size=(7, 32, 37)).astype(np.float32)
    padded = torch.from_numpy(np.pad(slab, ((2, 2), (0, 0), (0, 0)), mode="edge"))
    padded = torch.nn.functional.pad(padded, (0, 11), mode="reflect")
    with torch.no_grad():
        expected = [torch.sigmoid(net(padded[None, z : z + 5]))[0, 0, :, :37] for z in range(7)]
    found = segment(slab, model, engine=engine)
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-5)
    np.testing.assert_array_equal(segment_slice(slab[1:6], model, engine=engine), found[3])
    # What is farther away than it sees does not matter.
    np.testing.assert_array_equal(segment(slab[:6], model, engine=engine)[:4], found[:4])
    assert not np.array_equal(segment(slab[2:5], model, engine=engine)[1], found[3])


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_answer_as_the_whole_slice(unet, engine, monkeypatch):
    slab = np.random.default_rng(2).normal(size=(1, 290, 500)).astype(np.float32)
    whole = segment(slab, unet, engine=engine)
    monkeypatch.setattr(module, "MIN_TILE", 256)
    for max_tile in (256, 320):
        np.testing.assert_allclose(segment(slab, unet, engine=engine, max_tile=max_tile), whole, atol=1e-6)
    for wrong in (250, 100):
        with pytest.raises(ConfigError, match="max_tile"):
            segment(slab, unet, max_tile=wrong)


@given(st.integers(1, 400), st.integers(16, 80))
def test_tiles_are_alike_and_cover_a_side_with_their_halo(length, max_tile):
    length, max_tile = 16 * length, 16 * max_tile
    tiles = module._tiles(length, max(max_tile, 256))
    assert [a for a, *_ in tiles] == [0, *(b for _, b, *_ in tiles[:-1])]
    assert tiles[-1][1] == length
    assert len({end - start for *_, start, end in tiles}) == 1
    for a, b, start, end in tiles:
        assert 0 <= start <= a < b <= end <= length
        assert start % 16 == end % 16 == 0
        assert end - start <= max(max_tile, 256)
        assert start == 0 or a - start >= module.TILE_HALO
        assert end == length or end - b >= module.TILE_HALO


# ------------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_answer_as_the_network_and_the_same_on_any_threads(unet, engine):
    slab = np.random.default_rng(6).normal(size=(2, 64, 96)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(unet.module(torch.from_numpy(slab)[:, None]))[:, 0].numpy()
    answers = []
    for threads in (1, 2, 3):
        with on_threads(threads):
            answers.append(segment(slab, unet, engine=engine))
    np.testing.assert_allclose(answers[0], expected, atol=1e-4)
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])
    used = unet.engine(engine)
    assert used.name == engine
    assert used.reason


@openvino_only
def test_openvino_is_taken_where_it_is_installed_and_reports_to_nobody(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import numpy as np\n"
        "from t3ssfast.models import load_model\n"
        "from t3ssfast.detection.segment import segment\n"
        "model = load_model(None, model_kind='segmenter')\n"
        "segment(np.zeros((1, 64, 64), np.float32), model)\n"
        "assert model.engine().name == 'openvino', model.engine().reason\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment, cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "something was written"


@openvino_only
def test_networks_with_pieces_that_freezing_cannot_fold_are_read(unet):
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
    model = loaded(net)
    slab = np.random.default_rng(7).normal(size=(1, 48, 64)).astype(np.float32)
    expected = segment(slab, model, engine="torch")
    np.testing.assert_allclose(segment(slab, model, engine="openvino"), expected, atol=1e-4)


@openvino_only
def test_what_openvino_cannot_read_is_run_by_torch_and_told_of():
    class Bessel(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.special.bessel_j0(image)

    model = loaded(Bessel())
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
    """An engine that answers something else."""

    def __call__(self, tile: Tensor) -> Tensor:
        return torch.zeros_like(tile)


@pytest.mark.parametrize(
    ("fake", "why"), [(Unreadable, "NotImplementedError: no rule for aten::strange"), (Wrong, "differ by")]
)
def test_an_engine_that_fails_or_differs_is_given_up_and_told_of(unet, fake, why, monkeypatch):
    monkeypatch.setattr(engine_module, "openvino_version", lambda: "0.0")
    monkeypatch.setattr(engine_module, "OpenVinoEngine", fake)
    slab = np.random.default_rng(8).normal(size=(1, 32, 48)).astype(np.float32)
    model = loaded(unet.module)
    np.testing.assert_array_equal(segment(slab, model), segment(slab, model, engine="torch"))
    assert model.engine().name == "torch"
    assert model.engine().reason.startswith("openvino was tried and given up")
    assert why in model.engine().reason
    with pytest.raises(ModelError, match="openvino") as caught:
        segment(slab, model, engine="openvino")
    assert "\n" not in str(caught.value)


def test_engines_that_are_not_there_are_refused(unet, monkeypatch):
    slab = np.zeros((1, 16, 16), np.float32)
    with pytest.raises(ConfigError, match="engine"):
        segment(slab, unet, engine="abacus")
    with pytest.raises(ConfigError, match="CUDA"):
        segment(slab, loaded(unet.module), engine="cuda-graphs")
    monkeypatch.setattr(engine_module, "openvino_version", lambda: None)
    with pytest.raises(ConfigError, match=r"t3ssfast\[openvino\]"):
        segment(slab, loaded(unet.module), engine="openvino")
    fresh = loaded(unet.module)
    assert fresh.engine().name == "torch"
    assert "not installed" in fresh.engine().reason


def test_half_precision_is_near_the_network(unet):
    image = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    flat = half_precision(flatten_network(unet.frozen, tuple(image.shape)))
    with torch.no_grad():
        answer = flat(image.half())
        expected = unet.module(image)
    assert answer.dtype == torch.float16
    assert abs(answer.float().sigmoid() - expected.sigmoid()).max() < 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_graphs_answer_as_the_network(unet):
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


def test_bad_slabs_and_answers_are_refused(unet):
    with pytest.raises(InputError, match="shape"):
        segment(np.zeros((4, 4), np.float32), unet)

    class Sick(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image / 0.0

    with pytest.raises(ModelError, match="NaN"):
        segment(np.zeros((1, 8, 8), np.float32), loaded(Sick()))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_contrast_is_found(sign):
    rng = np.random.default_rng(3)
    data = rng.normal(size=(12, 64, 64)).astype(np.float32)
    data[:, 30:34] -= 6
    plain = Normalisation(highpass_nm=0)
    prepared = PreparedTomogram.prepare(Tomogram(sign * data, 13.6), normalisation=plain)
    found = find_contrast_sign(prepared, loaded(Darkness()))
    assert found.sign == sign
    assert (found.evidence_dark > found.evidence_light) == (sign == 1)
    assert max(found.evidence_dark, found.evidence_light) > 0.03


def test_no_membrane_at_all_is_taken_as_dark():
    data = np.random.default_rng(4).normal(size=(3, 20, 20)).astype(np.float32) * 0.1
    data[0, 0, 0] = 1
    prepared = PreparedTomogram.prepare(Tomogram(data, 13.6), normalisation=Normalisation(clip=1.0))
    found = find_contrast_sign(prepared, loaded(Darkness()))
    assert (found.sign, found.evidence_dark, found.evidence_light) == (1, 0.0, 0.0)


def test_small_pieces_of_membrane_go():
    mask = np.zeros((30, 80, 80), np.uint8)
    mask[5:25, 10:70, 20:23] = 2
    mask[2:6, 70:74, 60:64] = 1
    # One side of the sheet: 20 x 60 voxels of 1.36 nm; counted face by face it is flat, hence 2/3.
    sheet_nm2 = 20 * 60 * 1.36**2
    kept = prune_membrane(mask, 13.6, 0.5 * sheet_nm2)
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept, np.where(mask == 2, mask, 0))
    np.testing.assert_array_equal(prune_membrane(mask, 13.6, 0), mask)
    # Of levels, what is not above the given one stays, and pieces that go become it.
    levels = np.random.default_rng(5).integers(0, 101, mask.shape).astype(np.uint8)
    levels[mask != 0] = 101 + levels[mask != 0]
    pruned = prune_membrane(levels, 13.6, 0.5 * sheet_nm2, above=100)
    np.testing.assert_array_equal(pruned, np.where((mask != 0) & (kept == 0), 100, levels))
    assert not prune_membrane(mask, 13.6, 2 * sheet_nm2).any()
    assert not prune_membrane(np.zeros_like(mask), 13.6, 10).any()


def test_the_area_of_a_sphere_is_about_right():
    grid = np.indices((60, 60, 60)) - 29.5
    radius = np.sqrt((grid**2).sum(0))
    shell = (abs(radius - 22) < 2).astype(np.uint8)
    area = 4 * np.pi * (22 * 1.36) ** 2
    assert prune_membrane(shell, 13.6, 0.9 * area).any()
    assert not prune_membrane(shell, 13.6, 1.1 * area).any()


def test_pieces_are_pruned_one_by_one_in_volumes_of_odd_sides() -> None:
    mask = np.zeros((13, 31, 41), np.uint8)
    sizes = {}
    for k, (z, y, x) in enumerate([(0, 0, 0), (9, 1, 30), (1, 24, 8), (8, 25, 36)], start=2):
        mask[z : z + 4, y : y + k, x : x + k] = 1
        sizes[z, y, x] = k
    before = mask.copy()
    # At 10 A a box of 4 x k x k has 2 * (k * k + 8 * k) faces of 1 nm^2, and half of them over 1.5 as area.
    for limit in (3, 4, 5):
        area = (limit * limit + 8 * limit) / 1.5
        kept = prune_membrane(mask, 10.0, area - 1e-6)
        for (z, y, x), k in sizes.items():
            assert kept[z + 1, y + 1, x + 1] == (k >= limit)
        assert kept.dtype == np.uint8
        assert np.array_equal(mask, before), "the given mask is not written to"


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(1, 13),
    st.floats(0.05, 0.6),
    st.floats(0, 40),
    st.integers(0, 2**31),
)
def test_pieces_are_those_of_the_whole_volume_however_it_is_cut(shape, thickness, share, area, seed):
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    labels = cc3d.connected_components(mask, connectivity=26)
    framed = np.pad(labels, 1)
    expected = np.zeros(shape, np.uint8)
    for label in range(1, labels.max() + 1):
        faces = sum(np.count_nonzero(np.diff(framed == label, axis=axis)) for axis in range(3))
        # At 10 A a face is 1 nm^2.
        expected[labels == label] = area <= 0 or faces / 2 / 1.5 >= area
    np.testing.assert_array_equal(prune_membrane(mask, 10.0, area, slab_slices=thickness), expected)
    there = mask.copy()
    assert prune_membrane(there, 10.0, area, slab_slices=thickness, out=there) is there
    np.testing.assert_array_equal(there, expected)
