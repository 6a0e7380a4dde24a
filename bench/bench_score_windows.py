"""score_windows against what a user of PyTorch alone would write. Every benchmark first checks the answer.

pytest bench/bench_score_windows.py --benchmark-enable --benchmark-only
python bench/bench_score_windows.py [threads]  # one table of ratios, medians of one interleaved run
python bench/bench_score_windows.py --fractions  # what auto costs over the better execution, by mask fraction
python bench/bench_score_windows.py --calibrate  # the constants of the cost model
python bench/bench_score_windows.py --scaling  # (32, 1024, 1024) against (16, 512, 512): 8 times the voxels
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

import t3ssfast
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, estimate_cost, read_plan
from t3ssfast.kernels.plan.cost import DENSE_RATE, WINDOWS_RATE
from t3ssfast.kernels.score_windows import score_windows

SIZE = 50
SIDE = 512
BATCH = 512
DENSE_FLOPS = 0.337e6  # a window, counted by hand for 6-16-120-84-2; 0.373e6 in a ring of 6%
RING_FLOPS = 0.373e6


def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1296, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2),
    ).eval()  # fmt: skip


def image() -> torch.Tensor:
    return torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def membrane_ring() -> torch.Tensor:
    """6% of the windows, along a circle, as a membrane lies."""
    count = SIDE - SIZE + 1
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    return (torch.hypot(y - count / 2, x - count / 2) - 150).abs() < 7


# --------------------------------------------------------------------------------------- in PyTorch alone


@torch.no_grad()
def torch_batches(model: nn.Module, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Windows gathered in batches, the model run on each batch: (M, C)."""
    windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)
    y, x = mask.nonzero(as_tuple=True)
    batches = zip(y.split(BATCH), x.split(BATCH), strict=True)
    return torch.cat([model(windows[by, bx][:, None]) for by, bx in batches])


@torch.no_grad()
def torch_dilated(model: nn.Sequential, image: torch.Tensor) -> torch.Tensor:
    """The same network as dilated convolutions over the whole image: (C, H', W')."""
    conv1, conv2, *linear = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    x = torch.relu(conv1(image[None, None]))
    x = nn.functional.max_pool2d(x, 2, stride=1)
    x = torch.relu(nn.functional.conv2d(x, conv2.weight, conv2.bias, dilation=2))
    x = nn.functional.max_pool2d(x, 2, stride=1, dilation=2)
    weight = linear[0].weight.reshape(-1, 16, 9, 9)
    x = torch.relu(nn.functional.conv2d(x, weight, linear[0].bias, dilation=4))
    x = torch.relu(nn.functional.conv2d(x, linear[1].weight[:, :, None, None], linear[1].bias))
    x = nn.functional.conv2d(x, linear[2].weight[:, :, None, None], linear[2].bias)
    return x[0, :, : SIDE - SIZE + 1, : SIDE - SIZE + 1]


