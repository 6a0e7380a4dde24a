"""`score_windows` against what a user of PyTorch alone would write. Every benchmark checks its result first.

pytest bench/bench_score_windows.py --benchmark-enable --benchmark-only
python bench/bench_score_windows.py [threads]  # ratios of medians of one run in turns
python bench/bench_score_windows.py --fractions  # plan "auto" against the faster one, by mask fraction
python bench/bench_score_windows.py --calibrate  # constants of the cost model
python bench/bench_score_windows.py --scaling  # 8 times the voxels: (32, 1024, 1024) against (16, 512, 512)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import t3ssfast
from t3ssfast.cli.benchmarks import time_in_turns
from t3ssfast.cli.torch_baselines import BATCH
from t3ssfast.cli.torch_baselines import score_in_batches as torch_batches
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import estimate_cost, read_plan
from t3ssfast.kernels.plan.cost import DENSE_RATE, WINDOWS_RATE
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.runtime.threads import torch_threads

SIZE = 50
SIDE = 512
COUNT = SIDE - SIZE + 1
# FLOP per window, counted by hand for 6-16-120-84-2: on every window, and in a ring of 6% of them.
DENSE_FLOPS = 0.337e6
RING_FLOPS = 0.373e6

Way = Callable[[], torch.Tensor]


def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1296, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2),
    ).eval()  # fmt: skip


def noise_image() -> torch.Tensor:
    return torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def distance_from_circle() -> torch.Tensor:
    """Distance of each window from a circle, along which a membrane might lie."""
    y, x = torch.meshgrid(torch.arange(COUNT), torch.arange(COUNT), indexing="ij")
    return (torch.hypot(y - COUNT / 2, x - COUNT / 2) - 150).abs()


def membrane_ring() -> torch.Tensor:
    """Mask of 6% of the windows, along a circle."""
    return distance_from_circle() < 7


# ---------------------------------------------------------------------------------------- PyTorch alone


@torch.no_grad()
def torch_dilated(model: nn.Sequential, image: torch.Tensor) -> torch.Tensor:
    """Run the network as dilated convolutions over the whole image: (C, H', W')."""
    conv1, conv2, *linear = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    x = torch.relu(conv1(image[None, None]))
    x = F.max_pool2d(x, 2, stride=1)
    x = torch.relu(F.conv2d(x, conv2.weight, conv2.bias, dilation=2))
    x = F.max_pool2d(x, 2, stride=1, dilation=2)
    weight = linear[0].weight.reshape(-1, 16, 9, 9)
    x = torch.relu(F.conv2d(x, weight, linear[0].bias, dilation=4))
    x = torch.relu(F.conv2d(x, linear[1].weight[:, :, None, None], linear[1].bias))
    x = F.conv2d(x, linear[2].weight[:, :, None, None], linear[2].bias)
    return x[0, :, :COUNT, :COUNT]


@torch.no_grad()
def torch_gathered(model: nn.Sequential, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run dilated convolutions, and the linear layers on the windows of a mask only: (M, C)."""
    conv1, conv2, *linear = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    x = F.max_pool2d(torch.relu(conv1(image[None, None])), 2, stride=1)
    x = torch.relu(F.conv2d(x, conv2.weight, conv2.bias, dilation=2))
    maps = F.max_pool2d(x, 2, stride=1, dilation=2)[0].permute(1, 2, 0).contiguous()
    row, pixel, channel = maps.stride()
    patches = maps.as_strided((COUNT, COUNT, 9, 9, 16), (row, pixel, 4 * row, 4 * pixel, channel))
    weight = linear[0].weight.reshape(-1, 16, 9, 9).permute(0, 2, 3, 1).reshape(-1, 1296).contiguous()
    y, x_ = mask.nonzero(as_tuple=True)
    out = []
    for by, bx in zip(y.split(BATCH), x_.split(BATCH), strict=True):
        hidden = torch.relu(F.linear(patches[by, bx].reshape(-1, 1296), weight, linear[0].bias))
        out.append(linear[2](torch.relu(linear[1](hidden))))
    return torch.cat(out)


