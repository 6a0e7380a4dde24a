"""Reuse of the memory of large results: never shared, never too large, freed if its size does not suit."""

from __future__ import annotations

import gc
import mmap
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from t3ssfast.kernels.unfold import unfold
from t3ssfast.runtime import buffer_pool

LINUX = pytest.mark.skipif(
    not hasattr(mmap, "MADV_FREE"), reason="memory is kept only where MADV_FREE exists"
)
COUNT = buffer_pool.MIN_POOLED_BYTES // 2


@pytest.fixture(autouse=True)
def empty_pool():
    gc.collect()
    buffer_pool._kept.clear()
    yield
    buffer_pool._kept.clear()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@LINUX
def test_freed_memory_is_reused_once():
    first, reused = buffer_pool.empty((COUNT,), np.float32)
    assert not reused
    first[:] = 1
    first_address, view = address(first), first[7:9]
    del first
    second, reused = buffer_pool.empty((COUNT,), np.float32)
    assert not reused, "a view of the first array still exists"
    assert address(second) != first_address
    second[:] = 2
    np.testing.assert_array_equal(view, 1)
    del view
    third, reused = buffer_pool.empty((COUNT // 2, 3), np.int16)
    assert reused
    assert address(third) == first_address
    assert (third.shape, third.dtype) == ((COUNT // 2, 3), np.int16)
    assert third.flags.c_contiguous
    assert third.flags.writeable
    third[:] = 3
    np.testing.assert_array_equal(second, 2)
    assert not buffer_pool.empty((COUNT,), np.float32)[1]


@LINUX
def test_memory_of_an_unsuitable_size_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    buffer_pool.empty((3 * COUNT,), np.float32)
    small, reused = buffer_pool.empty((COUNT,), np.float32)
    assert not reused, "more than half of it would be unused"
    assert not buffer_pool._kept
    del small
    buffer_pool._kept.clear()
    monkeypatch.setattr(buffer_pool, "MAX_KEPT_BYTES", buffer_pool.MIN_POOLED_BYTES)
    buffer_pool.empty((COUNT + 1,), np.float32)
    gc.collect()
    assert not buffer_pool._kept
    assert not buffer_pool.empty((4,), np.float32)[1]


@LINUX
def test_results_of_unfold_keep_their_memory():
    image = np.random.default_rng(0).normal(size=(140, 140)).astype(np.float32)
    expected = np.lib.stride_tricks.sliding_window_view(image, (50, 50)).reshape(-1, 50, 50)
    for given in (image, torch.from_numpy(image)):
        for scale in (1, 2, 3):
            found = unfold(given * scale, 50)
            assert found.nbytes >= buffer_pool.MIN_POOLED_BYTES
            np.testing.assert_array_equal(np.asarray(found), expected * scale)
            again = unfold(given, 50)
            np.testing.assert_array_equal(np.asarray(found), expected * scale)
            np.testing.assert_array_equal(np.asarray(again), expected)
            del found, again
            assert len(buffer_pool._kept) == 1


def test_without_madv_free_nothing_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffer_pool, "_CAN_KEEP", False)
    for _ in range(2):
        found, reused = buffer_pool.empty((COUNT, 1), np.float32)
        assert not reused
        assert (found.shape, found.dtype) == ((COUNT, 1), np.float32)
        del found


GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def run_in_a_fresh_process(program: str) -> None:
    """Run a program in a new process, since an allocator's state depends on all earlier allocations."""
    lines = [
        "import resource, torch",
        "from pathlib import Path",
        "from t3ssfast.runtime.buffer_pool import retain_freed_memory",
    ]
    subprocess.run([sys.executable, "-c", "\n".join([*lines, program])], check=True, timeout=120)


@GLIBC
def test_retained_memory_is_reused_without_new_pages():
    run_in_a_fresh_process("""
def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 << 20).neg()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
new_pages()
freed = new_pages()
with retain_freed_memory():
    kept = min(new_pages() for _ in range(4))
assert kept < freed / 10, (kept, freed)
""")


@GLIBC
def test_retained_memory_goes_back_to_the_system_at_the_end():
    run_in_a_fresh_process("""
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before = resident()
with retain_freed_memory():
    tensors = [torch.ones(16 << 20) for _ in range(4)]
    del tensors
    assert resident() - before > 200 << 20
assert resident() - before < 50 << 20
""")
