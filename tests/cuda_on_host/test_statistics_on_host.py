"""window_statistics and unfold: the CUDA sources on the host against the CPU kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_device import DEVICE, Extension

import t3ssfast as t3
from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels._native.extension import core
from t3ssfast.kernels._native.window_statistics import request_of

NAMES = (*_native.STATISTICS, "q05", "q95", "q100", "q15", "q33")
SUMS = ("mean", "std", "variance", "skewness", "kurtosis", "energy")
SCHEDULES = {"forward": ("forward", False), "reversed": ("reversed", True), "shuffled": ("shuffled", True)}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def mask_of(shape: tuple[int, ...], share: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).random(shape) < share)


def statistics(
    extension: Extension,
    image: torch.Tensor,
    size: int,
    names: tuple[str, ...],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    with extension.device() as device:
        stack = device.stack(image)
        windows = _native.as_windows(stack, size, mask)
        return _native.window_statistics(stack, size, names, windows)


def assert_equals_cpu(
    extension: Extension,
    image: torch.Tensor,
    size: int,
    names: tuple[str, ...],
    mask: torch.Tensor | None = None,
) -> None:
    found = statistics(extension, image, size, names, mask)
    expected = t3.window_statistics(image, size, names, mask=mask)
    for i, name in enumerate(names):
        # Sums are added in another order than on the CPU; rounded to float32, few results differ.
        tolerance = 2e-7 if name in SUMS else 0.0
        np.testing.assert_allclose(
            found[i].numpy(), expected[i].numpy(), rtol=tolerance, atol=0, err_msg=name
        )
    if mask is None and size < 20:
        emulated = np.full(expected.shape, np.nan, np.float32)
        requests = [request_of(name) for name in names]
        shape = (image.data_ptr(), *image.shape)
        target = emulated.ctypes.data
        core.emulate_window_statistics(shape, size, requests, (0, 0), target, 40, False, 3, True)
        np.testing.assert_array_equal(found.numpy(), emulated)


@pytest.mark.parametrize(
    ("size", "order"),
    [(1, "shuffled"), (2, "forward"), (3, "reversed"), (7, "shuffled"), (16, "reversed"), (50, "forward")],
)
def test_statistics_equal_the_cpu(on_host: Extension, size: int, order: str) -> None:
    on_host.schedule(*SCHEDULES[order])
    image = noise(2, size + 36, size + 61, seed=size)
    image[0, :8, :9] = 0.25
    assert_equals_cpu(on_host, image, size, NAMES)


@pytest.mark.parametrize(("size", "order"), [(11, "reversed"), (24, "shuffled")])
def test_strips_of_several_cells(on_host: Extension, size: int, order: str) -> None:
    """Sums of the rows that one cell shares with the next are kept."""
    on_host.schedule(*SCHEDULES[order])
    assert_equals_cpu(on_host, noise(1, size * 26, size * 2 + 3), size, ("mean", "kurtosis", "min", "max"))


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize(("size", "share"), [(7, 0.05), (13, 0.002), (33, 0.3)])
def test_masked_statistics_equal_the_cpu(on_host: Extension, order: str, size: int, share: float) -> None:
    on_host.schedule(*SCHEDULES[order])
    image = noise(3, size + 69, size + 130)
    mask = mask_of((3, 70, 131), share)
    mask[1] = False
    assert_equals_cpu(on_host, image, size, ("mean", "kurtosis", "max", "median", "q05"), mask)


@pytest.mark.parametrize(("size", "architecture"), [(50, 75), (120, 90), (200, 90)])
def test_moments_of_large_windows_use_device_memory(on_host: Extension, size: int, architecture: int) -> None:
    """Pixels are read from the image, and what does not fit shared memory is in the workspace."""
    on_host.use(architecture)
    on_host.schedule("reversed")
    assert_equals_cpu(on_host, noise(1, size + 9, size + 15), size, ("mean", "kurtosis", "min"))


@pytest.mark.parametrize(("size", "architecture"), [(60, 75), (120, 90), (200, 90)])
def test_median_of_large_windows(on_host: Extension, size: int, architecture: int) -> None:
    """Ranks of 16 bits in small tiles, or of 32 bits in the workspace."""
    on_host.use(architecture)
    on_host.schedule("shuffled")
    assert_equals_cpu(on_host, noise(2, size + 4, size + 6), size, ("median", "q15"))


@pytest.mark.parametrize("values", [2, 300])
def test_median_of_few_different_values(on_host: Extension, values: int) -> None:
    """Digits that all keys share are skipped."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, values, (1, 60, 70)).astype(np.float32))
    assert_equals_cpu(on_host, image, 9, ("median", "q05"))
    assert_equals_cpu(on_host, torch.full((1, 20, 20), 3.0), 9, ("median", "q95"))


