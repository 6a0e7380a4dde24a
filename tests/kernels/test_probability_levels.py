"""Means of slices in levels of 8 bits, against NumPy's float32."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch

from t3ssfast.detection.segment_slice import weighted_mean
from t3ssfast.kernels import _native

CPU = torch.device("cpu")
Slices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
WEIGHTS = (0.25, 0.5, 0.25)


def slices_of(values: npt.NDArray[np.float32]) -> Slices:
    below, middle, above = torch.from_numpy(values)
    return below, middle, above


def levels(
    values: npt.NDArray[np.float32], threads: int = 1, weights: tuple[float, float, float] = WEIGHTS
) -> npt.NDArray[np.uint8]:
    out = torch.full(values.shape[1:], 77, dtype=torch.uint8)
    assert _native.probability_levels(slices_of(values), weights, out, device=CPU, threads=threads)
    return out.numpy()


def expected(
    values: npt.NDArray[np.float32], weights: tuple[float, float, float] = WEIGHTS
) -> npt.NDArray[np.uint8]:
    mean = weighted_mean(dict(enumerate(weights)), dict(enumerate(values)))
    return np.rint(mean * np.float32(255)).astype(np.uint8)


# 300 x 500 pixels are three tasks, the last of them shorter.
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 64), (300, 500)])
@pytest.mark.parametrize("threads", [1, 3])
def test_levels_are_those_of_numpy(shape: tuple[int, int], threads: int) -> None:
    values = np.random.default_rng(0).random((3, *shape), np.float32)
    for weights in (WEIGHTS, (0.125, 0.75, 0.125), (2 / 3, 1 / 3, 0.0)):
        np.testing.assert_array_equal(levels(values, threads, weights), expected(values, weights))


def test_ties_go_to_the_even_level() -> None:
    """And the values beside them to the nearest one."""
    halves = (np.arange(511) / 510).astype(np.float32)
    beside = [np.nextafter(halves, np.float32(limit)) for limit in (0, 1)]
    values = np.broadcast_to(np.stack([halves, *beside]).clip(0, 1), (3, 3, 511)).copy()
    found = levels(values)
    np.testing.assert_array_equal(found, expected(values))
    scaled = halves * np.float32(255)
    ties = scaled % 1 == 0.5
    assert ties.sum() > 100
    assert (found[0, ties] % 2 == 0).all()
    assert set(found[0].tolist()) == set(range(256))


def test_averages_beyond_the_range_get_the_last_level() -> None:
    values = np.full((3, 1, 4), [-0.5, -1e30, 1.5, 1e30], np.float32)
    np.testing.assert_array_equal(levels(values), [[0, 0, 255, 255]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [(0, 0, 0), (1, 299, 499), (2, 150, 7)])
def test_values_that_are_not_finite_are_reported(value: float, index: tuple[int, int, int]) -> None:
    values = np.zeros((3, 300, 500), np.float32)
    values[index] = value
    out = torch.empty((300, 500), dtype=torch.uint8)
    assert not _native.probability_levels(slices_of(values), WEIGHTS, out, device=CPU)


def test_arrays_of_another_kind_are_refused() -> None:
    values = np.zeros((3, 4, 5), np.float32)
    below, middle, above = slices_of(values)
    out = torch.empty((4, 5), dtype=torch.uint8)
    for wrong in (above.double(), above[:3], above.T.contiguous().T):
        with pytest.raises(ValueError, match="expected"):
            _native.probability_levels((below, middle, wrong), WEIGHTS, out, device=CPU)
    with pytest.raises(ValueError, match="expected"):
        _native.probability_levels((below, middle, above), WEIGHTS, out.short(), device=CPU)


PROGRAM = """
import sys
import test_probability_levels as tests
assert tests._native.build_info()["simd_levels"][-1] == sys.argv[1]
tests.test_ties_go_to_the_even_level()
tests.test_averages_beyond_the_range_get_the_last_level()
tests.test_levels_are_those_of_numpy((300, 501), 1)
tests.test_values_that_are_not_finite_are_reported(float("nan"), (1, 0, 17))
"""


@pytest.mark.parametrize("level", _native.SIMD)
def test_every_instruction_set_gives_these_levels(level: str) -> None:
    if level not in _native.build_info()["simd_levels"]:
        pytest.skip(f"this processor has no {level}")
    here = os.path.dirname(__file__)
    paths = os.pathsep.join(filter(None, [here, os.path.dirname(here), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "T3SSFAST_SIMD": level, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", PROGRAM, level], env=environment, check=True)
