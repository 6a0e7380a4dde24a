"""Medians and quantiles of window_statistics: exact for all distributions of values and image sizes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from sweep_window_statistics import ORDER, Image

from reference import statistic
from t3ssfast.kernels import _native
from t3ssfast.kernels.window_statistics import window_statistics


def noise(shape: tuple[int, ...], seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check_random_windows(image: Image, size: int, names: tuple[str, ...], count: int = 150) -> None:
    """Compare order statistics of random windows, and of the image's corners, bit for bit."""
    got = window_statistics(image, size, names)
    high, wide = got.shape[1:]
    rng = np.random.default_rng(7)
    chosen = [(0, 0), (0, wide - 1), (high - 1, 0), (high - 1, wide - 1)]
    chosen += [tuple(p) for p in np.stack([rng.integers(0, high, count), rng.integers(0, wide, count)], -1)]
    for y, x in chosen:
        pixels = image[y : y + size, x : x + size]
        for k, name in enumerate(names):
            want = np.float32(statistic(pixels, size, name)[0, 0])
            assert abs(got[k, y, x] - want) <= (0 if name in ORDER else np.spacing(abs(want))), (name, y, x)


@pytest.mark.parametrize("slope", [0.02, 1.0, 50.0, -3.0])
def test_order_statistics_of_a_gradient(slope: float) -> None:
    rows, columns = np.arange(290.0)[:, None], np.arange(190.0)
    image = (slope * rows + 0.3 * slope * columns + noise((290, 190))).astype(np.float32)
    check_random_windows(image, 50, ("median", "q05", "q90"))


@pytest.mark.parametrize("size", [24, 31])
def test_medians_outside_the_sampled_range(size: int) -> None:
    """Values between the windows from which the range is estimated: the tile must be sorted again."""
    image = noise((170, 170)) * np.float32(1e-3)
    image[40 : 40 + size, 44 : 44 + size] += 9.0
    image[70 : 70 + size, 12 : 12 + size] -= 7.0
    got = window_statistics(image, size, ("median",))[0]
    for y, x in [(40, 44), (41, 43), (70, 12), (68, 14), (55, 30), (0, 0)]:
        assert got[y, x] == np.median(image[y : y + size, x : x + size])
    assert got.max() > 8.9
    assert got.min() < -6.9


def test_clustered_and_scattered_values() -> None:
    """Values with equal keys on a linear scale, and rows of ties."""
    rng = np.random.default_rng(11)
    powers = (10.0 ** rng.uniform(-30, 30, (120, 110)) * rng.choice([-1, 1], (120, 110))).astype(np.float32)
    check_random_windows(powers, 20, ("median", "q25", "min"), 60)
    check_random_windows(np.round(noise((150, 140)) * 3).astype(np.float32), 33, ("median", "q95"), 60)
    far = noise((120, 110))
    far.reshape(-1)[rng.choice(far.size, 60, replace=False)] = 3e38
    far[5, 5] = -3e38
    check_random_windows(far, 25, ("median", "q00", "q100"), 60)


@pytest.mark.parametrize("size", [20, 130])
def test_merged_tiles_do_not_change_results(size: int) -> None:
    """Clumps of many extents, near and far from each other, in two images."""
    rng = np.random.default_rng(8)
    image = rng.normal(size=(2, 280 + size, 300 + size)).astype(np.float32)
    dense = window_statistics(image, size, ("median", "q25"))
    for clumps in (1, 3, 8, 20):
        mask = np.zeros(dense.shape[1:], bool)
        for _ in range(clumps):
            n, y, x, high, wide = rng.integers((0, 0, 0, 1, 1), (2, 270, 290, 120, 120))
            clump = mask[n, y : y + high, x : x + wide]
            clump |= rng.random(clump.shape) < 0.02
        masked = window_statistics(image, size, ("median", "q25"), mask=mask)
        np.testing.assert_array_equal(masked, dense[:, mask])


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_medians_of_many_small_images_are_exact(level: str) -> None:
    """With few windows the estimated range of values is sometimes wrong, which must be detected."""
    code = (
        "import numpy as np, torch\n"
        "from t3ssfast.kernels.window_statistics import window_statistics\n"
        "torch.set_num_threads(1)\n"
        "rng = np.random.default_rng(0)\n"
        "for size in range(18, 40):\n"
        "    images = rng.normal(size=(60, size, size + 1)).astype(np.float32)\n"
        "    got = window_statistics(images, size, ('median', 'q95'))\n"
        "    windows = np.stack([images[:, :, :-1], images[:, :, 1:]], axis=1).reshape(60, 1, 2, -1)\n"
        "    want = np.median(windows.astype(np.float64), axis=-1).astype(np.float32)\n"
        "    np.testing.assert_array_equal(got[0], want)\n"
        "    upper = np.quantile(windows.astype(np.float64), 0.95, axis=-1)\n"
        "    np.testing.assert_allclose(got[1], upper, rtol=2e-7)\n"
    )
    if level not in _native.build_info()["simd_levels"]:
        pytest.skip(f"this processor has no {level}")
    environment = {**os.environ, "T3SSFAST_SIMD": level}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
