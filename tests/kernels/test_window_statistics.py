"""window_statistics against float64 reference implementations, and its exactness guarantees."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_window_statistics import ALL, KINDS, MOMENTS, ORDER, Image, compare

from reference import statistic
from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.runtime.threads import torch_threads

FAST = settings(deadline=None, max_examples=40)


def check(image: Image, size: int, names: tuple[str, ...] = ALL) -> None:
    """Compare every statistic of every window with its reference."""
    compare(window_statistics(image, size, names), image, size, names)


def noise(shape: tuple[int, ...], seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@FAST
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 64),
    st.integers(0, 20),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)
def test_statistics_match_the_reference(kind: str, size: int, more_y: int, more_x: int, seed: int) -> None:
    # Fewer large windows keep the reference fast.
    shape = (size + more_y // (1 + size // 16), size + more_x // (1 + size // 16))
    check(KINDS[kind](np.random.default_rng(seed), shape).astype(np.float32), size)


@pytest.mark.parametrize("size", [2, 50])
def test_images_of_several_tiles(size: int) -> None:
    image = noise((size + 149, size + 150))
    names = ("mean", "std", "skewness", "kurtosis", "min", "max", "median", "q25")
    got = window_statistics(image, size, names)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(0, 150, 200), rng.integers(0, 151, 200), strict=True):
        pixel_block = image[y : y + size, x : x + size]
        for k, name in enumerate(names):
            np.testing.assert_allclose(got[k, y, x], statistic(pixel_block, size, name)[0, 0], 1e-5, 1e-6)


def test_windows_larger_than_a_tile() -> None:
    image = noise((203, 214))
    image[50:60] = 2.0
    check(image, 200, (*MOMENTS, *ORDER, "q05"))


@pytest.mark.parametrize("size", [97, 127, 128])
def test_large_windows(size: int) -> None:
    image = noise((size + 4, size + 5), seed=size)
    image[::7] = 0.5
    check(image, size, (*ORDER, "q05", "q95"))


_DIGEST = """
import hashlib, sys
import numpy as np
from t3ssfast.kernels._native import build_info
from t3ssfast.kernels.window_statistics import window_statistics
rng = np.random.default_rng(0)
moments = ("mean", "std", "variance", "skewness", "kurtosis", "energy")
names = (*moments, "min", "max", "range", "median", "q05", "q90")
digest = hashlib.sha256()
for size, shape in [(1, (40, 70)), (7, (150, 160)), (50, (2, 190, 230)), (130, (140, 171))]:
    image = rng.normal(size=shape) + 0.02 * np.arange(shape[-1])
    image[..., 20:40, :30] = np.round(image[..., 20:40, :30])
    got = window_statistics(image, size, names)
    digest.update(np.nan_to_num(got, nan=-1.0).tobytes())
    digest.update(window_statistics(image, size, names, mask=rng.random(got.shape[1:]) < 0.01).tobytes())
print(build_info()["simd"], digest.hexdigest(), sep="|")
"""


def test_instruction_sets_give_the_same_bits() -> None:
    digests = {}
    for level in ("portable", "avx2", "avx512"):
        environment = {**os.environ, "T3SSFAST_SIMD": level, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", _DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        name, digest = run.stdout.strip().split("|")
        digests[name] = digest
    assert len(set(digests.values())) == 1, digests
    # A processor without an instruction set uses the best one below it.
    assert len(digests) == {"x86-64-v4": 3, "x86-64-v3": 2}.get(_native.build_info()["simd"].split()[0], 1)


_PEAK = """
import resource
import numpy as np
from t3ssfast.kernels.window_statistics import window_statistics
names = ("mean", "kurtosis", "min", "median", "q95")
volume = np.random.default_rng(0).normal(size=(96, 300, 300)).astype(np.float32)
window_statistics(volume[:3], 50, names)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = window_statistics(volume, 50, names)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 - result.nbytes, volume.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux")
def test_memory_does_not_grow_with_the_volume() -> None:
    run = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    overhead, volume = map(int, run.stdout.split())
    assert overhead < volume / 4


def test_one_window_as_large_as_the_image() -> None:
    check(noise((33, 33)), 33)


@pytest.mark.parametrize("size", [7, 16])
def test_moments_with_hot_pixels(size: int) -> None:
    image = noise((90, 80))
    image.reshape(-1)[np.random.default_rng(3).choice(image.size, 40, replace=False)] = 1e5
    check(image, size)
    check(image + np.float32(1e5), size)


@pytest.mark.parametrize("names", [MOMENTS, (*ORDER, "q25")])
def test_an_outlier_affects_only_its_own_windows(names: tuple[str, ...]) -> None:
    size = 9
    image = noise((60, 70))
    for y, x in [(18, 27), (31, 40), (0, 0), (59, 69), (27, 26)]:
        spoiled = image.copy()
        spoiled[y, x] = 1e30
        clean = window_statistics(image, size, names)
        got = window_statistics(spoiled, size, names)
        unaffected = np.ones(clean.shape[1:], bool)
        unaffected[max(0, y - size + 1) : y + 1, max(0, x - size + 1) : x + 1] = False
        np.testing.assert_array_equal(got[:, unaffected].view(np.int32), clean[:, unaffected].view(np.int32))


