"""The three kernels on a CUDA device, against the same work written with PyTorch there.

Run by bench/device.sh. Every answer is first compared with the CPU kernels' on the same input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import t3ssfast as t3
from bench_sliding import lenet, membrane_ring, torch_batches, torch_dilated

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIX = ("mean", "std", "skewness", "kurtosis", "min", "max")
SIZE = 50


@pytest.fixture(scope="module")
def stack() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(16, 1024, 1024)).astype(np.float32)).cuda()


@pytest.fixture(scope="module")
def model() -> torch.nn.Sequential:
    return lenet().cuda()


def six_by_pooling(stack: torch.Tensor, size: int) -> torch.Tensor:
    """The six statistics by average and maximum pooling, moments in float64: (6, N, H', W')."""
    x = stack[:, None].double()
    m1, m2, m3, m4 = (torch.nn.functional.avg_pool2d(x**k, size, stride=1)[:, 0] for k in range(1, 5))
    variance = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    low, high = (
        -torch.nn.functional.max_pool2d(-stack, size, stride=1),
        torch.nn.functional.max_pool2d(stack, size, 1),
    )
    moments = (m1, variance.sqrt(), third / variance**1.5, fourth / variance**2 - 3)
    return torch.stack([*(m.float() for m in moments), low, high])


def timed(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, waited for: a launch alone is no measure."""

    def run() -> Any:
        answer = work()
        torch.cuda.synchronize()
        return answer

    return run


@pytest.mark.benchmark(group="unfold, every window of 512 x 512")
@pytest.mark.parametrize("who", ["t3ssfast", "torch"])
def bench_unfold(benchmark: Any, stack: torch.Tensor, who: str) -> None:
    image = stack[0, :512, :512].contiguous()

    def torch_unfold() -> torch.Tensor:
        return image.unfold(0, SIZE, 1).unfold(1, SIZE, 1).reshape(-1, SIZE, SIZE)

    work = timed({"t3ssfast": lambda: t3.unfold(image, SIZE), "torch": torch_unfold}[who])
    assert torch.equal(work(), torch_unfold())
    benchmark(work)


@pytest.mark.benchmark(group="six statistics, 16 x 1024 x 1024")
@pytest.mark.parametrize("who", ["t3ssfast", "torch pooling"])
def bench_six_statistics(benchmark: Any, stack: torch.Tensor, who: str) -> None:
    work = timed(
        {
            "t3ssfast": lambda: t3.window_statistics(stack, SIZE, SIX),
            "torch pooling": lambda: six_by_pooling(stack, SIZE),
        }[who]
    )
    expected = t3.window_statistics(stack[:1].cpu(), SIZE, SIX)
    torch.testing.assert_close(work()[:, :1].cpu(), expected, rtol=1e-3, atol=1e-3)
    benchmark(work)


@pytest.mark.benchmark(group="median, 256 x 256")
@pytest.mark.parametrize("who", ["t3ssfast", "torch sort"])
def bench_median(benchmark: Any, stack: torch.Tensor, who: str) -> None:
    image = stack[0, :256, :256].contiguous()

    def torch_median() -> torch.Tensor:
        windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)
        rows = [row.reshape(len(row), -1).sort(dim=1).values for row in windows]
        middle = SIZE * SIZE // 2
        return torch.stack([(row[:, middle - 1] + row[:, middle]) / 2 for row in rows])[None]

    work = timed(
        {"t3ssfast": lambda: t3.window_statistics(image, SIZE, ("median",)), "torch sort": torch_median}[who]
    )
    assert torch.equal(work().cpu(), t3.window_statistics(image.cpu(), SIZE, ("median",)))
    benchmark(work)


@pytest.mark.benchmark(group="median of t3ssfast, 16 x 1024 x 1024")
def bench_median_stack(benchmark: Any, stack: torch.Tensor) -> None:
    work = timed(lambda: t3.window_statistics(stack, SIZE, ("median",)))
    assert torch.equal(work()[:, :1].cpu(), t3.window_statistics(stack[:1].cpu(), SIZE, ("median",)))
    benchmark(work)


@pytest.mark.benchmark(group="LeNet on every window, 512 x 512")
@pytest.mark.parametrize("who", ["t3ssfast", "torch dilated"])
def bench_dense_scores(benchmark: Any, stack: torch.Tensor, model: torch.nn.Sequential, who: str) -> None:
    image = stack[0, :512, :512].contiguous()
    work = timed(
        {
            "t3ssfast": lambda: t3.score_windows(model, image, plan="dense"),
            "torch dilated": lambda: torch_dilated(model, image),
        }[who]
    )
    corner = t3.score_windows(lenet(), image[:80, :80].cpu(), plan="windows")
    torch.testing.assert_close(work()[:, :31, :31].cpu(), corner, rtol=0, atol=1e-4)
    benchmark(work)


@pytest.mark.benchmark(group="LeNet inside a 6% ring, 512 x 512")
@pytest.mark.parametrize("who", ["t3ssfast", "torch windows"])
def bench_masked_scores(benchmark: Any, stack: torch.Tensor, model: torch.nn.Sequential, who: str) -> None:
    image, mask = stack[0, :512, :512].contiguous(), membrane_ring().cuda()
    work = timed(
        {
            "t3ssfast": lambda: t3.score_windows(model, image, mask=mask, plan="dense"),
            "torch windows": lambda: torch_batches(model, image, mask),
        }[who]
    )
    torch.testing.assert_close(work(), torch_batches(model, image, mask), rtol=0, atol=1e-4)
    benchmark(work)
