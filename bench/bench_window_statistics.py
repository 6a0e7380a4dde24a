"""window_statistics against OpenCV and scipy.ndimage, with the same image, windows and threads.

``pytest bench/bench_window_statistics.py --benchmark-only``; T3SSFAST_BENCH_THREADS sets the threads (1).
On a busy machine ``--benchmark-timer=time.process_time`` measures CPU time instead (one thread only).
Each benchmark asserts its result.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as ndi
import torch

from t3ssfast.kernels.window_statistics import window_statistics

EDGE = 1024
SIZE = 50
HALF = SIZE // 2
SIX = ("mean", "std", "skewness", "kurtosis", "min", "max")
QUANTILES = ("q05", "q25", "q75", "q90", "q95")

Image = np.ndarray[Any, np.dtype[np.float32]]


def images() -> dict[str, Image]:
    """Return the six kinds of image on which the speed of order statistics differs most."""
    rng = np.random.default_rng(0)
    white = rng.normal(size=(EDGE, EDGE))
    rows, columns = np.arange(EDGE)[:, None], np.arange(EDGE)
    smooth = ndi.gaussian_filter(rng.normal(size=(EDGE, EDGE)), 30) * 100
    made = {
        "noise": white,
        "smooth": smooth + 0.3 * white,
        "gradient": 1.0 * rows + 0.5 * columns + white,
        "steps": (rows // 37 * 7 + columns // 23 * 3) % 11 + 0.01 * white,
        "ties": np.clip(np.round(white * 30 + 128), 0, 255),
        "constant": np.full((EDGE, EDGE), 0.5),
    }
    return {name: image.astype(np.float32) for name, image in made.items()}


IMAGES = images()


def ring(share: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a membrane-like ring that contains about `share` of all windows."""
    edge = EDGE - SIZE + 1
    y, x = np.mgrid[:edge, :edge] - edge / 2
    radius = edge * 0.3 if share > 0.01 else edge * 0.05
    thickness = share * edge * edge / (2 * np.pi * radius)
    return np.abs(np.hypot(y, x) - radius) < thickness / 2


def valid(filtered: Any) -> Any:
    """Crop a filtered image with centred windows to the valid windows."""
    return filtered[HALF : HALF + EDGE - SIZE + 1, HALF : HALF + EDGE - SIZE + 1]


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[int]:
    import cv2

    count = int(os.environ.get("T3SSFAST_BENCH_THREADS", "1"))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    yield count
    torch.set_num_threads(before)


def moments_by(box: Callable[[Any], Any], image: Any) -> list[Any]:
    """Compute moments from box filters; NumPy's power is slow for negative values, so powers are products."""
    mean = box(image)
    square = image * image
    second, third, fourth = box(square), box(square * image), box(square * square)
    mean_square = mean * mean
    variance = second - mean_square
    deviation = np.sqrt(variance)
    m3 = third - mean * (3 * second - 2 * mean_square)
    m4 = fourth - mean * (4 * third - mean * (6 * second - 3 * mean_square))
    return [mean, deviation, m3 / (variance * deviation), m4 / (variance * variance) - 3]


def six_opencv(image: Image) -> list[Any]:
    import cv2

    kernel = np.ones((SIZE, SIZE), np.uint8)

    def box(values: Any) -> Any:
        return cv2.boxFilter(values, cv2.CV_64F, (SIZE, SIZE))

    extrema = [cv2.erode(image, kernel), cv2.dilate(image, kernel)]
    return [valid(v) for v in moments_by(box, image.astype(np.float64)) + extrema]


def six_scipy(image: Image) -> list[Any]:
    def box(values: Any) -> Any:
        return ndi.uniform_filter(values, SIZE)

    extrema = [ndi.minimum_filter(image, SIZE), ndi.maximum_filter(image, SIZE)]
    return [valid(v) for v in moments_by(box, image.astype(np.float64)) + extrema]


def six_t3ssfast(image: Image) -> Any:
    return window_statistics(image, SIZE, SIX)


