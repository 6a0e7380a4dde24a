"""Averages along an axis at some voxels of a volume: a normalised convolution, whatever the threads."""

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


@pytest.mark.parametrize("index", [[3, 3], [4, 1], [-1, 2], [0, 24]])
def test_indices_that_do_not_ascend_in_the_volume_raise(index: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending indices into a volume"):
        _native.smooth_along(np.array(index), np.ones(2, np.float32), (2, 3, 4), 0, np.ones(2))


def test_other_types_and_counts_raise() -> None:
    index = np.arange(2)
    for values in (np.ones(3, np.float32), np.ones(2), np.ones((1, 2), np.float32)):
        with pytest.raises(ValueError, match="as many float32 values"):
            _native.smooth_along(index, values, (2, 3, 4), 0, np.ones(2))  # type: ignore[arg-type]
