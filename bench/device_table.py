"""Measurements of a CUDA device, and the table of bench_device.py."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """A row of the table: task, implementation, time, derived figures, and whether the goal is met."""

    work: str
    who: str
    milliseconds: float
    figure: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Device:
    """Limits of this device, measured in this run."""

    name: str
    copied_bytes: float  # per second, read and written
    flops: dict[str, float]  # per second, of a large matrix product


def milliseconds(work: Callable[[], Any], seconds: float = 1.0) -> float:
    """Return the median time of at least three runs within `seconds`, after a warm-up run."""
    work()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 3 or (time.monotonic() < end and len(times) < 50):
        begin, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(begin.elapsed_time(stop))
    return statistics.median(times)


def measure_device() -> Device:
    """Measure the copy rate and the matrix product rates on random numbers."""
    pair = torch.randn(2, 1 << 28, device="cuda")
    copied = 4 * pair.numel() / milliseconds(lambda: pair[0].copy_(pair[1])) * 1e3
    edge, flops = 8192, {}
    for name, dtype in (("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        matrix = torch.randn(edge, edge, device="cuda", dtype=dtype)
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        flops[name] = 2 * edge**3 / milliseconds(lambda m=matrix: m @ m) * 1e3  # type: ignore[misc]
        torch.backends.cuda.matmul.fp32_precision = before
    return Device(torch.cuda.get_device_name(), copied, flops)


def table(device: Device, rows: list[Row], notes: list[str]) -> str:
    """Return the table as Markdown; other implementations relative to ours in float32 for the same work."""
    ours = {row.work: row.milliseconds for row in rows if row.who in ("t3ssfast", "t3ssfast float32")}
    lines = [
        f"## {datetime.date.today().isoformat()}, {device.name}, torch {torch.__version__}",
        "",
        (
            f"Measured in this run: copy {device.copied_bytes / 1e9:.0f} GB/s read and written; matrix "
            f"products {device.flops['tf32'] / 1e12:.0f} TFLOP/s TF32, "
            f"{device.flops['bfloat16'] / 1e12:.0f} bfloat16."
        ),
        "",
        "| work | who | median (ms) | peer / ours | figure | goal met |",
        "|---|---|---:|---:|---|---|",
    ]
    for row in rows:
        peer = (
            ""
            if row.who.startswith("t3ssfast") or row.work not in ours
            else f"{row.milliseconds / ours[row.work]:.1f}"
        )
        met = {None: "", True: "yes", False: "no"}[row.met]
        lines.append(f"| {row.work} | {row.who} | {row.milliseconds:.3g} | {peer} | {row.figure} | {met} |")
    return "\n".join([*lines, *notes, ""])