class SixInPlace:
    """The six statistics written to existing memory."""

    def __init__(self) -> None:
        edge = EDGE - SIZE + 1
        self.result = np.empty((6, edge, edge), np.float32)
        self.planes = np.empty((12, EDGE, EDGE))
        self.extrema = np.empty((2, EDGE, EDGE), np.float32)

    def t3ssfast(self, image: Image) -> Any:
        return window_statistics(image, SIZE, SIX, out=self.result)

    def opencv(self, image: Image) -> list[Any]:
        import cv2

        kernel = np.ones((SIZE, SIZE), np.uint8)
        cv2.erode(image, kernel, dst=self.extrema[0])
        cv2.dilate(image, kernel, dst=self.extrema[1])
        return self._moments(image, lambda a, to: cv2.boxFilter(a, cv2.CV_64F, (SIZE, SIZE), dst=to))

    def scipy(self, image: Image) -> list[Any]:
        ndi.minimum_filter(image, SIZE, output=self.extrema[0])
        ndi.maximum_filter(image, SIZE, output=self.extrema[1])
        return self._moments(image, lambda a, to: ndi.uniform_filter(a, SIZE, output=to))

    def _moments(self, image: Image, box: Callable[[Any, Any], Any]) -> list[Any]:
        """Compute `moments_by` in place."""
        first, power, mean, second, third, fourth, square, variance, deviation, m3, m4, more = self.planes
        np.copyto(first, image)
        box(first, mean)
        box(np.multiply(first, first, out=square), second)
        box(np.multiply(square, first, out=power), third)
        box(np.multiply(square, square, out=power), fourth)
        np.multiply(mean, mean, out=square)
        np.subtract(second, square, out=variance)
        np.sqrt(variance, out=deviation)
        np.multiply(second, 3.0, out=m3)
        m3 -= np.multiply(square, 2.0, out=more)
        m3 *= mean
        np.subtract(third, m3, out=m3)
        np.multiply(second, 6.0, out=m4)
        m4 -= np.multiply(square, 3.0, out=more)
        m4 *= mean
        np.subtract(np.multiply(third, 4.0, out=more), m4, out=m4)
        m4 *= mean
        np.subtract(fourth, m4, out=m4)
        m3 /= np.multiply(variance, deviation, out=more)
        m4 /= np.multiply(variance, variance, out=more)
        m4 -= 3.0
        return [valid(v) for v in (mean, deviation, m3, m4, *self.extrema)]


@pytest.mark.benchmark(group="six: mean std skewness kurtosis min max")
@pytest.mark.parametrize("kind", sorted(IMAGES))
@pytest.mark.parametrize("tool", [six_t3ssfast, six_opencv, six_scipy])
def bench_six(benchmark: Any, tool: Callable[[Image], Any], kind: str) -> None:
    image = IMAGES[kind]
    rounds = 3 if tool is six_scipy else 7
    with np.errstate(all="ignore"):
        got = benchmark.pedantic(tool, (image,), rounds=rounds, warmup_rounds=1)
    # Box filters lose the higher moments where the mean is large, and are NaN where the image is constant.
    compared = range(6) if kind == "noise" else (0, 4, 5)
    ours = six_t3ssfast(image)
    for k in compared:
        np.testing.assert_allclose(ours[k], got[k], rtol=1e-4, atol=1e-5, err_msg=SIX[k])


