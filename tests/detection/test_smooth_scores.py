"""Smoothing of scores: a normalised Gaussian at the classified voxels, whatever the slabs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.detection.lattice import interpolate_scores, lattice_shape
from t3ssfast.detection.pick import pick
from t3ssfast.detection.smooth_scores import ScoreSmoother, SparseScores, smooth_scores
from t3ssfast.errors import InputError

VOXEL = 13.6
NM = VOXEL / 10


def smoothed_slabs(
    slabs: Iterable[tuple[np.ndarray, np.ndarray]], shape: Any, **options: Any
) -> SparseScores:
    smoother = ScoreSmoother(shape, **options)
    for index, value in slabs:
        smoother.add(index, value)
    return smoother.finish()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.4, 5.0), st.floats(0.1, 1.0))
def test_smoothing_of_lines_is_a_normalised_convolution(seed: int, sigma: float, fill: float) -> None:
    rng = np.random.default_rng(seed)
    lines, length = 5, int(rng.integers(1, 60))
    dense = rng.random((lines, length)).astype(np.float32)
    classified = rng.random(dense.shape) < fill
    got = smooth_scores(
        SparseScores.from_dense(dense[None], classified[None]), (0.0, 0.0, sigma), axes=(2,)
    ).value
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.correlate1d(values.astype(np.float64), kernel, axis=1, mode="constant")

    expected = blur(dense * classified) / blur(np.ones_like(dense))
    np.testing.assert_allclose(got, expected[classified], rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(st.integers(1, 70), st.integers(9, 40), st.integers(9, 40)),
    st.integers(1, 30),
    st.floats(0.05, 0.9),
    st.just(0.0) | st.floats(0.1, 9),
    st.integers(0, 2**31),
)
def test_smoothing_does_not_depend_on_the_slabs(shape, thickness, threshold, smoothing_nm, seed) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(shape, np.float32)
    classified = rng.random(shape) < 0.5
    options = {"voxel_size_angstrom": VOXEL, "smoothing_nm": smoothing_nm, "threshold": threshold}
    whole = SparseScores.from_dense(scores, classified)
    plane = shape[1] * shape[2]
    edges = np.searchsorted(whole.index, np.arange(0, shape[0] + thickness, thickness) * plane)
    slabs = ((whole.index[a:b], whole.value[a:b]) for a, b in pairwise(edges))
    smoothed = smoothed_slabs(slabs, shape, **options)
    at_once = smoothed_slabs([(whole.index, whole.value)], shape, **options)
    np.testing.assert_array_equal(smoothed.index, at_once.index)
    np.testing.assert_array_equal(smoothed.value, at_once.value)
    sigma = smoothing_nm / NM
    every = smooth_scores(whole, (sigma, sigma / 4, sigma / 4))
    high = every.value >= threshold / 2
    np.testing.assert_array_equal(smoothed.index, every.index[high])
    np.testing.assert_array_equal(smoothed.value, every.value[high])
    for ours, expected in zip(pick(smoothed, **options), pick(whole, **options), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_shapes_that_do_not_match_raise() -> None:
    with pytest.raises(InputError, match="give one for each"):
        SparseScores(np.arange(3), np.zeros(2, np.float32), (1, 2, 3))
    with pytest.raises(InputError, match="mask of the same shape"):
        SparseScores.from_dense(np.zeros((2, 3, 4)), np.zeros((2, 3), bool))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_interpolated_scores_are_averaged_as_widely_as_others(stride: int) -> None:
    shape, lattice = (1, 61, 61), lattice_shape((1, 61, 61), stride)
    scores = np.zeros(lattice, np.float32)
    middle = lattice[1] // 2
    scores[0, middle, middle] = 1
    interpolated = interpolate_scores(
        (np.arange(scores.size), scores.reshape(-1)), np.ones(lattice, np.uint8), np.ones(shape), stride
    )
    # A sigma of 2.5 voxels along y and x.
    smoother = ScoreSmoother(shape, 10.0, smoothing_nm=10.0, threshold=0.0, stride=stride)
    smoother.add(*interpolated)
    smooth = np.zeros(shape, np.float32)
    found = smoother.finish()
    smooth.reshape(-1)[found.index] = found.value
    profile = smooth[0].sum(axis=0, dtype=np.float64)
    offset = np.arange(shape[2]) - (stride // 2 + middle * stride)
    spread = (profile * offset**2).sum() / profile.sum()
    # The kernel ends after three sigmas, with 97% of the variance.
    assert spread == pytest.approx(2.5**2, rel=0.05)


def test_scores_in_parts_are_smoothed_as_one_slab() -> None:
    shape = (23, 30, 31)
    rng = np.random.default_rng(0)
    index = np.flatnonzero(rng.random(shape) < 0.3)
    value = rng.random(len(index), np.float32)
    options = {"voxel_size_angstrom": VOXEL, "smoothing_nm": 2.0, "threshold": 0.6}
    whole = smoothed_slabs([(index, value)], shape, **options)
    smoother = ScoreSmoother(shape, **options)
    cuts = np.searchsorted(index, [0, *(z * 30 * 31 for z in (4, 4, 9, 17)), index[-1] + 1])
    parts = [(index[a:b], value[a:b]) for a, b in itertools.pairwise(cuts)]
    smoother.add_parts(parts[:3])
    smoother.add_parts([])
    smoother.add_parts(parts[3:])
    found = smoother.finish()
    assert 0 < len(whole.index) < len(index)
    np.testing.assert_array_equal(found.index, whole.index)
    np.testing.assert_array_equal(found.value, whole.value)
