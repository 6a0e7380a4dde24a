"""Regions without data: found, left out of normalisation and search, and reported; extreme grey values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.normalise.no_data import find_fill_values, no_data_mask
from t3ssfast.errors import InputError
from t3ssfast.runtime.upload import Uploader
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, toy_detect, toy_tomogram


@pytest.fixture(scope="module")
def world():
    """A toy tomogram with grey values like those of a reconstruction, and its particles."""
    tomogram, truth, _ = toy_tomogram()
    return (tomogram.data * 20 + 900).astype(np.float32), truth


def border(shape, share):
    mask = np.ones(shape, bool)
    y, x = (round(n * (1 - np.sqrt(1 - share)) / 2) for n in shape[1:])
    mask[:, y:-y, x:-x] = False
    return mask


def corners(shape, share):
    y, x = np.indices(shape[1:]) / np.array(shape[1:])[:, None, None]
    distance = np.minimum(y, 1 - y) + np.minimum(x, 1 - x)
    return np.broadcast_to(distance < np.quantile(distance, share), shape)


def count(detection, truth):
    distances = np.linalg.norm(detection.candidates.centre_zyx[:, None] - truth.centre_zyx, axis=2)
    return int((distances.min(axis=0) < 5).sum())


@pytest.mark.parametrize("region", [lambda s: border(s, 0.09), lambda s: corners(s, 0.16)])
@pytest.mark.parametrize("fill", [0.0, -32768.0, 5e4])
def test_as_many_particles_are_found_as_with_a_mean_fill(world, models, region, fill):
    data, truth = world
    mask = region(data.shape)
    filled = np.where(mask, np.float32(fill), data)
    found = toy_detect(filled, models, voxel_size_angstrom=VOXEL)
    mean = toy_detect(np.where(mask, data.mean(), data), models, voxel_size_angstrom=VOXEL)
    assert count(found, truth) == count(mean, truth) == 3
    (note,) = found.provenance["notes"]
    assert f"{100 * mask.mean():.1f}% of the tomogram is filled with the constant {fill:g}" in note
    z, y, x = np.rint(found.candidates.centre_zyx).astype(int).T
    assert not mask[z, y, x].any()


def test_windows_without_data_are_not_searched(world, models):
    data, _ = world
    whole = toy_detect(data, models, voxel_size_angstrom=VOXEL)
    half = np.where(np.arange(data.shape[2]) < 66, np.float32(0), data)
    found = toy_detect(half, models, voxel_size_angstrom=VOXEL)
    assert found.provenance["counts"]["windows_searched"] < whole.provenance["counts"]["windows_searched"]
    assert not whole.provenance["notes"]


def test_the_scale_is_that_of_the_data(world):
    data, _ = world
    mask = border(data.shape, 0.3)
    plain = PreparedTomogram.prepare(Tomogram(data[:, 10:-10, 11:-11], VOXEL))
    filled = PreparedTomogram.prepare(Tomogram(np.where(mask, np.float32(0), data), VOXEL))
    inside = filled.slab(10, 11)[0, 10:-10, 11:-11]
    assert np.median(np.abs(inside)) == pytest.approx(np.median(np.abs(plain.slab(10, 11))), rel=0.15)
    assert np.abs(filled.slab(10, 11)[0][mask[10]]).max() < 1.5
    none = filled.no_data(10, 11)
    assert none is not None
    assert (none[0] >= mask[10]).all()
    assert PreparedTomogram.prepare(Tomogram(data, VOXEL)).no_data(10, 11) is None


@pytest.mark.parametrize("voxel_size", [13.6, 10.0])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float32])
def test_slabs_with_a_fill_do_not_depend_on_the_cut(world, voxel_size, dtype):
    data = world[0][:12, :70, :80] / 20
    data = np.clip(
        data - (45 if np.dtype(dtype) == np.int8 else 0), *((-127, 127) if dtype == np.int8 else (1, 250))
    )
    filled = np.where(border(data.shape, 0.2), 0, data).astype(dtype)
    prepared = PreparedTomogram.prepare(Tomogram(filled, voxel_size), voxel_size_angstrom=13.6)
    assert prepared.fill_values == (0.0,)
    depth = prepared.shape[0]
    parts = [prepared.slab(z, z + 1) for z in range(depth)]
    np.testing.assert_array_equal(np.concatenate(parts), prepared.slab(0, depth))
    on_device = prepared.slab_on_device(0, depth, Uploader(torch.device("cpu")))
    np.testing.assert_array_equal(on_device.numpy(), prepared.slab(0, depth))


@pytest.mark.parametrize("sigma", [3.0, 20.0])
def test_eight_bit_noise_has_no_fill(sigma):
    rng = np.random.default_rng(0)
    slices = [
        torch.from_numpy(np.rint(rng.normal(0, sigma, (300, 320))).astype(np.float32)) for _ in range(6)
    ]
    assert find_fill_values(slices) == ()


def test_a_rotated_volume_is_masked_to_its_rim():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (200, 200)).astype(np.float32)
    rotated = ndimage.rotate(image, 20, reshape=False, order=1, cval=0.0).astype(np.float32)
    fills = find_fill_values([torch.from_numpy(rotated)])
    assert fills == (0.0,)
    mask = no_data_mask(torch.from_numpy(rotated), fills)
    assert mask is not None
    assert mask.numpy()[rotated == 0].all()
    # At most the rim of the data is lost.
    assert (mask.numpy() & (rotated != 0)).mean() < 0.03
    assert no_data_mask(torch.from_numpy(image), fills) is None


def test_a_constant_volume_is_refused_as_such():
    with pytest.raises(InputError, match="constant volume"):
        PreparedTomogram.prepare(Tomogram(np.full((8, 60, 60), 3.0, np.float32), VOXEL))


@pytest.mark.parametrize(("scale", "word"), [(1e-40, "too small"), (1e-36, "too small"), (1e35, "too large")])
def test_extreme_grey_values_are_named(scale, word):
    values = (np.random.default_rng(0).normal(size=(8, 60, 60)) * scale).astype(np.float32)
    with pytest.raises(InputError, match=rf"grey values lie between -?\d.*{word}"):
        PreparedTomogram.prepare(Tomogram(values, VOXEL, "a.mrc"))


def test_values_beyond_single_precision_are_named():
    values = np.random.default_rng(0).normal(size=(8, 60, 60))
    values[4, 5, 6] = 1e200
    with pytest.raises(InputError, match=r"\(4, 5, 6\) is 1e\+200, beyond the range of single precision"):
        PreparedTomogram.prepare(Tomogram(values, VOXEL)).slab(0, 8)


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_unusual_scales_change_nothing(world, models, scale):
    data, truth = world
    found = toy_detect((data * np.float32(scale)).astype(np.float32), models, voxel_size_angstrom=VOXEL)
    assert count(found, truth) == 3
