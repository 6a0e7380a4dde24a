"""unfold: every window, bit for bit, for all layouts, dtypes, masks and thread counts."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import windows_of, zscored
from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels.unfold import unfold
from t3ssfast.runtime.threads import torch_threads

FAST = settings(deadline=None, max_examples=30)


def expected(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    return windows_of(image.astype(np.float32), size).reshape(-1, size, size)


@FAST
@given(
    st.integers(1, 24), st.integers(0, 12), st.integers(0, 40), st.integers(1, 3), st.integers(0, 2**32 - 1)
)
def test_every_window_is_copied(size: int, more_y: int, more_x: int, count: int, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(count, size + more_y, size + more_x)).astype(np.float32)
    windows = unfold(image, size)
    assert windows.dtype == np.float32
    np.testing.assert_array_equal(windows, expected(image, size))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "uint32", "float16", "float64", ">f4"],
)
def test_dtypes_are_converted_to_float32(dtype: str) -> None:
    image = (np.random.default_rng(1).random((9, 11)) * 100).astype(dtype)
    np.testing.assert_array_equal(unfold(image, 4), expected(image, 4))


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1, ::-1],
        lambda a: a[::2, 1::3],
        lambda a: a.T,
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_memory_layouts(layout: Any) -> None:
    image = np.random.default_rng(2).normal(size=(30, 40)).astype(np.float32)
    image.flags.writeable = False
    view = layout(image)
    np.testing.assert_array_equal(unfold(view, 7), expected(np.ascontiguousarray(view), 7))


def test_mask_selects_windows_in_order() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(size=(2, 20, 30)).astype(np.float32)
    mask = rng.random((2, 16, 26)) < 0.2
    np.testing.assert_array_equal(unfold(image, 5, mask=mask), expected(image, 5)[mask.reshape(-1)])
    as_bytes = torch.from_numpy(mask.astype(np.uint8) * 7)
    np.testing.assert_array_equal(unfold(image, 5, mask=as_bytes), unfold(image, 5, mask=mask))


def test_empty_mask_and_empty_stack() -> None:
    image = np.zeros((8, 8), np.float32)
    assert unfold(image, 3, mask=np.zeros((6, 6), bool)).shape == (0, 3, 3)
    assert unfold(np.zeros((0, 8, 8), np.float32), 3).shape == (0, 3, 3)
    assert unfold(np.zeros((0, 8, 8)), 3, mask=np.zeros((0, 6, 6), bool)).shape == (0, 3, 3)


def test_torch_input_gives_torch_output() -> None:
    image = torch.randn(3, 12, 14, generator=torch.Generator().manual_seed(0))
    windows = unfold(image, 5)
    assert isinstance(windows, torch.Tensor)
    np.testing.assert_array_equal(windows.numpy(), expected(image.numpy(), 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_like_torch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(64, 64, generator=generator) * 10.0 ** torch.randint(
        -9, 6, (64, 64), generator=generator
    )
    image[0, :8] = torch.tensor([0.0, -0.0, 65504.0, 65519.99, 65520.0, 2.0**-24, 2.0**-25, 3 * 2.0**-26])
    windows = unfold(image, 64, dtype=dtype)
    assert windows.dtype is dtype
    assert torch.equal(windows[0].view(torch.int16), image.to(dtype).view(torch.int16))


def test_float16_for_numpy() -> None:
    image = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    windows = unfold(image, 3, dtype=np.float16)
    assert windows.dtype == np.float16
    np.testing.assert_array_equal(windows, expected(image, 3).astype(np.float16))


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_zscore(offset: float) -> None:
    image = np.random.default_rng(4).normal(size=(40, 50)).astype(np.float32) + np.float32(offset)
    image[:20, :20] = 3.0
    image[30, 30] = 1e5
    windows = unfold(image, 11, normalise="zscore")
    np.testing.assert_allclose(windows, zscored(expected(image, 11)), rtol=1e-5, atol=1e-6)
    assert (windows[0] == 0).all()


def test_out_is_written_and_returned() -> None:
    image = np.random.default_rng(5).normal(size=(9, 9)).astype(np.float32)
    out = np.empty((49, 3, 3), np.float16)
    assert unfold(image, 3, out=out) is out
    np.testing.assert_array_equal(out, expected(image, 3).astype(np.float16))
    tensor = torch.empty(49, 3, 3)
    assert unfold(torch.from_numpy(image), 3, out=tensor) is tensor
    np.testing.assert_array_equal(tensor.numpy(), expected(image, 3))


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_threads(threads: int) -> None:
    image = np.random.default_rng(6).normal(size=(60, 60)).astype(np.float32)
    with torch_threads(1):
        one = unfold(image, 9, normalise="zscore")
    with torch_threads(threads):
        np.testing.assert_array_equal(unfold(image, 9, normalise="zscore"), one)


IMAGE = np.zeros((8, 8), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": [[1.0]]}, "type list"),
        ({"image": np.zeros(8)}, r"shape \(8,\)"),
        ({"image": np.zeros((0, 8))}, "without a pixel"),
        ({"image": np.zeros((8, 8), complex)}, "complex128"),
        ({"image": np.full((8, 8), "a")}, "real numbers"),
        ({"image": torch.zeros(8, 8, dtype=torch.complex64)}, "complex64"),
        ({"size": 9}, "smaller than one window"),
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, r"size is 2\.5"),
        ({"mask": np.ones((8, 8), bool)}, r"mask has shape \(8, 8\)"),
        ({"mask": [True]}, "mask is of type list"),
        ({"normalise": "minmax"}, "'minmax'"),
        ({"dtype": "int8"}, "int8"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"out": np.empty((1, 3, 3), np.float32)}, r"give shape \(36, 3, 3\)"),
        ({"out": torch.empty(36, 3, 3)}, "give a NumPy array"),
        ({"out": np.empty((3, 3, 36), np.float32).T}, "C-contiguous"),
        ({"out": np.empty((36, 3, 3), np.float32), "dtype": "float16"}, "dtype float16"),
        ({"out": np.empty((36, 3, 3), np.int32)}, "int32"),
    ],
)
def test_bad_arguments_raise(arguments: dict[str, Any], message: str) -> None:
    call = {"image": IMAGE, "size": 3, **arguments}
    with pytest.raises(InputError, match=message):
        unfold(**call)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.float32])
def test_nonfinite_values_raise_with_their_position(bad: float, kind: Any) -> None:
    image = np.zeros((3, 300, 300), np.float64)
    image[2, 17, 29] = bad
    image[2, 200, 1] = np.nan
    given_image = torch.from_numpy(image).to(kind) if isinstance(kind, torch.dtype) else image.astype(kind)
    with pytest.raises(InputError, match=r"index \(2, 17, 29\)"):
        unfold(given_image, 3)


def test_values_beyond_float32_raise() -> None:
    image = np.zeros((8, 8))
    image[1, 2] = 1e300
    with pytest.raises(InputError, match=r"1e\+300 \(beyond float32\) at index \(1, 2\)"):
        unfold(image, 3)


# ------------------------------------------------------------------------------------ non-temporal stores


@FAST
@given(
    size=st.integers(1, 70),
    count=st.integers(1, 200),
    shift=st.integers(0, 40),
    element=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    zscore=st.booleans(),
    threads=st.integers(1, 3),
)
def test_streamed_windows_are_equal_and_stay_within_out(
    size: int, count: int, shift: int, element: torch.dtype, zscore: bool, threads: int
) -> None:
    image = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(size))
    stack = _native.as_stack(image)
    shape = stack.window_shape(size)
    index = (
        torch.randint(math.prod(shape), (count,), generator=torch.Generator().manual_seed(count))
        .sort()
        .values
    )
    windows = _native.Windows(shape, index)
    plain = torch.empty(count, size, size, dtype=element)
    _native.unfold(stack, size, windows, zscore=zscore, out=plain)
    memory = torch.full((plain.numel() + shift + 50,), 7.0, dtype=element)
    out = memory[shift : shift + plain.numel()].view(plain.shape)  # any alignment to a cache line
    _native.unfold(stack, size, windows, zscore=zscore, out=out, stream=True, threads=threads)
    assert torch.equal(out.view(torch.int16), plain.view(torch.int16))
    assert (memory[:shift] == 7).all()
    assert (memory[shift + plain.numel() :] == 7).all()


def test_large_out_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(7).normal(size=(60, 64)).astype(np.float32)
    monkeypatch.setattr(_native, "STREAM_BYTES", 1 << 16)
    out = np.empty((51 * 55, 10, 10), np.float32)
    np.testing.assert_array_equal(unfold(image, 10, out=out), expected(image, 10))


@pytest.mark.slow
def test_output_of_more_than_2_to_the_31_elements() -> None:
    image = (
        torch.arange(23_200 * 23_200, dtype=torch.int32)
        .remainder_(251)
        .to(torch.float32)
        .view(23_200, 23_200)
    )
    windows = unfold(image, 2, dtype=torch.float16)
    assert windows.numel() > 2**31
    for i in (0, 2**29 + 3, len(windows) - 1):
        y, x = divmod(i, 23_199)
        assert torch.equal(windows[i], image[y : y + 2, x : x + 2].half())


LEVELS = """
import hashlib, sys
import numpy as np, torch
from t3ssfast.kernels import _native
from t3ssfast import unfold
assert _native.build_info()["simd_levels"][-1] == sys.argv[1]
image = np.random.default_rng(0).normal(size=(2, 70, 83)).astype(np.float32)
for size in (1, 13, 50):
    for dtype in (np.float32, np.float16):
        for normalise in (None, "zscore"):
            windows = unfold(image, size, dtype=dtype, normalise=normalise)
            print(hashlib.sha256(windows.tobytes()).hexdigest())
"""


def test_instruction_sets_give_the_same_bits() -> None:
    digests = set()
    for level in _native.build_info()["simd_levels"]:
        environment = {**os.environ, "T3SSFAST_SIMD": level, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", LEVELS, level], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(ran.stdout)
    assert len(digests) == 1
    assert next(iter(digests)).count("\n") == 12