def test_constant_windows() -> None:
    image = np.full((30, 40), np.float32(0.1))
    image[20:] = noise((10, 40))
    mean, std, skewness, kurtosis, median = window_statistics(
        image, 8, ("mean", "std", "skewness", "kurtosis", "median")
    )
    assert (mean[:13] == np.float32(0.1)).all()
    assert (median[:13] == np.float32(0.1)).all()
    assert (std[:13] == 0).all()
    assert np.isnan(skewness[:13]).all()
    assert np.isnan(kurtosis[:13]).all()
    assert (std[13:] > 0).all()
    assert np.isfinite(kurtosis[13:]).all()


def test_a_difference_of_one_ulp_is_not_constant() -> None:
    image = np.full((64, 64), np.float32(1.0))
    image[5, 5] = np.nextafter(np.float32(1), np.float32(2))
    std, kurtosis = window_statistics(image, 64, ("std", "kurtosis"))
    assert std[0, 0] > 0
    np.testing.assert_allclose(kurtosis, statistic(image.astype(np.float64), 64, "kurtosis"), rtol=1e-5)


def test_signed_zeros_compare_equal() -> None:
    rng = np.random.default_rng(4)
    image = np.where(rng.random((20, 20)) < 0.5, np.float32(-0.0), np.float32(0.0))
    image[3, 3] = 1.0
    got = window_statistics(image, 5, ALL)
    assert not np.signbit(got[[ALL.index(n) for n in ("min", "max", "median", "q05")]]).any()
    plain = window_statistics(np.where(image == 0, np.float32(0), image), 5, ALL)
    np.testing.assert_array_equal(got.view(np.int32), plain.view(np.int32))


def test_denormals() -> None:
    image = (np.random.default_rng(5).integers(-50, 50, (20, 20)) * 1e-45).astype(np.float32)
    check(image, 6, (*ORDER, "q05"))
    mean, std, kurtosis = window_statistics(image, 6, ("mean", "std", "kurtosis"))
    step = 1.5e-45
    np.testing.assert_allclose(mean, statistic(image, 6, "mean"), atol=step)
    np.testing.assert_allclose(std, statistic(image, 6, "std"), atol=step)
    np.testing.assert_allclose(
        kurtosis, statistic(image * np.float64(1e40), 6, "kurtosis"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("share", [0.0, 0.002, 0.2, 1.0])
@pytest.mark.parametrize("size", [1, 4, 17])
def test_masked_results_equal_the_unmasked_ones(size: int, share: float) -> None:
    image = noise((2, 75, 160), seed=size)
    dense = window_statistics(image, size, ALL)
    mask = np.random.default_rng(6).random(dense.shape[1:]) < share
    masked = window_statistics(image, size, ALL, mask=mask)
    assert masked.shape == (len(ALL), mask.sum())
    np.testing.assert_array_equal(masked.view(np.int32), dense[:, mask].view(np.int32))


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_threads(threads: int) -> None:
    image = noise((3, 90, 170))
    mask = np.random.default_rng(7).random((3, 81, 161)) < 0.05
    with torch_threads(1):
        one, one_masked = window_statistics(image, 10, ALL), window_statistics(image, 10, ALL, mask=mask)
    with torch_threads(threads):
        np.testing.assert_array_equal(window_statistics(image, 10, ALL), one)
        np.testing.assert_array_equal(window_statistics(image, 10, ALL, mask=mask), one_masked)


def test_slices_do_not_depend_on_their_stack() -> None:
    image = noise((4, 30, 33))
    whole = window_statistics(image, 6, ALL)
    for z in range(4):
        np.testing.assert_array_equal(window_statistics(image[z], 6, ALL), whole[:, z])
        np.testing.assert_array_equal(window_statistics(image[z : z + 2], 6, ALL), whole[:, z : z + 2])


def test_names_may_repeat_in_any_order() -> None:
    image = noise((20, 20))
    got = window_statistics(image, 5, ("max", "q05", "mean", "max", "median", "q05"))
    np.testing.assert_array_equal(got[0], got[3])
    np.testing.assert_array_equal(got[1], got[5])
    np.testing.assert_array_equal(got[[2]], window_statistics(image, 5, "mean"))


def test_default_statistics() -> None:
    image = noise((55, 52))
    seven = ("mean", "std", "skewness", "kurtosis", "min", "max", "median")
    np.testing.assert_array_equal(window_statistics(image), window_statistics(image, 50, seven))
    assert window_statistics(image).shape == (7, 6, 3)


def test_torch_input_gives_torch_output() -> None:
    image = noise((2, 20, 20))
    got = window_statistics(torch.from_numpy(image), 5, ALL)
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), window_statistics(image, 5, ALL))


