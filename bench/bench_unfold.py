"""unfold against torch and NumPy, and against a plain copy of as many bytes.

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

from t3ssfast.kernels.unfold import unfold
from t3ssfast.runtime import buffer_pool

SIZE = 50
IMAGE = np.random.default_rng(0).normal(size=(160, 230)).astype(np.float32)
COUNT = (IMAGE.shape[0] - SIZE + 1) * (IMAGE.shape[1] - SIZE + 1)
# Existing memory, for the functions that can write to it.
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


def t3ssfast_existing_memory() -> Array:
    return unfold(IMAGE, SIZE, out=OUT)


def numpy_existing_memory() -> Array:
    view = np.lib.stride_tricks.sliding_window_view(IMAGE, (SIZE, SIZE))
    np.copyto(OUT.reshape(view.shape), view)
    return OUT


def copy_existing_memory() -> Array:
    np.copyto(OUT, SOURCE)
    return OUT


def t3ssfast_new() -> Array:
    return unfold(IMAGE, SIZE)


def t3ssfast_new_unpooled() -> Array:
    """Write to memory that no result has used before."""
    buffer_pool._kept.clear()
    return unfold(IMAGE, SIZE)


def torch_functional_unfold_new() -> Array:
    """Unfold with torch.nn.functional.unfold, whose columns are the windows, and transpose."""
    columns = F.unfold(torch.from_numpy(IMAGE)[None, None], SIZE)[0]
    return columns.T.reshape(-1, SIZE, SIZE).numpy()


def torch_tensor_unfold_new() -> Array:
    return torch.from_numpy(IMAGE).unfold(0, SIZE, 1).unfold(1, SIZE, 1).reshape(-1, SIZE, SIZE).numpy()


def copy_new() -> Array:
    return SOURCE.copy()


EXISTING_MEMORY = [t3ssfast_existing_memory, numpy_existing_memory, copy_existing_memory]
NEW = [t3ssfast_new, t3ssfast_new_unpooled, torch_functional_unfold_new, torch_tensor_unfold_new, copy_new]


def check(got: Array, tool: Callable[[], Array]) -> None:
    if tool in (copy_existing_memory, copy_new):
        np.testing.assert_array_equal(got[17], SOURCE[17])
    else:
        np.testing.assert_array_equal(got[181 * 3 + 7], IMAGE[3:53, 7:57])
        np.testing.assert_array_equal(got[-1], IMAGE[-SIZE:, -SIZE:])


# A new array costs page faults; torch.nn.functional.unfold always returns one. unfold pays them only the
# first time, because it reuses the memory of results that were freed.
@pytest.mark.benchmark(group="every window, existing memory")
@pytest.mark.parametrize("tool", [*EXISTING_MEMORY, torch_functional_unfold_new])
def bench_unfold_existing_memory(benchmark: Any, tool: Callable[[], Array]) -> None:
    check(tool(), tool)
    benchmark.pedantic(tool, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="every window, new array")
@pytest.mark.parametrize("tool", NEW)
def bench_unfold_new(benchmark: Any, tool: Callable[[], Array]) -> None:
    check(tool(), tool)
    benchmark.pedantic(tool, rounds=5, warmup_rounds=1)


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
