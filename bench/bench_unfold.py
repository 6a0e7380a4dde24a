"""unfold against torch's and NumPy's ways to the same array, and against a plain copy of as many bytes.

``pytest bench/bench_unfold.py --benchmark-only``; T3SSFAST_BENCH_THREADS sets the threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t3ssfast.windows import unfold

SIZE = 50
IMAGE = np.random.default_rng(0).normal(size=(160, 230)).astype(np.float32)
COUNT = (IMAGE.shape[0] - SIZE + 1) * (IMAGE.shape[1] - SIZE + 1)
# Every tool writes into memory that is there already, as far as it can: page faults cost more than the copy.
OUT = np.zeros((COUNT, SIZE, SIZE), np.float32)
SOURCE = np.ones_like(OUT)
MASK = np.random.default_rng(1).random((IMAGE.shape[0] - SIZE + 1, IMAGE.shape[1] - SIZE + 1)) < 0.05

Array = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[int]:
    count = int(os.environ.get("T3SSFAST_BENCH_THREADS", "1"))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield count
    torch.set_num_threads(before)


def t3ssfast_unfold() -> Array:
    return unfold(IMAGE, SIZE, out=OUT)


def strided_numpy() -> Array:
    view = np.lib.stride_tricks.sliding_window_view(IMAGE, (SIZE, SIZE))
    np.copyto(OUT.reshape(view.shape), view)
    return OUT


def torch_unfold() -> Array:
    columns = F.unfold(torch.from_numpy(IMAGE)[None, None], SIZE)[0]
    return columns.T.reshape(-1, SIZE, SIZE).numpy()


def plain_copy() -> Array:
    np.copyto(OUT, SOURCE)
    return OUT


@pytest.mark.benchmark(group="every window")
@pytest.mark.parametrize("tool", [t3ssfast_unfold, strided_numpy, torch_unfold, plain_copy])
def bench_unfold(benchmark: Any, tool: Callable[[], Array]) -> None:
    got = benchmark.pedantic(tool, rounds=5, warmup_rounds=1)
    if tool is not plain_copy:
        np.testing.assert_array_equal(got[181 * 3 + 7], IMAGE[3:53, 7:57])
        np.testing.assert_array_equal(got[-1], IMAGE[-SIZE:, -SIZE:])


@pytest.mark.benchmark(group="5% of the windows")
@pytest.mark.parametrize("normalise", [None, "zscore"])
def bench_masked_t3ssfast(benchmark: Any, normalise: Any) -> None:
    got = benchmark.pedantic(
        lambda: unfold(IMAGE, SIZE, mask=MASK, normalise=normalise), rounds=5, warmup_rounds=1
    )
    y, x = np.argwhere(MASK)[17]
    want = IMAGE[y : y + SIZE, x : x + SIZE]
    want = want if normalise is None else (want - want.mean()) / want.std()
    np.testing.assert_allclose(got[17], want, rtol=1e-4, atol=1e-5)