def test_memory_layouts_and_dtypes() -> None:
    image = (noise((40, 44)) * 50).astype(np.int16)
    want = window_statistics(image.astype(np.float32), 5, ALL)
    for other in (np.asfortranarray(image), image.astype(np.float64), image.astype(">i4"), image[::-1][::-1]):
        np.testing.assert_array_equal(window_statistics(other, 5, ALL), want)
    flipped = window_statistics(image[:, ::-1], 5, ORDER)
    np.testing.assert_array_equal(flipped[..., ::-1], window_statistics(image, 5, ORDER))


def test_out_is_written_and_returned() -> None:
    image = noise((30, 31))
    want = window_statistics(image, 5, ALL)
    out = np.empty_like(want)
    assert window_statistics(image, 5, ALL, out=out) is out
    np.testing.assert_array_equal(out, want)
    mask = np.zeros(want.shape[1:], bool)
    mask[3:9:2, 4:11] = True
    listed = torch.empty(len(ALL), int(mask.sum()))
    assert window_statistics(torch.from_numpy(image), 5, ALL, mask=mask, out=listed) is listed
    np.testing.assert_array_equal(listed.numpy(), want[:, mask])


@pytest.mark.parametrize("names", [MOMENTS, ("min", "max"), ("median", "q25"), ALL])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 3, 269), (2, 299, 299)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_raise_and_leave_out_unchanged(
    names: tuple[str, ...], place: tuple[int, int, int], bad: float
) -> None:
    images = np.random.default_rng(8).normal(size=(3, 300, 300)).astype(np.float32)
    images[place] = images[2, 299, 299] = bad
    out = np.full((len(names), 3, 281, 281), 7.0, np.float32)
    message = rf"image holds {bad} at index \({place[0]}, {place[1]}, {place[2]}\)"
    with pytest.raises(InputError, match=message):
        window_statistics(images, 20, names, out=out)
    with pytest.raises(InputError, match=message):
        window_statistics(torch.from_numpy(images), 20, names, out=torch.from_numpy(out))
    with pytest.raises(InputError, match=message):
        window_statistics(images.astype(np.float64), 20, names, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("wanted", [0, 1])
def test_nonfinite_values_outside_the_mask_raise(wanted: int) -> None:
    image = np.zeros((40, 40), np.float32)
    image[30, 31] = np.nan
    mask = np.zeros((36, 36), bool)
    mask[0, :wanted] = True
    with pytest.raises(InputError, match=r"image holds nan at index \(30, 31\)"):
        window_statistics(image, 5, mask=mask)


def test_values_beyond_float32_raise() -> None:
    image = np.zeros((8, 8))
    image[1, 2] = -1e300
    with pytest.raises(InputError, match=r"-1e\+300 \(beyond float32\) at index \(1, 2\)"):
        window_statistics(image, 3)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((2, 26, 27), np.float64), "dtype float64"),
        (np.empty((2, 26, 26), np.float32), "shape"),
        (np.empty((2, 27, 26), np.float32).swapaxes(1, 2), "contiguous"),
        (torch.empty(2, 26, 27), "NumPy"),
    ],
)
def test_unsuitable_out_raises(out: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        window_statistics(noise((30, 31)), 5, ("mean", "q25"), out=out)


@pytest.mark.parametrize(
    ("size", "shape"), [(1, (9, 40)), (7, (2, 61, 133)), (50, (2, 160, 620)), (70, (90, 210))]
)
@pytest.mark.parametrize("shift", [0, 1, 13])
def test_streamed_results_are_equal_and_stay_within_out(
    monkeypatch: pytest.MonkeyPatch, size: int, shape: tuple[int, ...], shift: int
) -> None:
    image = noise(shape, seed=size)
    names = ("mean", "kurtosis", "min", "range", "median", "std", "mean")
    want = window_statistics(image, size, names)
    # `_native.window_statistics` is the function.
    module = importlib.import_module("t3ssfast.kernels._native.window_statistics")
    monkeypatch.setattr(module, "STREAM_BYTES", 0)
    memory = np.full(want.size + 64, 7.0, np.float32)
    out = memory[shift : shift + want.size].reshape(want.shape)
    np.testing.assert_array_equal(window_statistics(image, size, names, out=out), want)
    assert (memory[:shift] == 7).all()
    assert (memory[shift + want.size :] == 7).all()


@pytest.mark.parametrize("name", ["mode", "q", "q101", "q-5", "q5.5", "", 5])
def test_unknown_names_raise(name: Any) -> None:
    with pytest.raises(InputError, match="not known"):
        window_statistics(np.zeros((5, 5)), 3, (name,))


def test_empty_names_raise() -> None:
    with pytest.raises(InputError, match="empty"):
        window_statistics(np.zeros((5, 5)), 3, ())