def test_blocks_take_several_tiles(on_host: Extension) -> None:
    """A block reuses its shared memory."""
    on_host.schedule("shuffled")
    image = noise(9, 71, 140)
    assert_equals_cpu(on_host, image, 5, ("median", "q95"))
    assert_equals_cpu(on_host, image, 5, ("median", "mean"), mask_of((9, 67, 136), 0.01))


def test_rows_without_listed_windows_at_the_end_of_a_tile(on_host: Extension) -> None:
    """A block skips them; the lists of the next tile must wait until every lane has looked.

    In the workspace, because blocks go on to another tile there.
    """
    on_host.use(75)
    mask = torch.zeros(5, 20, 1, dtype=torch.bool)
    mask[:, :2] = True
    assert_equals_cpu(on_host, noise(5, 139, 120), 120, ("mean", "max"), mask)


@pytest.mark.parametrize("rows", [(20,), (2, 33), (16, 50, 51)])
def test_rows_without_listed_windows_within_a_tile(on_host: Extension, rows: tuple[int, ...]) -> None:
    mask = torch.zeros(1, 60, 40, dtype=torch.bool)
    mask[0, list(rows)] = True
    assert_equals_cpu(on_host, noise(1, 92, 72), 33, ("mean", "kurtosis", "min", "max"), mask)


def test_empty_tile_before_a_taller_one(on_host: Extension) -> None:
    """A lane may still look at the list of a tile of 6 rows while others list the 64 rows of the next one."""
    mask = torch.zeros(6, 262, 8, dtype=torch.bool)
    mask[0, 3, 3] = True
    assert_equals_cpu(on_host, noise(6, 266, 12), 5, ("median",), mask)


@pytest.mark.parametrize(
    "names",
    [tuple(f"q{k:02d}" for k in range(0, 100, 5)), _native.STATISTICS[:9] * 2],
    ids=["order", "moments"],
)
def test_more_requests_than_one_launch_takes(on_host: Extension, names: tuple[str, ...]) -> None:
    assert_equals_cpu(on_host, noise(1, 30, 40), 9, names)


@pytest.mark.parametrize("architecture", [75, 80, 86, 89, 90, 100, 120])
def test_statistics_fit_every_architecture(on_host: Extension, architecture: int) -> None:
    on_host.use(architecture)
    assert_equals_cpu(on_host, noise(1, 58, 60), 50, ("std", "max", "median"))


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("masked", [False, True])
def test_unfold_equals_the_cpu(on_host: Extension, order: str, size: int, masked: bool) -> None:
    on_host.schedule(*SCHEDULES[order])
    image = noise(2, size + 4, size + 6)
    mask = mask_of((2, 5, 7), 0.4) if masked else None
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for zscore in (False, True):
            with on_host.device() as device:
                stack = device.stack(image)
                windows = _native.as_windows(stack, size, mask)
                found = torch.empty((windows.count, size, size), dtype=dtype, device=DEVICE)
                _native.unfold(stack, size, windows, zscore=zscore, out=found)
            expected = t3.unfold(image, size, mask=mask, normalise="zscore" if zscore else None, dtype=dtype)
            tolerance = 0.0 if not zscore else 1e-5 if dtype is torch.float32 else 2e-2
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_value_that_is_not_finite(on_host: Extension, order: str, value: float) -> None:
    on_host.schedule(*SCHEDULES[order])
    image = noise(3, 40, 61)
    image[2, 1, 3] = value
    image[1, 39, 5] = value
    with on_host.device() as device:
        stack = device.stack(image, check=False)
        with pytest.raises(InputError, match=r"index \(1, 39, 5\)"):
            stack.check_finite()


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("names", [("mean", "max"), ("median",), NAMES[:9] * 2])
def test_statistics_report_the_first_value_that_is_not_finite(
    on_host: Extension, order: str, names: tuple[str, ...]
) -> None:
    """Where moments of all windows are requested, the check needs no pass over the image of its own."""
    on_host.schedule(*SCHEDULES[order])
    image = noise(2, 43, 61)
    image[1, 42, 60] = float("nan")
    image[1, 42, 59] = float("inf")
    for mask in (None, mask_of((2, 38, 56), 0.1)):
        with on_host.device() as device:
            stack = device.stack(image, check=False)
            windows = _native.as_windows(stack, 6, mask)
            with pytest.raises(InputError, match=r"index \(1, 42, 59\)"):
                _native.window_statistics(stack, 6, names, windows)
        launches = len(on_host.counts())
        assert launches == (1 if "median" in names or mask is not None else 1 + (len(names) > 16))