@pytest.mark.benchmark(group="six, existing memory")
@pytest.mark.parametrize("tool", ["t3ssfast", "opencv", "scipy"])
def bench_six_in_place(benchmark: Any, tool: str) -> None:
    memory, image = SixInPlace(), IMAGES["noise"]
    got = benchmark.pedantic(
        getattr(memory, tool), (image,), rounds=3 if tool == "scipy" else 9, warmup_rounds=1
    )
    for ours, theirs in zip(six_t3ssfast(image), got, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.benchmark(group="threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("names", [SIX, ("median",), (*SIX, "median")], ids=["six", "median", "seven"])
def bench_threads_t3ssfast(benchmark: Any, names: tuple[str, ...], threads: int) -> None:
    """Write to existing memory; wall time is only meaningful on an idle machine."""
    image = IMAGES["noise"]
    want = window_statistics(image, SIZE, names)
    out = np.empty_like(want)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    benchmark.pedantic(window_statistics, (image, SIZE, names), {"out": out}, rounds=15, warmup_rounds=2)
    torch.set_num_threads(before)
    np.testing.assert_array_equal(out, want)


def check_order(image: Image, got: Any, fraction: float) -> None:
    rng = np.random.default_rng(1)
    for y, x in rng.integers(0, EDGE - SIZE + 1, (60, 2)):
        want = np.quantile(image[y : y + SIZE, x : x + SIZE].astype(np.float64), fraction)
        np.testing.assert_allclose(got[y, x], want, rtol=2e-7, atol=1e-30)


@pytest.mark.benchmark(group="median")
@pytest.mark.parametrize("kind", sorted(IMAGES))
def bench_median_t3ssfast(benchmark: Any, kind: str) -> None:
    got = benchmark.pedantic(window_statistics, (IMAGES[kind], SIZE, ("median",)), rounds=5, warmup_rounds=1)
    check_order(IMAGES[kind], got[0], 0.5)


@pytest.mark.benchmark(group="median")
def bench_median_opencv_8bit(benchmark: Any) -> None:
    import cv2

    image = IMAGES["ties"].astype(np.uint8)
    got = benchmark.pedantic(cv2.medianBlur, (image, SIZE + 1), rounds=5, warmup_rounds=1)
    assert got[512, 512] == np.median(image[487:538, 487:538])


@pytest.mark.benchmark(group="median")
def bench_median_scipy_narrow_strip(benchmark: Any) -> None:
    """Only 64 rows of windows, because scipy takes half a minute for the whole image (multiply by 16)."""
    strip = IMAGES["noise"][: 64 + SIZE - 1]
    got = benchmark.pedantic(ndi.median_filter, (strip, SIZE), rounds=1)
    # For an even count scipy returns the upper of the two middle values, not their mean.
    window = np.sort(strip[10 : 10 + SIZE, 20 : 20 + SIZE], axis=None)
    assert got[10 + HALF, 20 + HALF] == window[SIZE * SIZE // 2]


@pytest.mark.benchmark(group="seven and quantiles")
@pytest.mark.parametrize(
    "names",
    [(*SIX, "median"), QUANTILES, ("median", *QUANTILES), (*SIX, "median", *QUANTILES)],
    ids=["seven", "five quantiles", "median and five quantiles", "seven and five quantiles"],
)
def bench_together_t3ssfast(benchmark: Any, names: tuple[str, ...]) -> None:
    got = benchmark.pedantic(window_statistics, (IMAGES["noise"], SIZE, names), rounds=5, warmup_rounds=1)
    check_order(IMAGES["noise"], got[-1], 0.5 if names[-1] == "median" else 0.95)


@pytest.mark.benchmark(group="seven, masked")
@pytest.mark.parametrize("share", [1.0, 0.05, 0.001])
def bench_masked_t3ssfast(benchmark: Any, share: float) -> None:
    image, names = IMAGES["smooth"], (*SIX, "median")
    mask = ring(share) if share < 1 else None
    got = benchmark.pedantic(
        lambda: window_statistics(image, SIZE, names, mask=mask), rounds=5, warmup_rounds=1
    )
    if mask is not None:
        np.testing.assert_array_equal(got, window_statistics(image, SIZE, names)[:, mask])


@pytest.mark.benchmark(group="a whole volume")
@pytest.mark.parametrize("new", [True, False], ids=["new", "existing memory"])
def bench_volume_t3ssfast(benchmark: Any, new: bool) -> None:
    """A volume of (256, 1024, 1024): memory beyond the result must not grow with the volume.

    With new memory the time includes the page faults of 2 GB.
    """
    volume = np.tile(IMAGES["noise"], (256, 1, 1))
    names = ("mean", "median")
    edge = EDGE - SIZE + 1
    out = None if new else np.zeros((2, 256, edge, edge), np.float32)
    if out is not None:
        out.fill(1.0)
    window_statistics(volume[:2], SIZE, names)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = benchmark.pedantic(window_statistics, (volume, SIZE, names), {"out": out}, rounds=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < (got.nbytes if new else 0) + (64 << 20)
    np.testing.assert_array_equal(got[:, 200], got[:, 0])
    check_order(IMAGES["noise"], got[1, 255], 0.5)
