"""Segmentation, contrast, pruning, and the region to search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn

from t3ssfast import segment as module
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.models import LoadedModel, ModelMetadata, UNet
from t3ssfast.normalise import Normalisation, PreparedTomogram
from t3ssfast.segment import find_contrast_sign, prune_membrane, search_region, segment
from t3ssfast.types import Tomogram


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


def test_tiles_answer_as_the_whole_slice(unet, monkeypatch):
    slab = np.random.default_rng(2).normal(size=(1, 290, 500)).astype(np.float32)
    whole = segment(slab, unet)
    monkeypatch.setattr(module, "MAX_TILE", 256)
    np.testing.assert_allclose(segment(slab, unet), whole, atol=1e-6)


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
    mask = np.zeros((30, 80, 80), np.int8)
    mask[5:25, 10:70, 20:23] = -1
    mask[2:6, 70:74, 60:64] = 1
    # One side of the sheet: 20 x 60 voxels of 1.36 nm; counted face by face it is flat, hence 2/3.
    sheet_nm2 = 20 * 60 * 1.36**2
    kept = prune_membrane(mask, 13.6, 0.5 * sheet_nm2)
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept, mask < 0)
    np.testing.assert_array_equal(prune_membrane(mask, 13.6, 0), mask != 0)
    assert not prune_membrane(mask, 13.6, 2 * sheet_nm2).any()
    assert not prune_membrane(np.zeros_like(mask), 13.6, 10).any()


def test_the_area_of_a_sphere_is_about_right():
    grid = np.indices((60, 60, 60)) - 29.5
    radius = np.sqrt((grid**2).sum(0))
    shell = (abs(radius - 22) < 2).astype(np.uint8)
    area = 4 * np.pi * (22 * 1.36) ** 2
    assert prune_membrane(shell, 13.6, 0.9 * area).any()
    assert not prune_membrane(shell, 13.6, 1.1 * area).any()


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.floats(0, 9),
    st.floats(0.001, 0.2),
    st.integers(0, 2**31),
)
def test_the_search_region_is_the_exact_distance(shape, distance_nm, share, seed):
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    found = search_region(mask, 10.0, distance_nm)
    assert found.dtype == np.uint8
    if mask.any():
        expected = ndimage.distance_transform_edt(mask == 0) <= distance_nm + 1e-9
        np.testing.assert_array_equal(found != 0, expected)
    else:
        assert not found.any()


def test_the_search_region_does_not_depend_on_the_slab():
    mask = (np.random.default_rng(5).random((31, 40, 50)) < 0.0004).astype(np.uint8)
    whole = search_region(mask, 13.6, 12.0)
    assert 0.01 < whole.mean() < 0.9
    for thickness in (1, 4, 9):
        parts = [search_region(mask, 13.6, 12.0, z, min(31, z + thickness)) for z in range(0, 31, thickness)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(InputError, match="31 slices"):
        search_region(mask, 13.6, 12.0, 0, 32)
    with pytest.raises(ConfigError, match="distance"):
        search_region(mask, 13.6, float("nan"))


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
