"""The search region: distance from the membrane, and hulls of cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.detection.search_region import SearchRegion, near_membrane
from t3ssfast.errors import ConfigError, InputError

VOXEL = 13.6


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.floats(0, 9),
    st.floats(0.001, 0.2),
    st.integers(0, 2**31),
)
def test_distance_equals_that_of_scipy(shape, distance_nm, share, seed):
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    found = near_membrane(mask, 10.0, distance_nm, 0, len(mask))
    assert found.dtype == np.uint8
    if mask.any():
        expected = ndimage.distance_transform_edt(mask == 0) <= distance_nm + 1e-9
        np.testing.assert_array_equal(found != 0, expected)
    else:
        assert not found.any()


def test_distance_does_not_depend_on_the_slab():
    mask = (np.random.default_rng(5).random((31, 40, 50)) < 0.0004).astype(np.uint8)
    whole = near_membrane(mask, 13.6, 12.0, 0, len(mask))
    assert 0.01 < whole.mean() < 0.9
    for thickness in (1, 4, 9):
        parts = [near_membrane(mask, 13.6, 12.0, z, min(31, z + thickness)) for z in range(0, 31, thickness)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(InputError, match="31 slices"):
        near_membrane(mask, 13.6, 12.0, 0, 32)
    with pytest.raises(ConfigError, match="distance"):
        near_membrane(mask, 13.6, float("nan"), 0, len(mask))


def cell(shape=(60, 130, 140), radius=(60, 45, 50), centre=(30, 64, 70), max_normal_z=0.8):
    """Mask of an ellipsoid's shell, cut by the missing wedge, and mask of its inside.

    The shell is missing where the z component of its normal is `max_normal_z` or more.
    """
    offset = [np.arange(n) - c for n, c in zip(shape, centre, strict=True)]
    z, y, x = np.meshgrid(*offset, indexing="ij")
    level = (z / radius[0]) ** 2 + (y / radius[1]) ** 2 + (x / radius[2]) ** 2
    normal = np.stack([z / radius[0] ** 2, y / radius[1] ** 2, x / radius[2] ** 2])
    normal_z = np.abs(normal[0]) / np.maximum(np.sqrt((normal**2).sum(0)), 1e-9)
    return ((abs(level - 1) < 0.07) & (normal_z < max_normal_z)).astype(np.uint8), level <= 1


def test_region_covers_the_inside_of_a_cell_and_nothing_far_outside():
    # A cell whose top and bottom are missing.
    membrane, inside = cell(radius=(30, 45, 50), max_normal_z=0.8)
    assert not membrane[:3].any()
    near = near_membrane(membrane, VOXEL, 16.0, 0, len(membrane)) != 0
    assert not near[inside].all()
    found = SearchRegion(membrane, VOXEL, 16.0).slab(0, 60) != 0
    assert found[near].all()
    assert found[inside].all()
    # In projection the region is the cell plus the distance, within two cubes.
    outline = ndimage.distance_transform_edt(~inside.any(axis=0)) * VOXEL / 10
    assert not found[:, outline > 16.0 + 2 * 10.0 * np.sqrt(2)].any()
    without_hulls = SearchRegion(membrane, VOXEL, 16.0, enclosed=False).slab(0, 60)
    np.testing.assert_array_equal(without_hulls, near_membrane(membrane, VOXEL, 16.0, 0, len(membrane)))


def test_cells_cut_by_the_edge_of_the_volume_are_filled():
    membrane, inside = cell(radius=(80, 45, 50))
    cut = np.ascontiguousarray(membrane[:, :64])
    found = SearchRegion(cut, VOXEL, 10.0).slab(0, 60) != 0
    assert found[inside[:, :64]].all()


def test_hulls_extend_along_z_by_the_distance():
    membrane = np.zeros((80, 100, 100), np.uint8)
    y, x = np.indices((100, 100)) - 50
    membrane[35:42, abs(np.hypot(y, x) - 40) < 2] = 1
    middle = SearchRegion(membrane, 10.0, 12.0).slab(0, 80)[:, 50, 50]
    # Cubes are ten voxels wide; the ring lies in those from 30 to 50.
    np.testing.assert_array_equal(np.flatnonzero(middle), np.arange(30 - 12, 50 + 12))


def test_small_vesicles_and_lines_are_not_filled():
    membrane = np.zeros((20, 100, 100), np.uint8)
    y, x = np.indices((100, 100)) - 50
    membrane[:, abs(np.hypot(y, x) - 3.5) < 1] = 1
    membrane[:, 90:93, 10:60] = 1
    found = SearchRegion(membrane, VOXEL, 1.0).slab(0, 20)
    np.testing.assert_array_equal(found, near_membrane(membrane, VOXEL, 1.0, 0, len(membrane)))
    empty = SearchRegion(np.zeros((4, 5, 6), np.uint8), VOXEL, 9.0)
    assert not empty.slab(0, 4).any()
    assert empty.slab(2, 2).shape == (0, 5, 6)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.floats(0, 30), st.floats(0.0, 0.3), st.integers(0, 2**31))
def test_region_does_not_depend_on_the_slab(shape, distance_nm, share, seed):
    rng = np.random.default_rng(seed)
    membrane = (rng.random(shape) < share).astype(np.uint8)
    search = SearchRegion(membrane, 30.0, distance_nm)
    whole = search.slab(0, shape[0])
    assert whole.shape == shape
    assert whole.dtype == np.uint8
    assert set(np.unique(whole)) <= {0, 1}
    thickness = int(rng.integers(1, 9))
    parts = [search.slab(z, min(shape[0], z + thickness)) for z in range(0, shape[0], thickness)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole >= near_membrane(membrane, 30.0, distance_nm, 0, len(membrane))).all()


@pytest.mark.parametrize("shape", [(1, 1, 119), (1, 119, 1), (119, 1, 1)])
def test_a_row_of_voxels_has_a_region(shape):
    """cc3d underestimates the number of labels of so few cubes; see `label_components`."""
    for seed in range(40):
        mask = (np.random.default_rng(seed).random(shape) < 0.05).astype(np.uint8)
        found = SearchRegion(mask, VOXEL, 16.0).slab(0, shape[0])
        np.testing.assert_array_equal(found, near_membrane(mask, VOXEL, 16.0, 0, len(mask)))
