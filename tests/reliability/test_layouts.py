"""Every kernel handles all memory layouts, and arrays with more than 2^31 elements."""

from __future__ import annotations

import numpy as np
import pytest
from mrcfile.utils import dtype_from_mode
from torch import nn

import t3ssfast as t3
from t3ssfast.io import READABLE_MODES
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics

DTYPES = ["i1", "u1", "i2", "u2", "f2", "f4", "f8", ">f4"]
WINDOW = 5


def example_stack(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.ascontiguousarray(rng.integers(0, 100, (2, 14, 17)), dtype=dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array: np.ndarray) -> np.ndarray:
    """Return the same values as every second element of a larger array."""
    larger = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    larger[::2, ::2, ::2] = array
    return larger[::2, ::2, ::2]


LAYOUTS = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "negative stride": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "sliced": strided,
    "read-only": read_only,
    "zero-size": lambda a: a[:0],
    "one axis of stride 0": lambda a: np.broadcast_to(a[:1], a.shape),
}
SCORER = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).eval()
KERNELS = {
    "unfold": lambda a: unfold(a, WINDOW),
    "unfold, zscore": lambda a: unfold(a, WINDOW, normalise="zscore"),
    "statistics": lambda a: window_statistics(a, WINDOW, ("mean", "kurtosis", "min", "median", "q05")),
    "score, dense": lambda a: t3.score_windows(SCORER, a, size=WINDOW, plan="dense"),
    "score, windows": lambda a: t3.score_windows(SCORER, a, size=WINDOW, plan="windows"),
    "score, auto": lambda a: t3.score_windows(SCORER, a, size=WINDOW),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_memory_layout(kernel, dtype):
    run = KERNELS[kernel]
    for name, layout in LAYOUTS.items():
        given = layout(example_stack(dtype))
        before = given.copy()
        want = run(np.ascontiguousarray(given, dtype=np.float32))
        np.testing.assert_array_equal(run(given), want, err_msg=name)
        np.testing.assert_array_equal(given, before)
        assert (want.size == 0) == (given.size == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_more_than_2_to_the_31_elements(kernel):
    """Windows at both ends of a zero array, whose untouched pages use no memory."""
    shape = (2**31 // (1024 * 1024) + 2, 1024, 1024)
    image = np.zeros(shape, np.float32)
    assert image.size > 2**31
    image[-1, -40:, -40:] = np.random.default_rng(0).normal(size=(40, 40))
    mask = np.zeros((shape[0], 1024 - WINDOW + 1, 1024 - WINDOW + 1), bool)
    mask[-1, -30:, -30:] = True
    mask[0, :3, :3] = True
    runs = {
        "unfold": lambda a, m: unfold(a, WINDOW, mask=m),
        "unfold, zscore": lambda a, m: unfold(a, WINDOW, mask=m, normalise="zscore"),
        "statistics": lambda a, m: window_statistics(a, WINDOW, ("mean", "std", "max", "median"), mask=m),
        "score, dense": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m, plan="dense"),
        "score, windows": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m, plan="windows"),
        "score, auto": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m),
    }
    got = np.asarray(runs[kernel](image, mask))
    ends = image[[0, -1]]
    np.testing.assert_array_equal(got, np.asarray(runs[kernel](ends, mask[[0, -1]])))


def test_every_real_mrc_mode_of_mrcfile_is_readable():
    """Fails if a new version of mrcfile supports a mode that is refused here (101)."""
    known = set()
    for mode in range(128):
        try:
            dtype = dtype_from_mode(mode)
        except ValueError:
            continue
        if dtype.kind in "iuf":
            known.add(mode)
    assert known == set(READABLE_MODES)
