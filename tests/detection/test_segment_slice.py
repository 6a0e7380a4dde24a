"""The U-Net on single slices: neighbours, tiles, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import ENGINES, loaded_segmenter, segment, small_unet
from t3ssfast.detection import segment_slice as segment_slice_module
from t3ssfast.detection.segment_slice import (
    TILE_HALO,
    cut_tiles,
    segment_slice,
    slice_weights,
    weighted_mean,
)
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models import LoadedModel, ModelMetadata, UNet


@pytest.fixture(scope="module")
def unet():
    return small_unet()


@pytest.mark.parametrize("shape", [(5, 32, 48), (4, 37, 50), (3, 5, 7), (2, 1, 20)])
def test_slices_are_independent_of_the_slab(unet, shape):
    slab = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = segment(slab, unet)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    assert 0 <= whole.min() <= whole.max() <= 1
    for thickness in (1, 2, 3):
        parts = [segment(slab[z : z + thickness], unet) for z in range(0, shape[0], thickness)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_segment_equals_the_network(unet):
    slab = np.random.default_rng(1).normal(size=(2, 32, 64)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(unet.module(torch.from_numpy(slab)[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(segment(slab, unet, engine="torch"), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_network_of_several_slices_sees_the_neighbours(engine):
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
    # Slices beyond its view do not matter.
    np.testing.assert_array_equal(segment(slab[:6], model, engine=engine)[:4], found[:4])
    assert not np.array_equal(segment(slab[2:5], model, engine=engine)[1], found[3])


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_equal_the_whole_slice(unet, engine, monkeypatch):
    slab = np.random.default_rng(2).normal(size=(1, 290, 500)).astype(np.float32)
    whole = segment(slab, unet, engine=engine)
    monkeypatch.setattr(segment_slice_module, "MIN_TILE", 256)
    for max_tile in (256, 320):
        np.testing.assert_allclose(segment(slab, unet, engine=engine, max_tile=max_tile), whole, atol=1e-6)
    for wrong in (250, 100):
        with pytest.raises(ConfigError, match="max_tile"):
            segment(slab, unet, max_tile=wrong)


@given(st.integers(1, 400), st.integers(16, 80))
def test_tiles_have_one_size_and_cover_a_side_with_their_halo(length, max_tile):
    length, max_tile = 16 * length, 16 * max_tile
    tiles = cut_tiles(length, max(max_tile, 256))
    assert [a for a, *_ in tiles] == [0, *(b for _, b, *_ in tiles[:-1])]
    assert tiles[-1][1] == length
    assert len({end - start for *_, start, end in tiles}) == 1
    for a, b, start, end in tiles:
        assert 0 <= start <= a < b <= end <= length
        assert start % 16 == end % 16 == 0
        assert end - start <= max(max_tile, 256)
        assert start == 0 or a - start >= TILE_HALO
        assert end == length or end - b >= TILE_HALO


def test_nan_raises():
    class Sick(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image / 0.0

    with pytest.raises(ModelError, match="NaN"):
        segment(np.zeros((1, 8, 8), np.float32), loaded_segmenter(Sick()))


@given(st.integers(1, 40), st.integers(1, 7), st.data())
def test_slices_are_interpolated_then_averaged_with_their_neighbours(depth, stride, data):
    z = data.draw(st.integers(0, depth - 1))
    weights = slice_weights(z, depth, stride)
    assert all(n % stride == 0 or n == depth - 1 for n in weights)
    assert min(weights.values()) > 0
    assert sum(weights.values()) == pytest.approx(1)
    # Interpolation is exact for a linear function, and so is the average away from the faces.
    ramp = {n: np.full((1, 1), n, np.float32) for n in range(depth)}
    expected = (max(z - 1, 0) + 2 * z + min(z + 1, depth - 1)) / 4
    assert weighted_mean(weights, ramp)[0, 0] == pytest.approx(expected, abs=1e-5)
    if stride == 1 and 0 < z < depth - 1:
        assert weights == {z - 1: 0.25, z: 0.5, z + 1: 0.25}
