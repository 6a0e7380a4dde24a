"""The kernels on a CUDA device at the size of a tomogram, against hardware limits and PyTorch.

python bench/bench_device.py [OUTPUT_FOLDER] [--parts masked,dense,...] [--depth SLICES]

Run by bench/device.sh. Every result is compared with the CPU kernels, or with the model on single windows,
before it is timed. Times are medians measured with CUDA events. The table is printed, and written to
OUTPUT_FOLDER/table.md after each part, so that an interrupted run keeps its results. Exits with 1 if a part
failed, and with 2 if there is no device.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import t3ssfast as t3
from bench_score_windows import (
    DENSE_FLOPS,
    lenet,
    membrane_ring,
    torch_batches,
    torch_dilated,
    torch_gathered,
)
from device_table import Device, Row, measure_device, milliseconds, table
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, read_plan
from t3ssfast.runtime.upload import Uploader

SIZE, SIDE, DEPTH = 50, 1024, 256
SIX = ("mean", "std", "skewness", "kurtosis", "min", "max")
# Bytes per pixel: read once, written six times.
SIX_BYTES = 28
# Maximum error of a score of the published network, whose scores are below 1.
TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 5e-2}
MASKED_GOAL_MS = {"float32": 60.0, "bfloat16": 20.0}
DENSE_GOAL, DETECT_GOAL_MS = 0.5, 1500.0


def random_volume(depth: int) -> torch.Tensor:
    return torch.randn(depth, SIDE, SIDE, device="cuda", generator=torch.Generator("cuda").manual_seed(0))


def membrane_mask(depth: int) -> torch.Tensor:
    """Return a mask of 5% of the windows of each slice, along a moving circle like a membrane."""
    count = SIDE - SIZE + 1
    z, y, x = torch.meshgrid(*(torch.arange(n, device="cuda") for n in (depth, count, count)), indexing="ij")
    return (torch.hypot(y - count / 2 - 40 * torch.sin(z / 9), x - count / 2) - 300).abs() < 12.6


# ---------------------------------------------------------------------------------------------------- parts


def six_by_pooling(stack: torch.Tensor, size: int) -> torch.Tensor:
    """Compute the six statistics with average and maximum pooling, moments in float64: (6, N, H', W')."""
    x = stack[:, None].double()
    m1, m2, m3, m4 = (nn.functional.avg_pool2d(x**k, size, stride=1)[:, 0] for k in range(1, 5))
    variance = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    low, high = -nn.functional.max_pool2d(-stack, size, 1), nn.functional.max_pool2d(stack, size, 1)
    moments = (m1, variance.sqrt(), third / variance**1.5, fourth / variance**2 - 3)
    return torch.stack([*(m.float() for m in moments), low, high])


def part_statistics(device: Device, depth: int) -> Iterator[Row]:
    few = random_volume(min(depth, 4))
    want = t3.window_statistics(few[:1].cpu(), SIZE, SIX)
    for result in (t3.window_statistics(few, SIZE, SIX), six_by_pooling(few, SIZE)):
        torch.testing.assert_close(result[:, :1].cpu(), want, rtol=1e-3, atol=1e-3)
    work = f"six statistics, {len(few)} x {SIDE} x {SIDE}"
    yield Row(work, "t3ssfast", milliseconds(lambda: t3.window_statistics(few, SIZE, SIX)))
    yield Row(work, "torch pooling", milliseconds(lambda: six_by_pooling(few, SIZE)))
    whole = random_volume(depth)
    taken = milliseconds(lambda: t3.window_statistics(whole, SIZE, SIX))
    share = SIX_BYTES * whole.numel() / device.copied_bytes * 1e3 / taken
    work = f"six statistics, {depth} x {SIDE} x {SIDE}"
    yield Row(work, "t3ssfast", taken, f"{share:.0%} of the copy rate at {SIX_BYTES} bytes a pixel")


def part_median(device: Device, depth: int) -> Iterator[Row]:
    image = random_volume(1)[0, :256, :256].contiguous()

    def torch_median() -> torch.Tensor:
        windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)
        middle = SIZE * SIZE // 2
        rows = [row.reshape(len(row), -1).sort(dim=1).values for row in windows]
        return torch.stack([(row[:, middle - 1] + row[:, middle]) / 2 for row in rows])[None]

    want = t3.window_statistics(image.cpu(), SIZE, ("median",))
    assert torch.equal(t3.window_statistics(image, SIZE, ("median",)).cpu(), want)
    torch.testing.assert_close(torch_median().cpu(), want, rtol=0, atol=1e-6)
    yield Row(
        "median, 256 x 256", "t3ssfast", milliseconds(lambda: t3.window_statistics(image, SIZE, ("median",)))
    )
    yield Row("median, 256 x 256", "torch sort", milliseconds(torch_median))
    whole = random_volume(depth)
    taken = milliseconds(lambda: t3.window_statistics(whole, SIZE, ("median",)), 3)
    yield Row(
        f"median, {depth} x {SIDE} x {SIDE}", "t3ssfast", taken, f"{whole.numel() / taken / 1e3:.0f} Mpx/s"
    )


def part_unfold(device: Device, depth: int) -> Iterator[Row]:
    image = random_volume(1)[0, :512, :512].contiguous()

    def torch_unfold() -> torch.Tensor:
        return image.unfold(0, SIZE, 1).unfold(1, SIZE, 1).reshape(-1, SIZE, SIZE)

    want = torch_unfold()
    assert torch.equal(t3.unfold(image, SIZE), want)
    written = want.numel() * 4
    del want
    for who, work in (("t3ssfast", lambda: t3.unfold(image, SIZE)), ("torch", torch_unfold)):
        taken = milliseconds(work)
        share = written / taken * 1e3 / (device.copied_bytes / 2)
        yield Row(
            "unfold, every window of 512 x 512", who, taken, f"{share:.0%} of the rate at which a copy writes"
        )


def check_scores(scores: torch.Tensor, image: torch.Tensor, index: torch.Tensor, precision: str) -> None:
    """Compare some scores (M, C) of windows with flat indices (M,) with the model on single windows."""
    some = torch.randint(len(index), (2048,), generator=torch.Generator().manual_seed(1)).to(index.device)
    count = SIDE - SIZE + 1
    z, y, x = index[some] // count**2, index[some] // count % count, index[some] % count
    around = torch.arange(SIZE, device=image.device)
    pixels = ((z[:, None] * SIDE + y[:, None] + around)[:, :, None] * SIDE) + (x[:, None] + around)[:, None]
    with torch.no_grad():
        want = lenet()(image.reshape(-1)[pixels][:, None].cpu())
    error = (scores[some].cpu() - want).abs().max().item()
    assert error <= TOLERANCE[precision], f"{precision} has an error of {error:.2g}"


def score(model: nn.Module, image: torch.Tensor, mask: torch.Tensor | None, precision: str) -> torch.Tensor:
    answer: torch.Tensor = t3.score_windows(model, image, mask=mask, plan="dense", precision=precision)
    return answer


def part_masked(device: Device, depth: int) -> Iterator[Row]:
    model, image, mask = lenet().cuda(), random_volume(depth), membrane_mask(depth)
    index = mask.reshape(-1).nonzero().reshape(-1)
    work = f"score_windows, {depth} x {SIDE} x {SIDE}, {len(index) / mask.numel():.1%} of the windows"
    for precision in TOLERANCE:
        check_scores(score(model, image, mask, precision), image, index, precision)
        taken = milliseconds(lambda p=precision: score(model, image, mask, p), 2)  # type: ignore[misc]
        goal = MASKED_GOAL_MS.get(precision)
        met = None if goal is None or depth != DEPTH else taken <= goal
        wanted = "" if goal is None else f", goal {goal:.0f} ms at {DEPTH} slices"
        yield Row(
            work, f"t3ssfast {precision}", taken, f"{len(index) / taken / 1e3:.0f} M windows/s{wanted}", met
        )
    yield from kernel_options(work, model, image, mask)

    # PyTorch on one slice of the size in bench_score_windows.py.
    slice_, ring = image[0, :512, :512].contiguous(), membrane_ring().cuda()
    want = torch_batches(lenet(), slice_.cpu(), ring.cpu())
    implementations: dict[str, Callable[[], torch.Tensor]] = {
        **{f"t3ssfast {p}": lambda p=p: score(model, slice_, ring, p) for p in TOLERANCE},  # type: ignore[misc]
        "torch gathered": lambda: torch_gathered(model, slice_, ring),
        "torch windows": lambda: torch_batches(model, slice_, ring),
    }
    for who, run in implementations.items():
        error = (run().cpu() - want).abs().max().item()
        # By default PyTorch may use TF32 for convolutions.
        assert error <= TOLERANCE.get(who.split()[-1], TOLERANCE["tf32"]), (
            f"{who} has an error of {error:.2g}"
        )
        yield Row("score_windows, a ring of 6% in 512 x 512", who, milliseconds(run))


def kernel_options(work: str, model: nn.Module, image: torch.Tensor, mask: torch.Tensor) -> Iterator[Row]:
    """Time the kernel with other options than its defaults."""
    plan = read_plan(model, SIZE)
    assert isinstance(plan, Plan), plan
    stack = _native.as_stack(image)
    windows, program = _native.as_windows(stack, SIZE, mask), plan.program()
    # Blocks of 256 lanes keep three pipeline slots of 48 KiB.
    large_shared_memory = torch.cuda.get_device_properties(0).shared_memory_per_block_optin >= 160 << 10
    for name, chosen in {
        "float32, SIMT": {"schedule": "simt"},
        "float32, 256 lanes per block": {"block_lanes": 256},
        "float32, 128 lanes per block": {"block_lanes": 128},
        "tf32, 256 lanes per block": {"precision": "tf32", "block_lanes": 256},
        "bfloat16, 256 lanes per block": {"precision": "bfloat16", "block_lanes": 256},
        "bfloat16, 128 lanes per block": {"precision": "bfloat16", "block_lanes": 128},
    }.items():
        options: dict[str, Any] = chosen
        if chosen.get("block_lanes") == 256 and not large_shared_memory:
            continue
        taken = milliseconds(lambda o=options: _native.score_windows(stack, SIZE, program, windows, **o))  # type: ignore[misc]
        yield Row(work, f"t3ssfast kernels alone, {name}", taken)


def part_dense(device: Device, depth: int) -> Iterator[Row]:
    depth = min(depth, 16)
    model, image = lenet().cuda(), random_volume(depth)
    count = depth * (SIDE - SIZE + 1) ** 2
    index = torch.arange(count, device="cuda")
    for precision in TOLERANCE:
        scores = score(model, image, None, precision)
        check_scores(scores.reshape(scores.shape[0], -1).T, image, index, precision)
        taken = milliseconds(lambda p=precision: score(model, image, None, p), 2)  # type: ignore[misc]
        peak = "bfloat16" if precision == "bfloat16" else "tf32"
        share = DENSE_FLOPS * count / taken * 1e3 / device.flops[peak]
        met = share >= DENSE_GOAL if precision == "tf32" else None
        wanted = f", goal {DENSE_GOAL:.0%}" if precision == "tf32" else ""
        figure = f"{share:.0%} of the {peak} rate of a matrix product{wanted}"
        yield Row(
            f"score_windows, every window of {depth} x {SIDE} x {SIDE}",
            f"t3ssfast {precision}",
            taken,
            figure,
            met,
        )
    slice_ = image[0, :512, :512].contiguous()
    torch.testing.assert_close(
        torch_dilated(model, slice_), score(model, slice_, None, "float32"), rtol=0, atol=5e-3
    )
    work = "score_windows, every window of 512 x 512"
    for precision in TOLERANCE:
        taken = milliseconds(lambda p=precision: score(model, slice_, None, p))  # type: ignore[misc]
        yield Row(work, f"t3ssfast {precision}", taken)
    yield Row(work, "torch dilated", milliseconds(lambda: torch_dilated(model, slice_)))


def part_upload(device: Device, depth: int) -> Iterator[Row]:
    """Slabs uploaded as stored and prepared on the device, against slabs prepared on the CPU."""
    depth = min(depth, 64)
    noise = np.random.default_rng(0).normal(60, 15, (depth, SIDE, SIDE)).astype(np.float32)
    for dtype in ("int8", "int16", "float16", "float32"):
        grid = PreparedTomogram.prepare(t3.Tomogram(noise.astype(dtype), 13.6))
        uploader = Uploader(torch.device("cuda"))
        few = grid.slab_on_device(0, 2, uploader).cpu().numpy()
        np.testing.assert_allclose(few, grid.slab(0, 2), atol=1e-4)

        def upload(uploader: Uploader = uploader, data: np.ndarray = grid.tomogram.data) -> None:
            with uploader.stream():
                uploader.finish(uploader.upload(data, 0, depth))

        stored = depth * SIDE**2 * grid.tomogram.data.dtype.itemsize
        taken = milliseconds(upload)
        work = f"a slab of {depth} x {SIDE} x {SIDE} {dtype}"
        yield Row(f"{work}, upload only", "t3ssfast", taken, f"{stored / taken / 1e6:.1f} GB/s")
        yield Row(work, "t3ssfast", milliseconds(lambda g=grid, u=uploader: g.slab_on_device(0, depth, u)))  # type: ignore[misc]
        yield Row(
            work,
            "prepared on the CPU",
            milliseconds(lambda g=grid: torch.from_numpy(g.slab(0, depth)).cuda()),
        )  # type: ignore[misc]


def part_detect(device: Device, depth: int) -> Iterator[Row]:
    """Detection in a tiled simulated tomogram, from a file in the page cache."""
    small = t3.simulate(seed=0, shape=(64, 256, 256)).tomogram
    tiled = np.tile(np.asarray(small.data), (-(-depth // 64), SIDE // 256, SIDE // 256))[:depth]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tomogram.mrc"
        t3.write(path, tiled, small.voxel_size_angstrom)
        found = t3.detect(path, device="cuda", progress=False)
        assert len(found.candidates) > 0, "no candidates were found"
        times, stages = [], {}
        for _ in range(3):
            begin = time.perf_counter()
            stages = t3.detect(path, device="cuda", progress=False).provenance["seconds"]
            times.append((time.perf_counter() - begin) * 1e3)
    taken = statistics.median(times)
    met = taken <= DETECT_GOAL_MS if depth == DEPTH else None
    longest = sorted(stages.items(), key=lambda item: -item[1])[:5]
    figure = (
        f"{len(found.candidates)} candidates, goal {DETECT_GOAL_MS:.0f} ms at {DEPTH} slices; "
        + ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in longest)
    )
    yield Row(
        f"detect(), {depth} x {SIDE} x {SIDE} float32 from the page cache", "t3ssfast", taken, figure, met
    )


PARTS = {
    "masked": part_masked,
    "dense": part_dense,
    "statistics": part_statistics,
    "median": part_median,
    "unfold": part_unfold,
    "upload": part_upload,
    "detect": part_detect,
}


# ---------------------------------------------------------------------------------------------------- table


def kernel_times(depth: int) -> list[str]:
    """Profile the kernels of a masked run."""
    from torch.profiler import ProfilerActivity, profile

    model, image, mask = lenet().cuda(), random_volume(depth), membrane_mask(depth)
    lines = []
    for precision in TOLERANCE:
        score(model, image, mask, precision)
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            score(model, image, mask, precision)
            torch.cuda.synchronize()
        events = sorted(record.key_averages(), key=lambda e: -e.self_device_time_total)[:8]
        lines += [
            f"| {precision} | `{e.key[:90]}` | {e.count} | {e.self_device_time_total / 1e3:.2f} |"
            for e in events
        ]
    return ["", "| masked run | kernel | launches | ms |", "|---|---|---:|---:|", *lines]


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the CUDA kernels against hardware limits and PyTorch.")
    parser.add_argument("output", nargs="?", type=Path, default=Path("bench-device"))
    parser.add_argument("--parts", default=",".join(PARTS), help="Comma-separated names: " + ", ".join(PARTS))
    parser.add_argument(
        "--depth", type=int, default=DEPTH, help="Slices of the volume; reduced to fit the device memory."
    )
    given = parser.parse_args()
    unknown = sorted(set(given.parts.split(",")) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; give some of {', '.join(PARTS)}")
    info = t3.build_info()
    if not torch.cuda.is_available() or not info["cuda_devices"]:
        why = info["cuda_problem"] or "this PyTorch has no CUDA"
        print(f"No usable CUDA device ({why}); run this on a machine that has one.", file=sys.stderr)
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    free, _ = torch.cuda.mem_get_info()
    # Statistics and checks of a slice need about twelve times its own memory.
    depth = max(1, min(given.depth, free // (12 * 4 * SIDE * SIDE)))
    device = measure_device()
    rows: list[Row] = []
    notes: list[str] = []
    failed = False
    for name in given.parts.split(","):
        begin = time.monotonic()
        try:
            rows.extend(PARTS[name](device, depth))
        except Exception as problem:  # a failed part must not stop the others
            failed = True
            traceback.print_exc()
            notes.append(
                f"\nPart {name} FAILED: {type(problem).__name__}: {str(problem).splitlines()[0][:300]}"
            )
        torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        (given.output / "table.md").write_text(table(device, rows, notes))
    try:
        notes += kernel_times(min(depth, 32))
    except Exception as problem:
        notes.append(f"\nProfiling failed: {type(problem).__name__}: {str(problem)[:200]}")
    text = table(device, rows, notes)
    (given.output / "table.md").write_text(text)
    print(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
