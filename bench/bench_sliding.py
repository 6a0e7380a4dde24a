"""score_windows against what a user of PyTorch alone would write. Every benchmark first checks the answer.

pytest bench/bench_sliding.py --benchmark-enable --benchmark-only
python bench/bench_sliding.py [threads]      # one table of ratios, medians of one interleaved run
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

import t3ssfast
from t3ssfast.classify import score_windows

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
    assert torch.equal(score_windows(model, picture, mask=ring, plan="dense"), everything[:, ring].T)


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


# ------------------------------------------------------------------------------------------------ table


def main(threads: int = 1, rounds: int = 5) -> None:
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
    # On one thread, its CPU time: other work on the machine then matters less.
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    rate = 2 * 1024**3 / seconds["sgemm"]
    batches = seconds["ring, torch batches (part)"] * asked / part
    print(f"t3ssfast from {t3ssfast.__path__[0]}, torch {torch.__version__}, {threads} thread(s)")
    print(f"sgemm {rate / 1e9:.0f} GFLOP/s")
    print(f"6% ring, {asked} windows: {asked / seconds['ring']:,.0f} windows/s")
    print(f"  x torch window by window   {batches / seconds['ring']:6.1f}")
    print(f"  x torch gathered           {seconds['ring, torch gathered'] / seconds['ring']:6.1f}")
    print(f"  x torch dilated dense      {seconds['dense, torch dilated'] / seconds['ring']:6.1f}")
    print(f"  share of sgemm             {RING_FLOPS * asked / seconds['ring'] / rate:6.2f}")
    print(f"every window, {every}: {every / seconds['dense']:,.0f} windows/s")
    print(f"  x torch dilated            {seconds['dense, torch dilated'] / seconds['dense']:6.1f}")
    print(f"  share of sgemm             {DENSE_FLOPS * every / seconds['dense'] / rate:6.2f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