def check(model: nn.Sequential, image: torch.Tensor, ring: torch.Tensor) -> None:
    """Assert that all ways give equal scores."""
    sparse = torch.zeros_like(ring)
    sparse[::37, ::41] = True
    expected = torch_batches(model, image, sparse)
    everything = score_windows(model, image, plan="dense")
    torch.testing.assert_close(everything[:, sparse].T, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch_dilated(model, image), everything, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch_gathered(model, image, sparse), expected, atol=1e-5, rtol=0)
    masked = score_windows(model, image, mask=ring, plan="dense")
    torch.testing.assert_close(masked, everything[:, ring].T, atol=1e-6, rtol=0)


# ----------------------------------------------------------------------------------------------- pytest


@pytest.mark.benchmark(group="score_windows 6% ring")
@pytest.mark.parametrize("way", ["t3ssfast", "torch gathered", "torch dilated, dense"])
def bench_ring(benchmark, way: str) -> None:
    model, image, ring = lenet(), noise_image(), membrane_ring()
    check(model, image, ring)
    ways: dict[str, Way] = {
        "t3ssfast": lambda: score_windows(model, image, mask=ring),
        "torch gathered": lambda: torch_gathered(model, image, ring),
        "torch dilated, dense": lambda: torch_dilated(model, image),
    }
    benchmark(ways[way])


@pytest.mark.benchmark(group="score_windows every window")
@pytest.mark.parametrize("way", ["t3ssfast", "torch dilated"])
def bench_every_window(benchmark, way: str) -> None:
    model, image = lenet(), noise_image()
    check(model, image, membrane_ring())
    ways: dict[str, Way] = {
        "t3ssfast": lambda: score_windows(model, image),
        "torch dilated": lambda: torch_dilated(model, image),
    }
    benchmark(ways[way])


# ---------------------------------------------------------------------------------------- one run in turns


def medians(ways: dict[str, Way], rounds: int = 5, threads: int = 1) -> dict[str, float]:
    """Median seconds of each way, timed in turns."""
    # On one thread, CPU time depends less on other work on the machine.
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = time_in_turns(*ways.values(), rounds=rounds, clock=clock)
    return dict(zip(ways, map(statistics.median, seconds), strict=True))


