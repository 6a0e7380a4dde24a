"""The counts in docs/dev/cuda.md: what the lanes of each kernel read, write and compute, exactly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from host_device import DEVICE, Counts, Extension

from lenets import lenet, noise
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, read_plan

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "dev" / "cuda.md"
SIX = ("mean", "std", "skewness", "kurtosis", "min", "max")
SCORE_KERNELS = ("pack", "mark", "feature_map", "fully_connected")
PRECISIONS = ("float32", "tf32", "bfloat16")


def documented() -> dict[str, list[str]]:
    """Return the rows of the table of counts by their first cell."""
    table = DOCUMENT.read_text().split("<!-- counts -->")[1]
    rows = re.findall(r"^\| `([^|`]+)` \|(.*)\|$", table, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def cells(count: Counts, units: int) -> list[str]:
    """Return the cells of a row: per pixel or window, and the barriers of all blocks."""
    per_unit = [
        count.global_read,
        count.global_written,
        count.shared_read,
        count.shared_written,
        count.products,
        count.double_operations,
    ]
    return [*(f"{value / units:.1f}" for value in per_unit), str(count.barriers)]


@pytest.mark.parametrize(("name", "side", "statistics"), [("six", 400, SIX), ("median", 256, ("median",))])
def test_statistics(on_host: Extension, name: str, side: int, statistics: tuple[str, ...]) -> None:
    with on_host.device() as device:
        stack = device.stack(noise(1, side, side))
        _native.window_statistics(stack, 50, statistics, _native.as_windows(stack, 50, None))
    (count,) = on_host.counts()
    assert cells(count, side * side) == documented()[name]


def test_check_for_nan(on_host: Extension) -> None:
    """Every value is read once."""
    with on_host.device() as device:
        device.stack(noise(1, 400, 400), check=False).check_finite()
    (count,) = on_host.counts()
    assert cells(count, 400 * 400) == documented()["first_nonfinite"]
    assert count.global_read == 4 * 400 * 400


def test_levels(on_host: Extension) -> None:
    """A slice and both neighbours are read once, in float32, and one byte is written."""
    with on_host.device():
        below, middle, above = (noise(400, 400) for _ in range(3))
        out = torch.empty((400, 400), dtype=torch.uint8)
        first = torch.full((1,), 400 * 400, dtype=torch.int64)
        slices = (below.clone(), middle.clone(), above.clone())
        _native.probability_levels(slices, (0.25, 0.5, 0.25), out, device=DEVICE, first_nonfinite=first)
    (count,) = on_host.counts()
    assert cells(count, 400 * 400) == documented()["levels"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_in_a_ring(on_host: Extension, precision: str) -> None:
    side = 256 - 50 + 1
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ring = ((torch.hypot(y - side / 2, x - side / 2) - 70).abs() < 2.5)[None]
    plan = read_plan(lenet(50, (6, 16), (5, 5), hidden=(120, 84)), 50)
    assert isinstance(plan, Plan)
    with on_host.device() as device:
        stack = device.stack(noise(1, 256, 256))
        windows = _native.as_windows(stack, 50, ring)
        _native.score_windows(stack, 50, plan.program(), windows, precision=precision)
    for kernel, count in zip(SCORE_KERNELS, on_host.counts(), strict=True):
        assert cells(count, int(ring.sum())) == documented()[f"{kernel}, {precision}"]
