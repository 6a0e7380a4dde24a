"""Memory that is kept for the next result: never shared, never too large, let go when it does not suit."""

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

LINUX = pytest.mark.skipif(not hasattr(mmap, "MADV_FREE"), reason="pages are kept where MADV_FREE is known")
COUNT = buffer_pool.LEAST_BYTES // 2


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    buffer_pool._kept.clear()
    yield
    buffer_pool._kept.clear()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@LINUX
def test_what_was_let_go_is_used_again_once_and_only_then():
    first, used = buffer_pool.empty((COUNT,), np.float32)
    assert not used
    first[:] = 1
    place, view = address(first), first[7:9]
    del first
    second, used = buffer_pool.empty((COUNT,), np.float32)
    assert not used, "a view of the first still lives"
    assert address(second) != place
    second[:] = 2
    np.testing.assert_array_equal(view, 1)
    del view
    third, used = buffer_pool.empty((COUNT // 2, 3), np.int16)
    assert used
    assert address(third) == place
    assert (third.shape, third.dtype) == ((COUNT // 2, 3), np.int16)
    assert third.flags.c_contiguous
    assert third.flags.writeable
    third[:] = 3
    np.testing.assert_array_equal(second, 2)
    assert not buffer_pool.empty((COUNT,), np.float32)[1]


@LINUX
def test_memory_of_another_size_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    buffer_pool.empty((3 * COUNT,), np.float32)
    small, used = buffer_pool.empty((COUNT,), np.float32)
    assert not used, "more than half of it would lie idle"
    assert not buffer_pool._kept
    del small
    buffer_pool._kept.clear()
    monkeypatch.setattr(buffer_pool, "KEPT_BYTES", buffer_pool.LEAST_BYTES)
    buffer_pool.empty((COUNT + 1,), np.float32)
    gc.collect()
    assert not buffer_pool._kept
    assert not buffer_pool.empty((4,), np.float32)[1]


@LINUX
def test_a_result_holds_its_memory_as_an_array_and_as_a_tensor():
    image = np.random.default_rng(0).normal(size=(140, 140)).astype(np.float32)
    wanted = np.lib.stride_tricks.sliding_window_view(image, (50, 50)).reshape(-1, 50, 50)
    for given in (image, torch.from_numpy(image)):
        for scale in (1, 2, 3):
            found = unfold(given * scale, 50)
            assert found.nbytes >= buffer_pool.LEAST_BYTES
            np.testing.assert_array_equal(np.asarray(found), wanted * scale)
            again = unfold(given, 50)
            np.testing.assert_array_equal(np.asarray(found), wanted * scale)
            np.testing.assert_array_equal(np.asarray(again), wanted)
            del found, again
            assert len(buffer_pool._kept) == 1


def test_without_such_pages_the_allocator_serves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffer_pool, "_CAN_KEEP", False)
    for _ in range(2):
        found, used = buffer_pool.empty((COUNT, 1), np.float32)
        assert not used
        assert (found.shape, found.dtype) == ((COUNT, 1), np.float32)
        del found


GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")


def in_a_process_of_its_own(program: str) -> None:
    """What an allocator holds depends on all that a process has done."""
    lines = [
        "import resource, torch",
        "from pathlib import Path",
        "from t3ssfast.runtime.buffer_pool import retain_freed_memory",
    ]
    subprocess.run([sys.executable, "-c", "\n".join([*lines, program])], check=True, timeout=120)


@GLIBC
def test_freed_tensors_are_allocated_again_without_new_pages():
    in_a_process_of_its_own("""
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
def test_what_is_free_goes_back_in_the_end():
    in_a_process_of_its_own("""
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before = resident()
with retain_freed_memory():
    tensors = [torch.ones(16 << 20) for _ in range(4)]
    del tensors
    assert resident() - before > 200 << 20
assert resident() - before < 50 << 20
""")
