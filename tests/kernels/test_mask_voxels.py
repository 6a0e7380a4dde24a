"""The voxels of a mask: how many, where, and those in marked squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.kernels import _native


def random_mask(shape: tuple[int, ...], share: float, seed: int) -> np.ndarray:
    """uint8, in which any value but 0 is inside."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 256, shape, np.uint8)
    return np.where(rng.random(shape) < share, values, 0).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 70)),
    st.sampled_from([0.0, 0.03, 0.6, 1.0]),
    st.integers(0, 2**31),
)
def test_voxels_are_counted_and_listed_as_numpy_does(
    shape: tuple[int, int, int], share: float, seed: int
) -> None:
    mask = random_mask(shape, share, seed)
    for threads in (1, 3):
        for given_mask in (mask, mask != 0, mask.astype(np.float32)):
            counts = _native.count_nonzero(given_mask, threads=threads)
            np.testing.assert_array_equal(counts, np.count_nonzero(mask, axis=(1, 2)))
            index = _native.flat_nonzero(given_mask, threads=threads)
            assert index.dtype == np.int64
            np.testing.assert_array_equal(index, np.flatnonzero(mask))
    view = mask[:, ::2, 1::3]
    np.testing.assert_array_equal(_native.flat_nonzero(view), np.flatnonzero(view))
    np.testing.assert_array_equal(_native.count_nonzero(view), np.count_nonzero(view, axis=(1, 2)))


@pytest.mark.parametrize("share", [0.04, 1.0])
def test_large_masks_are_listed_in_order(share: float) -> None:
    mask = random_mask((3, 411, 517), share, 0)
    np.testing.assert_array_equal(_native.count_nonzero(mask, threads=3), np.count_nonzero(mask, axis=(1, 2)))
    np.testing.assert_array_equal(_native.flat_nonzero(mask, threads=3), np.flatnonzero(mask))


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 80), st.integers(1, 60)),
    st.tuples(st.integers(1, 7), st.integers(1, 3)),
    st.integers(1, 5),
    st.data(),
)
def test_voxels_in_marked_squares_are_kept(
    shape: tuple[int, int, int], sides: tuple[int, int], thickness: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, thickness - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    mask = random_mask(shape, 0.6, 1)
    z, y, x = np.indices(shape)
    plane, inside, squares = (z + offset) // thickness, mask != 0, []
    for side in sides[: data.draw(st.integers(0, 2))]:
        marks = rng.random((plane.max() + 1, -(-shape[1] // side), -(-shape[2] // side))) < 0.6
        squares.append((list(marks), side))
        inside = inside & marks[plane, y // side, x // side]
    for threads in (1, 3):
        kept = _native.keep_in_squares(mask, squares, offset, thickness, threads=threads)
        assert kept.dtype == np.uint8
        np.testing.assert_array_equal(kept, inside)


def test_marks_that_do_not_fit_the_slices_are_refused() -> None:
    mask = np.ones((4, 9, 9), np.uint8)
    assert _native.keep_in_squares(mask, [([np.ones((3, 3), bool)] * 2, 4)], 1, 3).all()
    for marks in (np.ones((1, 3, 3), bool), np.ones((2, 2, 3), bool), np.ones((2, 3, 2), bool)):
        with pytest.raises(ValueError, match="marks of shape"):
            _native.keep_in_squares(mask, [(list(marks), 4)], 1, 3)
    with pytest.raises(ValueError, match="offset"):
        _native.keep_in_squares(mask, [], 3, 3)
    with pytest.raises(ValueError, match="slices"):
        _native.count_nonzero(mask[0])


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 90)), st.integers(1, 8), st.booleans(), st.integers(0, 2**31)
)
def test_high_sums_are_marked(shape: tuple[int, int], count: int, equal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = list(rng.random((count, *shape), np.float32))
    weights = rng.random(count)
    total = np.zeros(shape)
    for weight, image in zip(weights, images, strict=True):
        total = total + weight * image.astype(np.float64)
    # The order of additions decides what equals the limit.
    limit = float(total[-1, -1] if equal else np.median(total))
    for threads in (1, 3):
        marks = _native.mark_high_sums(images, weights.tolist(), limit, threads=threads)
        assert marks.dtype == bool
        np.testing.assert_array_equal(marks, total >= limit)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 20)),
    st.integers(1, 3),
    st.floats(0, 0.3),
    st.integers(0, 2**31),
)
def test_neighbours_of_marks_are_marked(shape: tuple[int, int], count: int, share: float, seed: int) -> None:
    planes = list(np.random.default_rng(seed).random((count, *shape)) < share)
    expected = ndimage.maximum_filter(np.any(planes, axis=0), 3, mode="constant")
    for threads in (1, 3):
        np.testing.assert_array_equal(_native.mark_near(planes, threads=threads), expected)


def test_images_of_several_shapes_are_refused() -> None:
    images = [np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32)]
    with pytest.raises(ValueError, match="one shape"):
        _native.mark_high_sums(images, [1.0, 1.0], 0.5)
    with pytest.raises(ValueError, match="weights"):
        _native.mark_high_sums(images[:1], [1.0, 1.0], 0.5)
    with pytest.raises(ValueError, match="one shape"):
        _native.mark_near([image > 0 for image in images])