def table(threads: int) -> None:
    """Print medians and ratios of one run in turns."""
    torch.set_num_threads(threads)
    model, image, ring = lenet(), noise_image(), membrane_ring()
    check(model, image, ring)
    part = ring.clone()
    part[:, : SIDE // 2] = False  # window by window, the whole ring takes many seconds
    square = torch.randn(1024, 1024)
    every, in_ring = ring.numel(), int(ring.sum())
    ways: dict[str, Way] = {
        "sgemm": lambda: square @ square,
        "ring": lambda: score_windows(model, image, mask=ring),
        "ring, torch gathered": lambda: torch_gathered(model, image, ring),
        "ring, torch batches (part)": lambda: torch_batches(model, image, part),
        "dense": lambda: score_windows(model, image),
        "dense, torch dilated": lambda: torch_dilated(model, image),
    }
    if threads > 1:

        def on_one_thread(way: Way) -> Way:
            def run() -> torch.Tensor:
                with torch_threads(1):
                    return way()

            return run

        ways |= {f"{name}, one thread": on_one_thread(ways[name]) for name in ("ring", "dense")}
    seconds = medians(ways, threads=threads)
    rate = 2 * 1024**3 / seconds["sgemm"]
    batches = seconds["ring, torch batches (part)"] * in_ring / int(part.sum())
    print(f"t3ssfast from {t3ssfast.__path__[0]}, torch {torch.__version__}, {threads} thread(s)")
    print(f"sgemm {rate / 1e9:.0f} GFLOP/s")
    print(f"6% ring, {in_ring} windows: {in_ring / seconds['ring']:,.0f} windows/s")
    print(f"  x torch window by window   {batches / seconds['ring']:6.1f}")
    print(f"  x torch gathered           {seconds['ring, torch gathered'] / seconds['ring']:6.1f}")
    print(f"  x torch dilated dense      {seconds['dense, torch dilated'] / seconds['ring']:6.1f}")
    print(f"  counted FLOPs over sgemm   {RING_FLOPS * in_ring / seconds['ring'] / rate:6.2f}")
    print(f"every window, {every}: {every / seconds['dense']:,.0f} windows/s")
    print(f"  x torch dilated            {seconds['dense, torch dilated'] / seconds['dense']:6.1f}")
    print(f"  counted FLOPs over sgemm   {DENSE_FLOPS * every / seconds['dense'] / rate:6.2f}")
    for name in ("ring", "dense") if threads > 1 else ():
        speedup = seconds[f"{name}, one thread"] / seconds[name]
        print(f"{name}: {threads} threads are {speedup:.2f} times as fast as one")


# --------------------------------------------------------------------------------------- dense and masked

FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
# Minimum number of requested windows per 3 x 3 block: Winograd for all windows, or for none.
WINOGRAD_ALWAYS, WINOGRAD_NEVER = 1, 10


def ring_mask(fraction: float) -> torch.Tensor:
    """Mask of a fraction of the windows, those closest to a circle."""
    mask = torch.zeros(COUNT * COUNT, dtype=torch.bool)
    mask[distance_from_circle().reshape(-1).argsort()[: round(fraction * COUNT * COUNT)]] = True
    return mask.reshape(COUNT, COUNT)


def random_mask(fraction: float) -> torch.Tensor:
    return torch.rand(COUNT, COUNT, generator=torch.Generator().manual_seed(1)) < fraction


def batch_mask() -> torch.Tensor:
    """Mask of one batch of windows."""
    mask = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    mask[200, : 2 * BATCH : 2] = True
    return mask


MASKS: dict[str, Callable[[float], torch.Tensor]] = {"ring": ring_mask, "speckle": random_mask}


class NativeKernel:
    """The native kernel on one image."""

    def __init__(self) -> None:
        self.plan = read_plan(lenet(), SIZE)
        self.stack = _native.as_stack(noise_image())

    def auto(self, mask: torch.Tensor | None, min_windows: int | None = None) -> torch.Tensor:
        """Score the windows of a mask with the plan's own use of Winograd, or another one."""
        windows = _native.as_windows(self.stack, SIZE, mask)
        program = self.plan.program()
        return _native.score_windows(self.stack, SIZE, program, windows, winograd_min_windows=min_windows)

    def dense(self, mask: torch.Tensor) -> torch.Tensor:
        """Score every window, and select those of the mask."""
        return self.auto(None)[:, mask].T

    def masked(self, mask: torch.Tensor) -> torch.Tensor:
        """Score the windows of the mask by direct sums."""
        return self.auto(mask, WINOGRAD_NEVER)


@pytest.mark.benchmark(group="auto against dense and masked")
@pytest.mark.parametrize("fraction", [0.01, 0.35])
@pytest.mark.parametrize("shape", list(MASKS))
@pytest.mark.parametrize("way", ["t3ssfast auto", "dense", "masked"])
def bench_executions(benchmark, way: str, shape: str, fraction: float) -> None:
    kernel, mask = NativeKernel(), MASKS[shape](fraction)
    run = {"t3ssfast auto": kernel.auto, "dense": kernel.dense, "masked": kernel.masked}[way]
    torch.testing.assert_close(run(mask), kernel.masked(mask), atol=1e-6, rtol=0)
    benchmark(run, mask)


def fractions(threads: int) -> None:
    """Print the time of "auto" over that of the faster of dense and masked, and of plan "windows"."""
    torch.set_num_threads(threads)
    kernel, model, image, batch = NativeKernel(), lenet(), noise_image(), batch_mask()
    print("| mask | share | auto (ms) | auto / dense | auto / masked | auto / windows | auto / best |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for shape, make in MASKS.items():
        for fraction in FRACTIONS:
            mask = make(fraction)
            ways: dict[str, Way] = {
                "auto": lambda m=mask: score_windows(model, image, mask=m),
                "native": lambda m=mask: kernel.auto(m),
                "dense": lambda m=mask: kernel.dense(m),
                "masked": lambda m=mask: kernel.masked(m),
                "windows": lambda: score_windows(model, image, mask=batch, plan="windows"),
            }
            expected = kernel.masked(mask)
            for name in ("auto", "native", "dense"):
                torch.testing.assert_close(ways[name](), expected, atol=1e-6, rtol=0)
            seconds = medians(ways, threads=threads)
            native = seconds["native"]
            over_windows = seconds["auto"] / (seconds["windows"] * len(expected) / int(batch.sum()))
            over_best = native / min(seconds["dense"], seconds["masked"])
            worst = max(worst, over_best, over_windows)
            print(
                f"| {shape} | {fraction:.1%} | {native * 1e3:.2f} | {native / seconds['dense']:.2f} | "
                f"{native / seconds['masked']:.2f} | {over_windows:.3f} | {over_best:.2f} |"
            )
    print(f"\nworst: {worst:.2f} times the faster one")


def calibrate() -> None:
    """Print the constants of the cost model for this machine."""
    torch.set_num_threads(1)
    kernel = NativeKernel()
    y, x = torch.meshgrid(torch.arange(COUNT), torch.arange(COUNT), indexing="ij")
    # The windows of a block are 4 apart, so blocks lie in cells of 12 x 12 windows.
    index_in_block = y % 12 // 4 * 3 + x % 12 // 4
    order = torch.tensor([0, 5, 7, 2, 4, 3, 8, 1, 6])  # spread over the block
    ratios = []
    for requested in range(1, 10):
        mask = torch.isin(index_in_block, order[:requested])
        ways: dict[str, Way] = {
            "winograd": lambda m=mask: kernel.auto(m, WINOGRAD_ALWAYS),
            "direct": lambda m=mask: kernel.auto(m, WINOGRAD_NEVER),
        }
        torch.testing.assert_close(ways["winograd"](), ways["direct"](), atol=1e-6, rtol=0)
        seconds = medians(ways)
        ratios.append(seconds["winograd"] / seconds["direct"])
        print(f"{requested} windows requested per block: winograd / direct {ratios[-1]:.2f}")
    slower = sum(ratio > 1 for ratio in ratios)
    break_even = slower + (ratios[slower - 1] - 1) / (ratios[slower - 1] - ratios[slower])
    products = 25 * 3 * 3 / (9 * 9)  # of a block, over those of one window
    print(f"break-even at {break_even:.2f} windows: COST_PER_PRODUCT = {break_even / products:.2f}")
    model, image, batch = lenet(), noise_image(), batch_mask()
    seconds = medians(
        {
            "dense": lambda: kernel.auto(None),
            "windows": lambda: score_windows(model, image, mask=batch, plan="windows"),
        }
    )
    estimated = estimate_cost(kernel.plan)
    dense_rate = DENSE_RATE * estimated.dense_seconds * COUNT * COUNT / seconds["dense"]
    windows_rate = WINDOWS_RATE * estimated.windows_seconds * int(batch.sum()) / seconds["windows"]
    print(f"DENSE_RATE = {dense_rate:.3g}\nWINDOWS_RATE = {windows_rate:.3g}")


def scaling(threads: int) -> None:
    """Print the time for 8 times the voxels, on all windows and in a ring in every slice."""
    torch.set_num_threads(threads)
    model, generator = lenet(), torch.Generator().manual_seed(2)
    stacks = [torch.randn(shape, generator=generator) for shape in ((16, 512, 512), (32, 1024, 1024))]
    masks, padded = [], []
    for stack in stacks:
        y, x = torch.meshgrid(*(torch.arange(n) for n in stack.shape[1:]), indexing="ij")
        radius = torch.hypot(y - stack.shape[1] / 2, x - stack.shape[2] / 2) / stack.shape[1]
        masks.append(((radius - 0.3).abs() < 0.0165).expand(stack.shape))
        padded.append(F.pad(stack[:, None], (25, 24, 25, 24), mode="reflect")[:, 0])
        sparse = torch.zeros_like(masks[-1])
        sparse[-1, ::97, ::89] = True
        scores = score_windows(model, padded[-1], mask=sparse)
        torch.testing.assert_close(
            scores, torch_batches(model, padded[-1][-1], sparse[-1]), atol=1e-5, rtol=0
        )
    for name, which in (("ring", masks), ("every", (None, None))):
        ways: dict[str, Way] = {
            size: lambda p=p, m=m: score_windows(model, p, mask=m)
            for size, p, m in zip(("small", "large"), padded, which, strict=True)
        }
        seconds = medians(ways, 3, threads)
        voxels = stacks[1].numel() / stacks[0].numel()
        print(f"{name}: {seconds['large'] / seconds['small']:.2f} times the time for {voxels:.0f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("threads", nargs="?", type=int, default=1)
    for option in ("fractions", "calibrate", "scaling"):
        parser.add_argument(f"--{option}", action="store_true")
    options = parser.parse_args()
    if options.fractions:
        fractions(options.threads)
    elif options.calibrate:
        calibrate()
    elif options.scaling:
        scaling(options.threads)
    else:
        table(options.threads)


if __name__ == "__main__":
    main()