@torch.no_grad()
def torch_gathered(model: nn.Sequential, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dilated feature maps, the rows of the first linear layer gathered where the mask is: (M, C)."""
    conv1, conv2, *linear = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    x = nn.functional.max_pool2d(torch.relu(conv1(image[None, None])), 2, stride=1)
    x = torch.relu(nn.functional.conv2d(x, conv2.weight, conv2.bias, dilation=2))
    maps = nn.functional.max_pool2d(x, 2, stride=1, dilation=2)[0].permute(1, 2, 0).contiguous()
    row, pixel, channel = maps.stride()
    count = SIDE - SIZE + 1
    patches = maps.as_strided((count, count, 9, 9, 16), (row, pixel, 4 * row, 4 * pixel, channel))
    weight = linear[0].weight.reshape(-1, 16, 9, 9).permute(0, 2, 3, 1).reshape(-1, 1296).contiguous()
    y, x_ = mask.nonzero(as_tuple=True)
    out = []
    for by, bx in zip(y.split(BATCH), x_.split(BATCH), strict=True):
        hidden = torch.relu(nn.functional.linear(patches[by, bx].reshape(-1, 1296), weight, linear[0].bias))
        out.append(linear[2](torch.relu(linear[1](hidden))))
    return torch.cat(out)


def check(model: nn.Sequential, picture: torch.Tensor, ring: torch.Tensor) -> None:
    """All ways agree before any is timed."""
    few = torch.zeros_like(ring)
    few[::37, ::41] = True
    wanted = torch_batches(model, picture, few)
    everything = score_windows(model, picture, plan="dense")
    torch.testing.assert_close(everything[:, few].T, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch_dilated(model, picture), everything, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch_gathered(model, picture, few), wanted, atol=1e-5, rtol=0)
    masked = score_windows(model, picture, mask=ring, plan="dense")
    torch.testing.assert_close(masked, everything[:, ring].T, atol=1e-6, rtol=0)


# ----------------------------------------------------------------------------------------------- pytest


@pytest.mark.benchmark(group="score_windows 6% ring")
@pytest.mark.parametrize("way", ["t3ssfast", "torch gathered", "torch dilated, dense"])
def bench_ring(benchmark, way: str) -> None:
    model, picture, ring = lenet(), image(), membrane_ring()
    check(model, picture, ring)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "t3ssfast": lambda: score_windows(model, picture, mask=ring),
        "torch gathered": lambda: torch_gathered(model, picture, ring),
        "torch dilated, dense": lambda: torch_dilated(model, picture),
    }
    benchmark(ways[way])


@pytest.mark.benchmark(group="score_windows every window")
@pytest.mark.parametrize("way", ["t3ssfast", "torch dilated"])
def bench_every_window(benchmark, way: str) -> None:
    model, picture = lenet(), image()
    check(model, picture, membrane_ring())
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "t3ssfast": lambda: score_windows(model, picture),
        "torch dilated": lambda: torch_dilated(model, picture),
    }
    benchmark(ways[way])


# --------------------------------------------------------------------------------------------- in one run

# CPU time on one thread: other work on the machine then matters less.
Clock = Callable[[], float]


def medians(ways: dict[str, Callable[[], object]], rounds: int, threads: int = 1) -> dict[str, float]:
    """Seconds of each way, in turns."""
    clock: Clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(threads: int, rounds: int = 5) -> None:
    """Prints medians of one interleaved run and the ratios that matter."""
    torch.set_num_threads(threads)
    model, picture, ring = lenet(), image(), membrane_ring()
    check(model, picture, ring)
    some = ring.clone()
    some[:, : SIDE // 2] = False  # window by window takes seconds: a part stands for the whole
    square = torch.randn(1024, 1024)
    every, asked, part = ring.numel(), int(ring.sum()), int(some.sum())
    ways: dict[str, Callable[[], object]] = {
        "sgemm": lambda: square @ square,
        "ring": lambda: score_windows(model, picture, mask=ring),
        "ring, torch gathered": lambda: torch_gathered(model, picture, ring),
        "ring, torch batches (part)": lambda: torch_batches(model, picture, some),
        "dense": lambda: score_windows(model, picture),
        "dense, torch dilated": lambda: torch_dilated(model, picture),
    }
    if threads > 1:

        def on_one(way: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                torch.set_num_threads(1)
                way()
                torch.set_num_threads(threads)

            return run

        ways |= {f"{name}, one thread": on_one(ways[name]) for name in ("ring", "dense")}
    seconds = medians(ways, rounds, threads)
    rate = 2 * 1024**3 / seconds["sgemm"]
    batches = seconds["ring, torch batches (part)"] * asked / part
    print(f"t3ssfast from {t3ssfast.__path__[0]}, torch {torch.__version__}, {threads} thread(s)")
    print(f"sgemm {rate / 1e9:.0f} GFLOP/s")
    print(f"6% ring, {asked} windows: {asked / seconds['ring']:,.0f} windows/s")
    print(f"  x torch window by window   {batches / seconds['ring']:6.1f}")
    print(f"  x torch gathered           {seconds['ring, torch gathered'] / seconds['ring']:6.1f}")
    print(f"  x torch dilated dense      {seconds['dense, torch dilated'] / seconds['ring']:6.1f}")
    print(f"  counted FLOPs over sgemm   {RING_FLOPS * asked / seconds['ring'] / rate:6.2f}")
    print(f"every window, {every}: {every / seconds['dense']:,.0f} windows/s")
    print(f"  x torch dilated            {seconds['dense, torch dilated'] / seconds['dense']:6.1f}")
    print(f"  counted FLOPs over sgemm   {DENSE_FLOPS * every / seconds['dense'] / rate:6.2f}")
    for name in ("ring", "dense") if threads > 1 else ():
        gain = seconds[f"{name}, one thread"] / seconds[name]
        print(f"{threads} threads, {name}: {gain:.2f} times one")


# --------------------------------------------------------------------------------------- dense and masked

FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
TOGETHER, ALONE = 1, 10  # least_of_nine: every window in nines, every window by itself


def closest_to_a_circle(fraction: float) -> torch.Tensor:
    """So many of the windows as lie nearest to a circle: a ring, the wider the more."""
    count = SIDE - SIZE + 1
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    distance = (torch.hypot(y - count / 2, x - count / 2) - 150).abs().reshape(-1)
    mask = torch.zeros(count * count, dtype=torch.bool)
    mask[distance.argsort()[: round(fraction * count * count)]] = True
    return mask.reshape(count, count)


def speckle(fraction: float) -> torch.Tensor:
    """Windows at random."""
    count = SIDE - SIZE + 1
    return torch.rand(count, count, generator=torch.Generator().manual_seed(1)) < fraction


MASKS: dict[str, Callable[[float], torch.Tensor]] = {"ring": closest_to_a_circle, "speckle": speckle}


class Executions:
    """The native kernel on one image, by whichever execution."""

    def __init__(self) -> None:
        plan = read_plan(lenet(), SIZE)
        assert isinstance(plan, Plan), plan
        self.plan = plan
        self.stack = _native.as_stack(image())

    def run(self, mask: torch.Tensor | None, least_of_nine: int | None = None) -> torch.Tensor:
        windows = _native.as_windows(self.stack, SIZE, mask)
        return _native.score_windows(
            self.stack, SIZE, self.plan.program(), windows, least_of_nine=least_of_nine
        )

    def dense(self, mask: torch.Tensor) -> torch.Tensor:
        """Every window, then those asked for."""
        return self.run(None)[:, mask].T

    def masked(self, mask: torch.Tensor) -> torch.Tensor:
        """The windows asked for, each by itself."""
        return self.run(mask, ALONE)


@pytest.mark.benchmark(group="auto against dense and masked")
@pytest.mark.parametrize("fraction", [0.01, 0.35])
@pytest.mark.parametrize("shape", list(MASKS))
@pytest.mark.parametrize("way", ["t3ssfast auto", "dense", "masked"])
def bench_executions(benchmark, way: str, shape: str, fraction: float) -> None:
    executions, mask = Executions(), MASKS[shape](fraction)
    ways = {"t3ssfast auto": executions.run, "dense": executions.dense, "masked": executions.masked}
    torch.testing.assert_close(ways[way](mask), executions.masked(mask), atol=1e-6, rtol=0)
    benchmark(lambda: ways[way](mask))


def fractions(threads: int, rounds: int = 5) -> None:
    """Prints what auto costs over the better of dense and masked, and of the plan that it did not choose."""
    torch.set_num_threads(threads)
    executions, model, picture = Executions(), lenet(), image()
    batch = torch.zeros_like(membrane_ring())
    batch[200, : 2 * BATCH : 2] = True
    print("| mask | share | auto (ms) | auto / dense | auto / masked | auto / windows | auto / best |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for shape, make in MASKS.items():
        for fraction in FRACTIONS:
            mask = make(fraction)
            ways: dict[str, Callable[[], object]] = {
                "auto": lambda m=mask: score_windows(model, picture, mask=m),
                "native": lambda m=mask: executions.run(m),
                "dense": lambda m=mask: executions.dense(m),
                "masked": lambda m=mask: executions.masked(m),
                "windows": lambda: score_windows(model, picture, mask=batch, plan="windows"),
            }
            wanted = executions.masked(mask)
            for name in ("auto", "native", "dense"):
                torch.testing.assert_close(ways[name](), wanted, atol=1e-6, rtol=0)
            seconds = medians(ways, rounds, threads)
            auto = seconds["native"]
            windows = seconds["auto"] / (seconds["windows"] * len(wanted) / int(batch.sum()))
            over = auto / min(seconds["dense"], seconds["masked"])
            worst = max(worst, over, windows)
            print(
                f"| {shape} | {fraction:.1%} | {auto * 1e3:.2f} | {auto / seconds['dense']:.2f} | "
                f"{auto / seconds['masked']:.2f} | {windows:.3f} | {over:.2f} |"
            )
    print(f"\nworst: {worst:.2f} times the better one")


def calibrate(rounds: int = 5) -> None:
    """Prints the constants of the cost model, as this machine has them."""
    torch.set_num_threads(1)
    executions = Executions()
    count = SIDE - SIZE + 1
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    place = y % 12 // 4 * 3 + x % 12 // 4  # of a window among its nine: nines are 4 apart, in cells of 12
    scattered = torch.tensor([0, 5, 7, 2, 4, 3, 8, 1, 6])  # in this order
    ratios = []
    for asked in range(1, 10):
        mask = torch.isin(place, scattered[:asked])
        torch.testing.assert_close(
            executions.run(mask, TOGETHER), executions.run(mask, ALONE), atol=1e-6, rtol=0
        )
        ways: dict[str, Callable[[], object]] = {
            "together": lambda m=mask: executions.run(m, TOGETHER),
            "alone": lambda m=mask: executions.run(m, ALONE),
        }
        seconds = medians(ways, rounds)
        ratios.append(seconds["together"] / seconds["alone"])
        print(f"{asked} of every nine asked for: together / alone {ratios[-1]:.2f}")
    dear = sum(ratio > 1 for ratio in ratios)  # so many of nine are cheaper alone, and one more is not
    break_even = dear + (ratios[dear - 1] - 1) / (ratios[dear - 1] - ratios[dear])
    products = 25 * 3 * 3 / (9 * 9)  # that nine take together, over those of one window
    print(f"break-even at {break_even:.2f} of nine: NINE_COST = {break_even / products:.2f}")
    model, picture = lenet(), image()
    batch = torch.zeros(count, count, dtype=torch.bool)
    batch[200, : 2 * BATCH : 2] = True
    seconds = medians(
        {
            "dense": lambda: executions.run(None),
            "windows": lambda: score_windows(model, picture, mask=batch, plan="windows"),
        },
        rounds,
    )
    estimated = estimate_cost(executions.plan)
    as_estimated = estimated.dense_seconds * count * count / seconds["dense"]
    print(f"DENSE_RATE = {DENSE_RATE * as_estimated:.3g}")
    as_estimated = estimated.windows_seconds * int(batch.sum()) / seconds["windows"]
    print(f"WINDOWS_RATE = {WINDOWS_RATE * as_estimated:.3g}")


def scaling(threads: int, rounds: int = 3) -> None:
    """Prints what 8 times the voxels cost, all windows and a ring in every slice."""
    torch.set_num_threads(threads)
    model, generator = lenet(), torch.Generator().manual_seed(2)
    small, large = (
        torch.randn(16, 512, 512, generator=generator),
        torch.randn(32, 1024, 1024, generator=generator),
    )
    masks = []
    for stack in (small, large):
        y, x = torch.meshgrid(*(torch.arange(n) for n in stack.shape[1:]), indexing="ij")
        away = (torch.hypot(y - stack.shape[1] / 2, x - stack.shape[2] / 2) / stack.shape[1] - 0.3).abs()
        masks.append((away < 0.0165).expand(stack.shape))  # a ring twice as wide in twice the slice
    padded = [nn.functional.pad(s[:, None], (25, 24, 25, 24), mode="reflect")[:, 0] for s in (small, large)]
    for stack, mask in zip(padded, masks, strict=True):
        few = torch.zeros_like(mask)
        few[-1, ::97, ::89] = True
        torch.testing.assert_close(
            score_windows(model, stack, mask=few), torch_batches(model, stack[-1], few[-1]), atol=1e-5, rtol=0
        )
    seconds = medians(
        {
            f"{what} {n}": (lambda n=n, m=m: score_windows(model, padded[n], mask=m))
            for what, which in (("ring", masks), ("every", (None, None)))
            for n, m in enumerate(which)
        },
        rounds,
        threads,
    )
    voxels = large.numel() / small.numel()
    for what in ("ring", "every"):
        print(
            f"{what}: {seconds[f'{what} 1'] / seconds[f'{what} 0']:.2f} times the time for {voxels:.0f} times"
        )


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
