"""Statistics of many small images against their oracles: how a read past some list is found.

A kernel's lists are as long as its tile has pixels. Of a large image a read behind one's end finds more of
the same; of a small one it finds the end of an allocation, which a sanitizer sees, or a wrong answer, which
the oracle does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reference import statistic
from t3ssfast.kernels.window_statistics import window_statistics

MOMENTS = ("mean", "std", "variance", "skewness", "kurtosis", "energy")
ORDER = ("min", "max", "range", "median")
QUANTILES = ("q00", "q05", "q25", "q50", "q75", "q95", "q100")
ALL = MOMENTS + ORDER + QUANTILES

Image = np.ndarray[Any, np.dtype[np.float32]]
Array = np.ndarray[Any, Any]
Random = np.random.Generator

KINDS = {
    "noise": lambda r, s: r.normal(size=s),
    "ties": lambda r, s: r.integers(0, 3, size=s) - 1.0,
    "bytes": lambda r, s: r.integers(0, 256, size=s),
    "gradient": lambda r, s: np.add.outer(3.0 * np.arange(s[0]), np.arange(s[1])) + r.random(s),
    "steps": lambda r, s: (np.arange(s[0])[:, None] // 7 + np.arange(s[1]) // 5) % 2 * 100.0,
    "offset": lambda r, s: r.normal(size=s) + 1e5,
    "huge": lambda r, s: r.normal(size=s) * 1e12,
    "tiny": lambda r, s: r.normal(size=s) * 1e-12,
    "constant": lambda r, s: np.full(s, 0.1),
    "outliers": lambda r, s: np.where(r.random(s) < 0.01, 1e5, r.normal(size=s)),
}
# Of which a sweep makes more: values about which a sample of the pixels says little.
HARD_KINDS = {
    "halves": lambda r, s: (
        np.where(np.arange(s[1]) < r.integers(s[1] + 1), -1.0, 1.0) + 1e-3 * r.normal(size=s)
    ),
    "a few others": lambda r, s: np.where(r.random(s) < 0.02, r.normal(size=s), 0.25),
    "block": lambda r, s: r.normal(size=s) + 9.0 * _block(r, s),
    "powers": lambda r, s: 10.0 ** r.uniform(-20, 20, s) * r.choice([-1, 1], s),
    "sorted": lambda r, s: np.sort(r.normal(size=s), axis=None).reshape(s),
}
SWEPT_KINDS = {**KINDS, **HARD_KINDS}
DTYPES = ("f4", "f4", "f4", "f8", ">f4", "f2", "i1", "u1", "i2", "u2", ">i4")
# Moments of these lose what the oracle in float64 loses, too; their order statistics are exact.
ORDER_ONLY = {"powers"}


def _block(rng: Random, shape: tuple[int, ...]) -> Array:
    """1 in a rectangle somewhere, 0 around it."""
    inside = np.zeros(shape)
    y, x = (rng.integers(n) for n in shape)
    inside[y : y + rng.integers(1, shape[0] + 1), x : x + rng.integers(1, shape[1] + 1)] = 1.0
    return inside


def compare(got: Array, image: Image, size: int, names: tuple[str, ...]) -> None:
    """Every statistic of every window within the promised distance of its oracle."""
    want = {name: statistic(image, size, name) for name in {*names, "mean", "std"}}
    scale = np.maximum(np.abs(want["mean"]), want["std"])
    assert got.dtype == np.float32
    for name, found in zip(names, got, strict=True):
        assert found.shape == want[name].shape
        if name in ORDER:
            np.testing.assert_array_equal(found, want[name], err_msg=name)
        elif name.startswith("q"):
            rounded = want[name].astype(np.float32)
            assert np.all(np.abs(found - rounded) <= np.spacing(np.abs(rounded))), name
        elif name in ("mean", "std"):
            assert np.all(np.abs(found - want[name]) <= 1e-6 * scale), name
        elif name in ("variance", "energy"):
            np.testing.assert_allclose(found, want[name], rtol=1e-6, err_msg=name)
        else:
            # Excess kurtosis passes through 0: relative to 3, the size of what it is the excess over.
            np.testing.assert_allclose(found, want[name], rtol=1e-5, atol=1e-6, err_msg=name)


def small_images(rng: Random, kind: str) -> tuple[Array, int]:
    """One to three images that few windows fit into, in some type and layout, and the windows' size."""
    size = int(rng.integers(1, 49)) if rng.random() < 0.9 else int(rng.integers(49, 150))
    most = 14 if size < 49 else 3
    shape = (size + int(rng.integers(most)), size + int(rng.integers(most)))
    count = int(rng.integers(1, 4))
    stack = np.stack([np.broadcast_to(SWEPT_KINDS[kind](rng, shape), shape) for _ in range(count)])
    dtype = np.dtype(str(rng.choice(DTYPES)))
    if dtype.kind in "iu" or dtype.itemsize == 2:
        spread = np.ptp(stack)
        stack = np.round((stack - stack.min()) * (100.0 / spread if spread else 1.0))
    return laid_out(rng, stack.astype(dtype)), size


def laid_out(rng: Random, array: Array) -> Array:
    """The same values in some layout, in memory of just their size."""
    layout = int(rng.integers(6))
    if layout == 1:
        return np.asfortranarray(array)
    if layout == 2:
        return array[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    if layout == 3:
        # Every second of a larger one, which ends with the last that counts.
        larger = np.zeros(tuple(2 * n - 1 for n in array.shape), array.dtype)
        larger[::2, ::2, ::2] = array
        return larger[::2, ::2, ::2]
    if layout == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 1)).transpose(0, 2, 1)
    array = array.copy()
    array.flags.writeable = layout != 5
    return array


def some_windows(rng: Random, shape: tuple[int, ...]) -> Array:
    """A mask of none, one, a few or all windows."""
    mask = rng.random(shape) < rng.choice([0.0, 0.02, 0.3, 1.0])
    if rng.random() < 0.3:
        mask.reshape(-1)[rng.choice([0, mask.size - 1, int(rng.integers(mask.size))])] = True
    return mask


def sweep(cases: int, seed: int) -> None:
    """So many cases, each told by its number where it fails."""
    threads = torch.get_num_threads()
    try:
        for number in range(cases):
            rng = np.random.default_rng([seed, number])
            kind = str(rng.choice(list(SWEPT_KINDS)))
            images, size = small_images(rng, kind)
            allowed = ALL[len(MOMENTS) :] if kind in ORDER_ONLY else ALL
            names = tuple(rng.choice(allowed, int(rng.integers(1, 6)), replace=False).tolist())
            torch.set_num_threads(int(rng.integers(1, 4)))
            try:
                got = window_statistics(images, size, names)
                compare(got, images.astype(np.float32), size, names)
                mask = some_windows(rng, got.shape[1:])
                listed = window_statistics(images, size, names, mask=mask)
                np.testing.assert_array_equal(listed.view(np.int32), got[:, mask].view(np.int32))
            except AssertionError as error:
                said = (
                    f"case {number} of seed {seed}: {kind}, {images.dtype}, {images.shape}, {size}, {names}"
                )
                raise AssertionError(said) from error
    finally:
        torch.set_num_threads(threads)
