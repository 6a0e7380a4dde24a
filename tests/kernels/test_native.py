"""The native boundary: emulated CUDA algorithms, build information, forks, threads and CUDA kernels."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from reference import windows_of, zscored
from t3ssfast import _core
from t3ssfast.errors import DeviceError
from t3ssfast.kernels import _native
from t3ssfast.kernels._native.window_statistics import request_of
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics

NAMES = (*_native.STATISTICS, "q05", "q95", "q100")
LANES = [1, 32, 128, 257]
DEVICE = "cuda" if torch.cuda.is_available() and _native.build_info()["cuda_devices"] else None


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def emulated_statistics(
    image: np.ndarray[Any, np.dtype[np.float32]],
    size: int,
    lanes: int,
    reverse: bool,
    strip_rows: int,
    mask: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    stack = _native.as_stack(image)
    windows = _native.as_windows(stack, size, mask)
    out = np.full((len(NAMES), *(windows.shape if mask is None else (windows.count,))), -7e7, np.float32)
    requests = [request_of(name) for name in NAMES]
    _core.emulate_window_statistics(
        stack.native,
        size,
        requests,
        windows.native,
        out.ctypes.data,
        lanes,
        reverse,
        strip_rows,
        strip_rows != 2,
    )
    return out


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("size", "strip_rows"), [(1, 1), (2, 16), (5, 2), (16, 7), (50, 1), (50, 8), (101, 2)]
)
def test_emulated_statistics_equal_the_cpu_bit_for_bit(
    size: int, strip_rows: int, lanes: int, reverse: bool
) -> None:
    image = noise(2, size + 20, size + 29)
    image[0, :8, :9] = 0.25
    image[1, 5] = -0.0
    want = window_statistics(image, size, NAMES)
    got = emulated_statistics(image, size, lanes, reverse, strip_rows)
    np.testing.assert_array_equal(got, want)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got.view(np.int32)[finite], want.view(np.int32)[finite])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lanes", LANES)
def test_emulated_statistics_over_several_tiles_and_masks(lanes: int, reverse: bool) -> None:
    image = noise(2, 90, 150)
    image += np.arange(150, dtype=np.float32)
    want = window_statistics(image, 6, NAMES)
    np.testing.assert_array_equal(emulated_statistics(image, 6, lanes, reverse, 4), want)
    mask = np.random.default_rng(1).random(want.shape[1:]) < 0.02
    mask[0, :70] = False
    np.testing.assert_array_equal(emulated_statistics(image, 6, lanes, reverse, 4, mask), want[:, mask])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("zscore", [False, True])
def test_emulated_unfold(zscore: bool, lanes: int, reverse: bool) -> None:
    image = noise(2, 16, 19)
    image[0, :7, :7] = 5.0
    stack = _native.as_stack(image)
    mask = np.random.default_rng(2).random((2, 10, 13)) < 0.4
    mask[0, 0, 0] = True
    windows = _native.as_windows(stack, 7, mask)
    out = np.empty((windows.count, 7, 7), np.float32)
    arguments = (stack.native, 7, zscore, 0, windows.native)
    _core.emulate_unfold(*arguments, out.ctypes.data, lanes, reverse)
    plain = windows_of(image, 7)[mask].reshape(-1, 7, 7)
    if zscore:
        np.testing.assert_allclose(out, zscored(plain), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(out, plain)


@pytest.mark.parametrize("element", [1, 2])
def test_emulated_unfold_in_half_precision(element: int) -> None:
    image = noise(9, 9)
    stack = _native.as_stack(image)
    out = torch.empty((25, 5, 5), dtype=[torch.float16, torch.bfloat16][element - 1])
    _core.emulate_unfold(stack.native, 5, False, element, (0, 25), out.data_ptr(), 32, False)
    assert torch.equal(out, unfold(torch.from_numpy(image), 5, dtype=out.dtype))


def test_build_info() -> None:
    info = _native.build_info()
    assert info["simd"]
    assert info["compiler"].startswith(("gcc", "clang"))
    assert isinstance(info["cuda"], bool)
    assert bool(info["cuda_devices"]) != bool(info["cuda_problem"])
    assert bool(info["cuda_architectures"]) == info["cuda"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs ldd")
def test_the_extension_links_neither_torch_nor_cudart() -> None:
    linked = subprocess.run(["ldd", str(_core.__file__)], capture_output=True, text=True, check=True).stdout
    assert not [line for line in linked.splitlines() if "torch" in line or "cudart" in line or "c10" in line]


def test_a_forked_child_can_compute() -> None:
    script = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import numpy as np, torch\n"
        "from t3ssfast.kernels.window_statistics import window_statistics\n"
        "torch.set_num_threads(2)\n"
        "image = np.random.default_rng(0).normal(size=(3, 60, 60))\n"
        "want = window_statistics(image, 9)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(window_statistics(image, 9), want) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=250, check=False).returncode == 0


def test_kernels_release_the_gil() -> None:
    image = noise(600, 600)
    window_statistics(image, 50, ("median",))
    ticks = 0
    running = threading.Event()

    def work() -> None:
        running.set()
        window_statistics(image, 50, NAMES)
        running.clear()

    worker = threading.Thread(target=work)
    worker.start()
    running.wait()
    while running.is_set():
        ticks += 1
        time.sleep(0.001)
    worker.join()
    assert ticks > 3


@pytest.mark.parametrize(
    ("row", "map_layers", "size", "message"),
    [
        ((1, 1, 2, 3, 3, 1, 1, 0, 20), 1, 3, "no fully connected layer"),
        ((1, 2, 2, 3, 3, 1, 1, 0, 38), 0, 3, "input channels differ"),
        ((1, 1, 2, 3, 3, 1, 1, 0, 19), 0, 3, "number of parameters"),
        ((1, 1, 2, 3, 3, 1, 1, 1, 20), 0, 3, "number of parameters"),
        ((0, 1, 2, 3, 3, 1, 1, 0, 20), 0, 3, "is not fully connected"),
        ((1, 1, 2, 3, 3, 1, 1, 0, 20), 0, 2, "read beyond the window"),
    ],
)
def test_inconsistent_programs_raise(row: tuple[int, ...], map_layers: int, size: int, message: str) -> None:
    program = _native.LayerProgram((row,), map_layers, 2, torch.zeros(20))
    stack = _native.as_stack(noise(5, 5))
    with pytest.raises(ValueError, match=message):
        _native.score_windows(stack, size, program, _native.as_windows(stack, size, None))


@pytest.mark.skipif(DEVICE is not None, reason="a CUDA device is available")
def test_unsupported_device_raises() -> None:
    with pytest.raises(DeviceError, match="on device meta"):
        unfold(torch.zeros(8, 8, device="meta"), 3)
