"""Prepared tomograms: positions, slabs, grey values, masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.detection.normalise.grid import Axis, resample_slice
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.tomogram import Tomogram


def noise(shape=(9, 40, 50), seed=0, dtype=np.float32):
    values = np.random.default_rng(seed).normal(size=shape)
    if np.dtype(dtype).kind in "iu":
        return np.clip(np.round(values * 20 + 60), 0, 120).astype(dtype)
    return values.astype(dtype)


@pytest.mark.parametrize("voxel_size", [10.0, 13.6, 13.65, 7.1, 20.0])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32, ">f4"])
def test_slabs_are_bit_identical_however_the_volume_is_cut(voxel_size, dtype):
    prepared = PreparedTomogram.prepare(Tomogram(noise(dtype=dtype), voxel_size), voxel_size_angstrom=13.6)
    depth = prepared.shape[0]
    whole = prepared.slab(0, depth)
    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    for thickness in (1, 2, 4):
        parts = [prepared.slab(z, min(z + thickness, depth)) for z in range(0, depth, thickness)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*[st.integers(16, 60)] * 3),
    st.floats(4.0, 40.0),
    st.lists(st.tuples(*[st.floats(-5, 70)] * 3), min_size=1, max_size=5),
)
def test_positions_survive_a_round_trip(shape, voxel_size, points):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 7
    data.flat[:: max(2, data.size // 5)] = 9
    tomogram = Tomogram(data, voxel_size)
    prepared = PreparedTomogram.prepare(tomogram, voxel_size_angstrom=13.6)
    converted = prepared.to_tomogram(points)
    np.testing.assert_allclose(prepared.from_tomogram(converted), points, atol=1e-9)
    # Both grids have the same centre, and a step is the ratio of the voxel sizes.
    middle = (np.array(prepared.shape) - 1) / 2
    np.testing.assert_allclose(prepared.to_tomogram(middle), (np.array(shape) - 1) / 2, atol=1e-9)
    step = prepared.to_tomogram([1, 1, 1]) - prepared.to_tomogram([0, 0, 0])
    np.testing.assert_allclose(step, prepared.voxel_size_angstrom / voxel_size)


@pytest.mark.parametrize("voxel_size", [8.0, 13.6, 19.0])
def test_resampling_preserves_positions(voxel_size):
    shape = np.array([30, 70, 64])
    centre = np.array([13.3, 41.7, 22.4])
    grid = np.indices(shape).reshape(3, -1).T
    width = 30.0 / voxel_size
    blob = np.exp(-0.5 * ((grid - centre) ** 2).sum(1) / width**2).reshape(shape)
    data = (blob * 40 + noise(shape) * 0.01).astype(np.float32)
    plain = Normalisation(highpass_nm=0, clip=1e9)
    prepared = PreparedTomogram.prepare(
        Tomogram(data, voxel_size), voxel_size_angstrom=13.6, normalisation=plain
    )
    values = prepared.slab(0, prepared.shape[0]).astype(np.float64)
    values *= values > 0.1 * values.max()
    centroid = (np.indices(values.shape).reshape(3, -1) * values.ravel()).sum(1) / values.sum()
    np.testing.assert_allclose(prepared.to_tomogram(centroid), centre, atol=0.05)


def test_similar_voxel_sizes_are_not_resampled():
    data = noise()
    plain = Normalisation(highpass_nm=0, clip=1e9)
    prepared = PreparedTomogram.prepare(Tomogram(data, 13.5), voxel_size_angstrom=13.6, normalisation=plain)
    assert prepared.shape == data.shape
    assert prepared.voxel_size_angstrom == 13.5
    np.testing.assert_array_equal(prepared.to_tomogram([[1.5, 2, 3]]), [[1.5, 2, 3]])
    values = prepared.slab(0, 9)
    assert np.corrcoef(values.ravel(), data.ravel())[0, 1] > 0.999999


def test_local_mean_removes_ramps_and_ignores_outliers():
    data = noise((6, 200, 210))
    y, x = np.indices(data.shape[1:])
    ramp = (0.05 * x - 0.08 * y).astype(np.float32)
    flat = PreparedTomogram.prepare(Tomogram(data, 13.6)).slab(0, 6)
    tilted = PreparedTomogram.prepare(Tomogram(data * 7 + ramp * 7 + 1000, 13.6)).slab(0, 6)
    # Also in the corners, where a Gaussian blur would leave a residual.
    np.testing.assert_allclose(tilted, flat, atol=0.15)
    beads = data.copy()
    beads[:, 90:97, 90:97] = -60
    around = np.s_[:, 70:118, 70:88]
    with_bead = PreparedTomogram.prepare(Tomogram(beads, 13.6)).slab(0, 6)
    assert abs(float(with_bead[around].mean() - flat[around].mean())) < 0.1
    assert with_bead.min() == -6.0


def test_values_have_unit_scale_and_contrast_sign_inverts_them():
    data = noise((8, 100, 100)) * 3 + 50
    prepared = PreparedTomogram.prepare(Tomogram(data, 13.6))
    values = prepared.slab(0, 8)
    assert abs(float(np.median(values))) < 0.02
    assert abs(float(values.std()) - 1) < 0.03
    np.testing.assert_array_equal(prepared.with_contrast_sign(-1).slab(0, 8), -values)
    np.testing.assert_array_equal(
        PreparedTomogram.prepare(Tomogram(data, 13.6), contrast_sign=-1).slab(0, 8), -values
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_reported_with_their_position(bad):
    data = noise((40, 30, 30))
    data[1, 5, 7] = bad
    with pytest.raises(InputError, match=r"\(1, 5, 7\)"):
        PreparedTomogram.prepare(Tomogram(data, 13.6, "broken")).slab(0, 40)


@pytest.mark.parametrize(
    "data",
    [np.zeros((4, 5, 6), np.float32), np.ones((4, 5, 6), complex), np.zeros((0, 5, 6), np.float32)],
)
def test_unusable_volumes_are_rejected(data):
    with pytest.raises(InputError, match="tomogram"):
        PreparedTomogram.prepare(Tomogram(data, 13.6))


def test_a_mostly_zero_volume_has_a_scale():
    data = np.zeros((6, 60, 60), np.float32)
    data[:, 20:30, 20:30] = noise((6, 10, 10))
    values = PreparedTomogram.prepare(Tomogram(data, 13.6)).slab(0, 6)
    assert np.isfinite(values).all()
    assert values.std() > 0


@pytest.mark.parametrize("voxel_size", [9.0, 13.6, 20.0])
def test_masks_are_resampled_in_both_directions(voxel_size):
    tomogram = Tomogram(noise((20, 60, 50)), voxel_size)
    mask = np.zeros(tomogram.shape, np.int8)
    mask[5:15, 20:40, 10:30] = 1
    prepared = PreparedTomogram.prepare(tomogram, voxel_size_angstrom=13.6)
    on_grid = prepared.mask_from_tomogram(mask, 0, prepared.shape[0])
    assert on_grid.dtype == np.uint8
    centre = prepared.to_tomogram(np.argwhere(on_grid).mean(axis=0))
    np.testing.assert_allclose(centre, [9.5, 29.5, 19.5], atol=1.0)
    back = prepared.mask_to_tomogram(on_grid)
    assert back.shape == mask.shape
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.85
    parts = [prepared.mask_from_tomogram(mask, z, z + 1) for z in range(prepared.shape[0])]
    np.testing.assert_array_equal(np.concatenate(parts), on_grid)
    with pytest.raises(InputError, match="shape"):
        prepared.mask_from_tomogram(mask[1:], 0, 1)
    with pytest.raises(InputError, match="shape"):
        prepared.mask_to_tomogram(on_grid[1:])


def test_options_are_validated_and_survive_a_round_trip():
    assert Normalisation.from_dict(Normalisation(80.0, 5.0).to_dict()) == Normalisation(80.0, 5.0)
    with pytest.raises(ConfigError, match="clip"):
        Normalisation(clip=0)
    with pytest.raises(ConfigError, match="highpass_nm"):
        Normalisation(highpass_nm=float("nan"))
    prepared = PreparedTomogram.prepare(Tomogram(noise(), 13.6))
    with pytest.raises(InputError, match="9 slices"):
        prepared.slab(5, 10)
    with pytest.raises(ConfigError, match="contrast_sign"):
        PreparedTomogram.prepare(Tomogram(noise(), 13.6), contrast_sign=0)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_neighbouring_slices_repeat_the_outermost_slice(count):
    slab = np.arange(4, dtype=np.float32)[:, None, None]
    expected = np.pad(slab, ((count // 2, count // 2), (0, 0), (0, 0)), mode="edge")
    for z in range(len(slab)):
        np.testing.assert_array_equal(neighbouring_slices(slab, z, count), expected[z : z + count])
        tensor = neighbouring_slices(torch.from_numpy(slab), z, count)
        np.testing.assert_array_equal(tensor.numpy(), expected[z : z + count])


@pytest.mark.parametrize("count", [1, 3, 5, 11])
@pytest.mark.parametrize("voxel_size", [10.0, 17.0])
def test_slab_around_a_slice_equals_the_whole_grid_there(voxel_size, count):
    prepared = PreparedTomogram.prepare(Tomogram(noise((7, 20, 24)), 10.0), voxel_size_angstrom=voxel_size)
    depth = prepared.shape[0]
    whole = np.pad(prepared.slab(0, depth), ((count // 2, count // 2), (0, 0), (0, 0)), mode="edge")
    for z in range(depth):
        np.testing.assert_array_equal(prepared.slab_around(z, count), whole[z : z + count])
    with pytest.raises(InputError, match=f"grid with {depth} slices"):
        prepared.slab_around(depth, count)


@pytest.mark.parametrize("step", [0.6, 1.7])
def test_dense_and_sparse_resampling_agree(step):
    """CUDA devices resample with dense matrices."""
    sparse = [Axis.make(length, step).matrix() for length in (60, 75)]
    dense = [torch.from_numpy(matrix.toarray()).double() for matrix in sparse]
    image = torch.from_numpy(noise((60, 75)))
    np.testing.assert_allclose(resample_slice(image, *dense), resample_slice(image, *sparse), atol=2e-6)


@pytest.mark.parametrize("voxel_size", [13.6, 11.0])
def test_held_slices_are_those_prepared_anew(voxel_size, monkeypatch):
    data = np.random.default_rng(5).normal(size=(9, 40, 44)).astype(np.float32)
    grid = PreparedTomogram.prepare(Tomogram(data, voxel_size), voxel_size_angstrom=13.6)
    bright = grid.with_contrast_sign(-1)
    depth, size = grid.shape[0], 4 * math.prod(grid.shape)
    held = grid.holding_slices(size)
    expected, inverted = grid.slab(0, depth), bright.slab(0, depth)
    np.testing.assert_array_equal(held.slab(2, 5), expected[2:5])
    reads = []
    read = PreparedTomogram._read_slice
    monkeypatch.setattr(PreparedTomogram, "_read_slice", lambda grid, z: reads.append(z) or read(grid, z))
    np.testing.assert_array_equal(held.with_contrast_sign(-1).slab(2, 5), inverted[2:5])
    assert not reads
    slab = held.slab(0, depth)
    np.testing.assert_array_equal(slab, expected)
    # What the caller does to a slab does not change what is held.
    slab[:] = 0
    np.testing.assert_array_equal(held.slab(0, depth), expected)
    reads.clear()
    too_large = grid.holding_slices(size - 1)
    for _ in range(2):
        reads.clear()
        np.testing.assert_array_equal(too_large.slab(0, depth), expected)
        assert reads
