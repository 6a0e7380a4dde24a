"""Values at some voxels of a volume: averages along an axis, local maxima, and centroids around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.kernels import _native


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 90)),
    st.integers(0, 2),
    st.integers(0, 12),
    st.floats(0.01, 1.0),
    st.integers(0, 2**31),
)
def test_average_is_a_normalised_convolution(
    shape: tuple[int, int, int], axis: int, radius: int, fill: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random(shape).astype(np.float32)
    dense[rng.random(shape) >= fill] = 0
    index = np.flatnonzero(dense)
    weights = rng.random(radius + 1)
    kernel = np.concatenate([weights[:0:-1], weights])
    total, inside = (
        ndimage.correlate1d(values, kernel, axis, mode="constant") for values in (dense, np.ones_like(dense))
    )
    want = (total / inside).reshape(-1)[index]
    smooth = [
        _native.smooth_along(index, dense.reshape(-1)[index], shape, axis, weights, threads=threads)
        for threads in (1, 3)
    ]
    # Sums of 25 rounding errors in double precision, rounded to float32 twice.
    np.testing.assert_allclose(smooth[0], want, rtol=3e-7)
    np.testing.assert_array_equal(smooth[0], smooth[1])


def test_voxels_in_the_last_slices_of_a_volume_are_averaged() -> None:
    shape, index = (1000, 3, 4), np.array([998 * 12 + 5, 999 * 12 + 5])
    smooth = _native.smooth_along(index, np.ones(2, np.float32), shape, 0, np.array([0.5, 0.25]))
    np.testing.assert_allclose(smooth, [0.75, 1.0])


def test_no_voxels_give_no_averages() -> None:
    none = np.zeros(0, np.int64), np.zeros(0, np.float32)
    assert _native.smooth_along(*none, (2, 3, 4), 1, np.ones(3)).shape == (0,)


@st.composite
def sparse_volumes(draw: st.DrawFn) -> np.ndarray:
    """(z, y, x) values, 0 where a voxel has none; few levels, so that neighbours are equal."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 8), st.integers(1, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    dense = (rng.integers(1, levels, shape) / levels).astype(np.float32)
    dense[rng.random(shape) >= draw(st.floats(0.05, 1.0))] = 0
    empty = draw(st.integers(0, 2))
    dense[:empty] = 0
    return dense


@settings(deadline=None, max_examples=100)
@given(sparse_volumes(), st.floats(0, 1))
def test_maxima_are_those_of_all_pairs_of_neighbours(dense: np.ndarray, threshold: float) -> None:
    index = np.flatnonzero(dense)
    value = dense.reshape(-1)[index]
    high = value >= np.float32(threshold)
    position = np.stack(np.unravel_index(index, dense.shape), axis=1)
    beside = (abs(position[:, None] - position[None]) <= 1).all(axis=-1)
    earlier = np.arange(len(index))[None] < np.arange(len(index))[:, None]
    exceeds = (value[None] > value[:, None]) | ((value[None] == value[:, None]) & earlier)
    want = np.flatnonzero(high & ~(beside & exceeds).any(axis=1))
    for threads in (1, 3):
        found = _native.local_maxima(index, value, dense.shape, threshold, threads=threads)
        np.testing.assert_array_equal(found, want)


def test_values_up_to_0_are_no_maxima() -> None:
    value = np.array([-1, 0, np.nan, 0.5], np.float32)
    found = _native.local_maxima(np.array([0, 3, 6, 9]), value, (1, 1, 10), -2.0)
    np.testing.assert_array_equal(found, [3])


@settings(deadline=None, max_examples=60)
@given(sparse_volumes(), st.integers(0, 9), st.integers(0, 2**31))
def test_centroids_are_weighted_means_of_the_voxels_in_a_sphere(
    dense: np.ndarray, radius: int, seed: int
) -> None:
    index = np.flatnonzero(dense)
    value = dense.reshape(-1)[index]
    exact = value.astype(np.float64)
    peaks = np.random.default_rng(seed).permutation(len(index))[:5]
    position = np.stack(np.unravel_index(index, dense.shape), axis=1)
    want = position[peaks].astype(np.float64)
    for k, peak in enumerate(peaks):
        near = ((position - position[peak]) ** 2).sum(axis=1) <= radius**2
        weight = np.where(near, np.maximum(exact - exact[peak] / 2, 0), 0)
        want[k] = weight @ position / weight.sum()
    for threads in (1, 3):
        found = _native.centroids(index, value, dense.shape, peaks, radius, threads=threads)
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)


def test_peaks_that_are_no_voxels_raise() -> None:
    for peak in (-1, 2):
        with pytest.raises(ValueError, match="positions among 2 voxels"):
            _native.centroids(np.arange(2), np.ones(2, np.float32), (1, 1, 9), np.array([peak]), 3)


def test_no_voxels_have_no_maxima() -> None:
    none = np.zeros(0, np.int64), np.zeros(0, np.float32), (2, 3, 4)
    maxima = _native.local_maxima(*none, 0.5)
    assert maxima.shape == (0,)
    assert _native.centroids(*none, maxima, 3).shape == (0, 3)


@settings(deadline=None, max_examples=80)
@given(sparse_volumes(), st.integers(0, 4), st.floats(0, 1), st.integers(0, 30), st.integers(1, 3))
def test_scores_near_high_ones_are_kept_in_all_slices(
    dense: np.ndarray, reach: int, floor: float, cut: int, threads: int
) -> None:
    index = np.flatnonzero(dense)
    value = dense.reshape(-1)[index]
    high = (dense * (dense >= np.float32(floor))).any(axis=0)
    near = ndimage.maximum_filter(high, size=2 * reach + 1, mode="constant")
    want = np.flatnonzero((dense > 0) & near)
    # In two parts, which may share a slice or be empty.
    parts = [(index[:cut], value[:cut]), (index[cut:], value[cut:])]
    found = _native.scores_near(parts, dense.shape, floor, reach, threads=threads)
    np.testing.assert_array_equal(found[0], want)
    np.testing.assert_array_equal(found[1], dense.reshape(-1)[want])
    above = _native.scores_from(index, value, dense.shape, floor, threads=threads)
    np.testing.assert_array_equal(above[0], index[value >= np.float32(floor)])
    np.testing.assert_array_equal(above[1], value[value >= np.float32(floor)])


@pytest.mark.parametrize("index", [[3, 3], [4, 1], [-1, 2], [0, 24]])
def test_indices_that_do_not_ascend_in_the_volume_raise(index: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending indices into a volume"):
        _native.smooth_along(np.array(index), np.ones(2, np.float32), (2, 3, 4), 0, np.ones(2))


def test_other_types_and_counts_raise() -> None:
    index = np.arange(2)
    for values in (np.ones(3, np.float32), np.ones(2), np.ones((1, 2), np.float32)):
        with pytest.raises(ValueError, match="as many float32 values"):
            _native.smooth_along(index, values, (2, 3, 4), 0, np.ones(2))  # type: ignore[arg-type]
