"""Masks on the CPU: components, voxels near a mask, counts of levels, thresholds."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.kernels import _native

Mask = npt.NDArray[np.uint8]


def exposed_faces(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Faces between a component and everything else, by label."""
    framed = np.pad(labels, 1)
    faces = np.zeros(labels.max() + 1, np.int64)
    for axis in range(3):
        low = np.moveaxis(framed, axis, 0)[:-1]
        high = np.moveaxis(framed, axis, 0)[1:]
        for side in (low, high):
            faces += np.bincount(side[low != high], minlength=len(faces))
    return faces[1:]


def in_order_of_first_voxels(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    found, first = np.unique(labels, return_index=True)
    numbers = np.zeros(labels.max() + 1, np.int64)
    numbers[found[np.argsort(np.where(found == 0, -1, first))]] = np.arange(len(found))
    return numbers[labels]


# Rows are compared in blocks of 256 voxels, and in words of 8.
@pytest.mark.parametrize("width", [1, 7, 8, 64, 255, 256, 257, 530])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("threads", [1, 2])
def test_components_are_those_of_cc3d(width: int, share: float, threads: int) -> None:
    levels = np.random.default_rng(width).integers(0, 101, (6, 9, width)).astype(np.uint8)
    levels[:, :, 1::5] = np.where(levels[:, :, 1::5] > 50, 100, 0)
    above = int(np.quantile(levels, 1 - share))
    cc = cc3d.connected_components(np.pad(levels > above, 1), connectivity=26)[1:-1, 1:-1, 1:-1]
    labels = in_order_of_first_voxels(cc)
    components = _native.MaskComponents(levels.shape[1:], above)
    for first, end in ((0, 1), (1, 4), (4, 4), (4, 6)):
        components.add(levels[first:end], threads=threads)
    faces = components.faces()
    np.testing.assert_array_equal(faces, exposed_faces(labels))
    np.testing.assert_array_equal(components.faces(), faces)
    kept = np.random.default_rng(1).random(len(faces)) < 0.5
    lowered = levels.copy()
    components.lower(lowered[:4], 0, kept, threads=threads)
    components.lower(lowered[4:], 4, kept, threads=threads)
    removed = np.append(False, ~kept)[labels]
    np.testing.assert_array_equal(lowered, np.where(removed, above, levels))


def test_arms_that_meet_late_are_one_component() -> None:
    mask = np.zeros((3, 20, 41), np.uint8)
    mask[0, :, ::4] = 1
    mask[2, 19, :] = 1
    components = _native.MaskComponents((20, 41))
    components.add(mask)
    assert len(components.faces()) == 12
    mask[1, 19, ::4] = 1
    components = _native.MaskComponents((20, 41))
    components.add(mask)
    assert len(components.faces()) == 1


def test_wrong_arrays_of_components_are_refused() -> None:
    components = _native.MaskComponents((4, 5))
    slices = np.ones((3, 4, 5), np.uint8)
    with pytest.raises(ValueError, match="uint8 slices"):
        components.add(slices.astype(np.int16))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8 slices"):
        components.add(np.ones((3, 5, 4), np.uint8))
    components.add(slices)
    kept = np.ones(len(components.faces()), bool)
    with pytest.raises(ValueError, match="were not added"):
        components.lower(slices, 1, kept)
    with pytest.raises(ValueError, match="one entry for each component"):
        components.lower(slices, 0, np.ones(2, bool))
    with pytest.raises(ValueError, match="written to"):
        components.lower(np.ones((3, 5, 4), np.uint8).swapaxes(1, 2), 0, kept)


def near(mask: Mask, first: int, end: int, limit: int, threads: int = 1) -> Mask:
    out = np.full((end - first, *mask.shape[1:]), 77, np.uint8)
    _native.near_mask(mask, first, end, limit, out, threads=threads)
    return out


# The numbers of the kernel grow with the squared distance: beyond 180^2 they have 32 bits.
@pytest.mark.parametrize("limit", [0, 1, 2, 26, 700, 180**2, 180**2 + 1, 200**2, 10**12])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 9, 70), (3, 4, 400), (230, 3, 5)])
def test_voxels_near_a_mask(limit: int, shape: tuple[int, int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    assert not near(mask, 0, shape[0], limit).any()
    mask.flat[:: max(1, mask.size // 3)] = 7
    squared = np.rint(ndimage.distance_transform_edt(mask == 0) ** 2)
    np.testing.assert_array_equal(near(mask, 0, shape[0], limit), squared <= limit)
    first, end = shape[0] // 3, shape[0] - shape[0] // 4
    np.testing.assert_array_equal(near(mask, first, end, limit, 3), squared[first:end] <= limit)
    assert near(mask, 0, 0, limit).shape == (0, *shape[1:])


def test_wrong_arrays_near_a_mask_are_refused() -> None:
    mask, out = np.ones((3, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8)
    with pytest.raises(ValueError, match="slices 2 to 4 of 3"):
        _native.near_mask(mask, 2, 4, 9, out)
    with pytest.raises(ValueError, match="array of 3 slices"):
        _native.near_mask(mask, 0, 3, 9, out)
    with pytest.raises(ValueError, match="array of 2 slices"):
        _native.near_mask(mask, 0, 2, 9, np.zeros((2, 5, 4), np.uint8).swapaxes(1, 2))
    with pytest.raises(ValueError, match="uint8 slices"):
        _native.near_mask(mask.astype(float), 0, 2, 9, out)  # type: ignore[arg-type]


# 3 x 700 x 600 values are two tasks.
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 700, 600)])
@pytest.mark.parametrize("threads", [1, 3])
def test_counts_of_levels_are_added(shape: tuple[int, int, int], threads: int) -> None:
    levels = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    counts = np.arange(256)
    _native.count_levels(levels, counts, threads=threads)
    np.testing.assert_array_equal(counts - np.arange(256), np.bincount(levels.ravel(), minlength=256))
    with pytest.raises(ValueError, match="256 counts"):
        _native.count_levels(levels, counts[:255])


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(0, 9)] * 3), st.integers(0, 255), st.integers(0, 255), st.integers(1, 3))
def test_levels_become_the_number_of_thresholds_that_they_exceed(
    shape: tuple[int, int, int], lower: int, upper: int, threads: int
) -> None:
    levels = np.random.default_rng(lower).integers(0, 256, shape).astype(np.uint8)
    expected = (levels > lower).astype(int) + (levels > upper)
    _native.threshold_levels(levels, lower, upper, threads=threads)
    np.testing.assert_array_equal(levels, expected)


def test_levels_of_several_tasks_are_thresholded() -> None:
    levels = np.arange(3 * 1024 * 1025).reshape(3, 1024, 1025).astype(np.uint8)
    expected = (levels > 99).astype(int) + (levels > 199)
    _native.threshold_levels(levels, 99, 199, threads=2)
    np.testing.assert_array_equal(levels, expected)
    with pytest.raises(ValueError, match="written to"):
        _native.threshold_levels(levels[:, ::2], 1, 2)
