"""Removal of small membrane components."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.detection.prune_membrane import MembraneSurvey, prune_membrane


def test_small_components_are_removed():
    mask = np.zeros((30, 80, 80), np.uint8)
    mask[5:25, 10:70, 20:23] = 2
    mask[2:6, 70:74, 60:64] = 1
    # One side of the sheet: 20 x 60 voxels of 1.36 nm; counted face by face it is flat, hence 2/3.
    sheet_nm2 = 20 * 60 * 1.36**2
    kept = prune_membrane(mask, 13.6, 0.5 * sheet_nm2)
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept, np.where(mask == 2, mask, 0))
    np.testing.assert_array_equal(prune_membrane(mask, 13.6, 0), mask)
    # Values up to `above` stay, and removed components are lowered to it.
    levels = np.random.default_rng(5).integers(0, 101, mask.shape).astype(np.uint8)
    levels[mask != 0] = 101 + levels[mask != 0]
    pruned = prune_membrane(levels, 13.6, 0.5 * sheet_nm2, above=100)
    np.testing.assert_array_equal(pruned, np.where((mask != 0) & (kept == 0), 100, levels))
    assert not prune_membrane(mask, 13.6, 2 * sheet_nm2).any()
    assert not prune_membrane(np.zeros_like(mask), 13.6, 10).any()


def test_area_of_a_sphere_is_about_right():
    grid = np.indices((60, 60, 60)) - 29.5
    radius = np.sqrt((grid**2).sum(0))
    shell = (abs(radius - 22) < 2).astype(np.uint8)
    area = 4 * np.pi * (22 * 1.36) ** 2
    assert prune_membrane(shell, 13.6, 0.9 * area).any()
    assert not prune_membrane(shell, 13.6, 1.1 * area).any()


def test_components_are_judged_one_by_one_in_volumes_of_odd_sides() -> None:
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
def test_components_are_those_of_the_whole_volume_for_any_slabs(shape, thickness, share, area, seed):
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    labels = cc3d.connected_components(mask, connectivity=26)
    framed = np.pad(labels, 1)
    expected = np.zeros(shape, np.uint8)
    for label in range(1, labels.max() + 1):
        faces = sum(np.count_nonzero(np.diff(framed == label, axis=axis)) for axis in range(3))
        # At 10 A a face is 1 nm^2.
        expected[labels == label] = area <= 0 or faces / 2 / 1.5 >= area
    there = mask.copy()
    np.testing.assert_array_equal(prune_membrane(mask, 10.0, area), expected)
    assert prune_membrane(there, 10.0, area, out=there) is there
    np.testing.assert_array_equal(there, expected)
    there, survey = mask.copy(), MembraneSurvey(shape[1:], 0)
    for z in range(0, shape[0], thickness):
        survey.add(mask[z : z + thickness])
    np.testing.assert_array_equal(survey.histogram, np.bincount(mask.ravel(), minlength=256))
    prune_membrane(there, 10.0, area, out=there, components=survey.components)
    np.testing.assert_array_equal(there, expected)


def test_a_survey_without_memory_leaves_the_components_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(components: object, slices: object, *, threads: int) -> None:
        raise MemoryError

    survey, levels = MembraneSurvey((4, 5), 100), np.full((2, 4, 5), 101, np.uint8)
    survey.add(levels)
    assert survey.components is not None
    monkeypatch.setattr(type(survey.components), "add", fail)
    survey.add(levels)
    assert survey.components is None
    survey.add(levels)
    assert survey.histogram[101] == 3 * levels.size
