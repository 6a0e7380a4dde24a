"""Edges of a mask: the steep gradients of the blurred mask, as SciPy and NumPy compute them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.kernels import _native

BOX = 5.0


def axis(voxels: int, step: int, sigma: float) -> _native.EdgeAxis:
    """Cubes of `step` voxels, each voxel 1 wide, blurred by `sigma` cubes up to three sigmas."""
    position = np.arange(voxels // step) * step + (step - 1) / 2
    weights = np.exp(-0.5 * (np.arange(math.ceil(3 * sigma) + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    return _native.EdgeAxis(
        step, step, weights, position.astype(np.float32), (position // BOX).astype(np.int64)
    )


def gradients(mask: np.ndarray, axes: list[_native.EdgeAxis]) -> list[np.ndarray]:
    """The gradient of the blurred mask along each axis, in double precision."""
    steps = [axis.step for axis in axes]
    whole = mask[tuple(slice(0, n // step * step) for n, step in zip(mask.shape, steps, strict=True))]
    cubes = [size for n, step in zip(whole.shape, steps, strict=True) for size in (n // step, step)]
    blurred = (whole != 0).reshape(cubes).mean(axis=(1, 3, 5))
    for number, one in enumerate(axes):
        kernel = np.concatenate([one.weights[:0:-1], one.weights])
        blurred = ndimage.correlate1d(blurred, kernel, number, mode="nearest")
    return [
        np.gradient(blurred, one.spacing, axis=number) if blurred.shape[number] > 1 else 0 * blurred
        for number, one in enumerate(axes)
    ]


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(1, 45), st.integers(1, 80), st.integers(1, 40)),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.floats(0.2, 1.5),
    st.floats(0.0005, 0.3),
    st.integers(0, 2**31),
)
def test_edges_are_steep_gradients_of_the_blurred_mask(
    shape: tuple[int, int, int], steps: tuple[int, int, int], sigma: float, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Blobs, and rows without any.
    mask = ndimage.binary_dilation(rng.random(shape) < share, iterations=2).astype(np.uint8)
    mask[:, int(rng.integers(0, shape[1])) :] *= int(rng.integers(0, 3))
    axes = [axis(n, min(n, step), sigma) for n, step in zip(shape, steps, strict=True)]
    limit = 0.05
    box, rows = _native.mask_edges(mask, axes, limit, threads=1)
    for got, expected in zip(_native.mask_edges(mask, axes, limit, threads=3), (box, rows), strict=True):
        np.testing.assert_array_equal(got, expected)

    gradient = np.stack(gradients(mask, axes))
    length = np.linalg.norm(gradient, axis=0)
    # Cubes from the positions.
    steps_used = np.array([one.step for one in axes])
    cube = np.rint((rows[:3].T - (steps_used - 1) / 2) / steps_used).astype(np.int64)
    found = np.zeros(length.shape, bool)
    found[tuple(cube.T)] = True
    assert np.count_nonzero(found) == len(box)
    assert found[length > limit * (1 + 1e-5)].all()
    assert not found[length < limit * (1 - 1e-5)].any()
    at_edges = gradient[(slice(None), *cube.T)]
    np.testing.assert_allclose(rows[6], length[tuple(cube.T)], rtol=1e-5)
    np.testing.assert_allclose(rows[3:6], at_edges / rows[6], atol=1e-5)
    # By box, then in C order.
    numbers = [one.box[cube[:, k]] for k, one in enumerate(axes)]
    boxes = tuple(one.boxes for one in axes)
    np.testing.assert_array_equal(box, np.ravel_multi_index(tuple(numbers), boxes) if len(box) else box)
    flat = np.ravel_multi_index(tuple(cube.T), length.shape)
    np.testing.assert_array_equal(np.lexsort((flat, box)), np.arange(len(box)))


def test_volumes_without_a_complete_cube_have_no_edges() -> None:
    for shape in [(0, 4, 4), (4, 0, 4), (1, 4, 4)]:
        axes = [axis(n, 2, 1.0) for n in shape]
        box, rows = _native.mask_edges(np.ones(shape, np.uint8), axes, 0.1)
        assert box.shape == (0,)
        assert rows.shape == (7, 0)


def test_axes_that_do_not_match_the_mask_raise() -> None:
    good = axis(4, 1, 1.0)
    for bad in [
        axis(5, 1, 1.0),
        dataclasses.replace(good, step=0),
        dataclasses.replace(good, weights=np.zeros(0)),
        dataclasses.replace(good, box=np.array([0, 1, 0, 1])),
        dataclasses.replace(good, box=np.array([-1, 0, 0, 1])),
    ]:
        with pytest.raises(ValueError, match="expected"):
            _native.mask_edges(np.ones((4, 4, 4), np.uint8), [good, bad, good], 0.1)
    with pytest.raises(ValueError, match="uint8 mask"):
        _native.mask_edges(np.ones((4, 4, 4)), [good, good, good], 0.1)  # type: ignore[arg-type]
