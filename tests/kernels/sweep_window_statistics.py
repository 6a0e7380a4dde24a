"""Statistics of many small images against their references, to find reads past the end of a buffer.

A kernel's buffers are as long as its tile has pixels. In a large image a read past the end finds more of the
same values. In a small one it leaves the allocation, which a sanitizer reports, or gives a wrong result.
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
# Images where a sample of the pixels says little about the others.
HARD_KINDS = {
    "halves": lambda r, s: (
        np.where(np.arange(s[1]) < r.integers(s[1] + 1), -1.0, 1.0) + 1e-3 * r.normal(size=s)
    ),
    "rare values": lambda r, s: np.where(r.random(s) < 0.02, r.normal(size=s), 0.25),
    "block": lambda r, s: r.normal(size=s) + 9.0 * _block(r, s),
    "powers": lambda r, s: 10.0 ** r.uniform(-20, 20, s) * r.choice([-1, 1], s),
    "sorted": lambda r, s: np.sort(r.normal(size=s), axis=None).reshape(s),
}
SWEPT_KINDS = {**KINDS, **HARD_KINDS}
DTYPES = ("f4", "f4", "f4", "f8", ">f4", "f2", "i1", "u1", "i2", "u2", ">i4")
# Moments of these kinds are inaccurate in the float64 reference, too; their order statistics are exact.
ORDER_ONLY = {"powers"}


def _block(rng: Random, shape: tuple[int, ...]) -> Array:
    """Return 1 in a random rectangle, 0 around it."""
    inside = np.zeros(shape)
    y, x = (rng.integers(n) for n in shape)
    inside[y : y + rng.integers(1, shape[0] + 1), x : x + rng.integers(1, shape[1] + 1)] = 1.0
    return inside


def compare(got: Array, image: Image, size: int, names: tuple[str, ...]) -> None:
    """Assert that every statistic of every window is within the documented tolerance of its reference."""
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
            # Excess kurtosis passes through 0, so its tolerance is absolute, relative to 3.
            np.testing.assert_allclose(found, want[name], rtol=1e-5, atol=1e-6, err_msg=name)


def small_images(rng: Random, kind: str) -> tuple[Array, int]:
    """Return one to three images with few windows, of random dtype and layout, and the window size."""
    size = int(rng.integers(1, 49)) if rng.random() < 0.9 else int(rng.integers(49, 150))
    extra = 14 if size < 49 else 3
    shape = (size + int(rng.integers(extra)), size + int(rng.integers(extra)))
    count = int(rng.integers(1, 4))
    stack = np.stack([np.broadcast_to(SWEPT_KINDS[kind](rng, shape), shape) for _ in range(count)])
    dtype = np.dtype(str(rng.choice(DTYPES)))
    if dtype.kind in "iu" or dtype.itemsize == 2:
        spread = np.ptp(stack)
        stack = np.round((stack - stack.min()) * (100.0 / spread if spread else 1.0))
    return with_random_layout(rng, stack.astype(dtype)), size


def with_random_layout(rng: Random, array: Array) -> Array:
    """Return the same values in a random layout, in memory of just their size."""
    layout = int(rng.integers(6))
    if layout == 1:
        return np.asfortranarray(array)
    if layout == 2:
        return array[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    if layout == 3:
        # Every second element of a larger array that ends with the last one.
        larger = np.zeros(tuple(2 * n - 1 for n in array.shape), array.dtype)
        larger[::2, ::2, ::2] = array
        return larger[::2, ::2, ::2]
    if layout == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 1)).transpose(0, 2, 1)
    array = array.copy()
    array.flags.writeable = layout != 5
    return array


def random_mask(rng: Random, shape: tuple[int, ...]) -> Array:
    """Return a mask of none, one, a few or all windows."""
    mask = rng.random(shape) < rng.choice([0.0, 0.02, 0.3, 1.0])
    if rng.random() < 0.3:
        mask.reshape(-1)[rng.choice([0, mask.size - 1, int(rng.integers(mask.size))])] = True
    return mask


def sweep(cases: int, seed: int) -> None:
    """Run random cases; a failure reports its number and seed."""
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
                mask = random_mask(rng, got.shape[1:])
                listed = window_statistics(images, size, names, mask=mask)
                np.testing.assert_array_equal(listed.view(np.int32), got[:, mask].view(np.int32))
            except AssertionError as error:
                message = (
                    f"case {number} of seed {seed}: {kind}, {images.dtype}, {images.shape}, {size}, {names}"
                )
                raise AssertionError(message) from error
    finally:
        torch.set_num_threads(threads)
