"""Memory that runs out is met with smaller pieces, and never changes a result."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import FILES
from torch import nn

import t3ssfast as t3
from processes import python
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.passes import JUDGING, SEGMENTING, Portions
from t3ssfast.errors import InputError, OutOfMemoryError
from t3ssfast.models import ModelMetadata, save_model
from t3ssfast.runtime.memory import is_out_of_memory, retry_on_oom
from toy import VOXEL, save_toy_models, toy_classifier, toy_tomogram

# The toy segmenter is never sure of much in so small a world.
CONFIG = DetectConfig(slab_slices=8, segmenter_engine="torch", contrast="dark", membrane_threshold=0.3)
# How NumPy, PyTorch, the TorchScript interpreter and CUDA say it.
KINDS: list[Callable[[], Exception]] = [
    lambda: MemoryError("Unable to allocate 9.1 GiB for an array with shape (7, 7)"),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
    ),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has"),
]
MAKERS = [
    *((np, name) for name in ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "pad", "stack")),
    *((np, name) for name in ("concatenate", "ascontiguousarray")),
    *((torch, name) for name in ("empty", "zeros", "from_numpy", "clamp")),
]


class Door:
    """Counts what makes arrays, and lets some of it fail.

    Parameters
    ----------
    fails
        Says of the number of an array, from 0, whether it cannot be had.
    kind
        What is raised then.
    """

    def __init__(self, fails: Callable[[int], bool], kind: Callable[[], Exception]) -> None:
        self.count = 0
        self._fails, self._kind = fails, kind

    @contextmanager
    def closed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
        def through(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **options: Any) -> Any:
                number, self.count = self.count, self.count + 1
                if self._fails(number):
                    raise self._kind()
                return make(*arguments, **options)

            return made

        with monkeypatch.context() as patch:
            for module, name in MAKERS:
                patch.setattr(module, name, through(getattr(module, name)))
            yield self


def world(folder: Path, shape: tuple[int, int, int] = (16, 90, 100)) -> dict[str, Any]:
    segmenter, classifier = save_toy_models(folder)
    tomogram, _, _ = toy_tomogram(shape)
    t3.write(folder / "toy.mrc", tomogram.data, VOXEL)
    return {
        "tomogram": folder / "toy.mrc",
        "segmenter": segmenter,
        "classifier": classifier,
        "device": "cpu",
        "config": CONFIG,
        "progress": False,
    }


def run(given: dict[str, Any], **options: Any) -> t3.Detection:
    arguments = {**given, **options}
    return t3.detect(arguments.pop("tomogram"), **arguments)


def content(detection: t3.Detection, folder: Path) -> dict[str, bytes]:
    detection.save(folder)
    return {name: (folder / name).read_bytes() for name in FILES}


def is_one_sentence(error: Exception) -> bool:
    text = str(error)
    return text.isprintable() and text.endswith(".") and "Memory ran out while" in text


def fail_each(numbers: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    with Door(lambda _: False, MemoryError).closed(monkeypatch) as door:
        run(given)
    assert door.count > max(numbers), "the door sees that many"
    for number in numbers:
        kind = KINDS[number % len(KINDS)]
        with Door(lambda n, number=number: n == number, kind).closed(monkeypatch) as door:
            found = run(given)
        assert door.count > number
        assert content(found, tmp_path / "got") == want, number


def test_each_of_the_first_twenty_arrays_may_be_refused(tmp_path, monkeypatch):
    fail_each(range(20), tmp_path, monkeypatch)


@pytest.mark.slow
def test_each_of_the_first_two_hundred_arrays_may_be_refused(tmp_path, monkeypatch):
    fail_each(range(200), tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["prepare", "segment", "classify"])
def test_slabs_are_halved_until_they_fit(tmp_path, monkeypatch, kind, stage):
    """Nothing larger than so many slices can be prepared, segmented or judged."""
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    passes = importlib.import_module("t3ssfast.detection.passes")
    slices = []

    def within(most: int, make: Callable[..., Any], at: int) -> Callable[..., Any]:
        def made(*arguments: Any, **options: Any) -> Any:
            first = arguments[at]
            here = arguments[at + 1] - first if at == 1 else len(first)
            slices.append(here)
            if here > most:
                raise kind()
            return make(*arguments, **options)

        return made

    with monkeypatch.context() as patch:
        if stage == "prepare":
            grid = passes.PreparedTomogram
            patch.setattr(grid, "slab", within(3, grid.slab, 1))
        elif stage == "classify":
            patch.setattr(passes, "classify_slab", within(3, passes.classify_slab, 0))
        else:
            # It is given one slice at a time: only a smaller tile can help, and there is none.
            patch.setattr(passes, "segment_slice", within(0, passes.segment_slice, 0))
            with pytest.raises(OutOfMemoryError) as caught:
                run(given)
            assert is_one_sentence(caught.value)
            return
        found = run(given)
    # To segment one takes the slice beside it, too.
    assert max(slices) == (9 if stage == "prepare" else 8)
    assert "Memory ran out" in found.provenance["notes"][0]
    assert content(found, tmp_path / "got") == want


def test_what_has_been_found_before_memory_ran_out_is_not_done_again(tmp_path, monkeypatch):
    given = world(tmp_path)
    passes = importlib.import_module("t3ssfast.detection.passes")
    asked = []

    def segment(around: np.ndarray, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) == 11:
            raise MemoryError
        return plain(around, *arguments, **options)

    plain = passes.segment_slice
    monkeypatch.setattr(passes, "segment_slice", segment)
    run(given)
    # The first slab of eight stands; of the second the slice that failed is asked again, and the last one of
    # the first, which was no longer needed.
    assert len(asked) == 16 + 2


@pytest.mark.parametrize("what", ["smooth_slabs", "prune_membrane"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_made_of_all_slabs_is_made_again_of_thinner_ones(tmp_path, monkeypatch, what, times):
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    passes = importlib.import_module("t3ssfast.detection.passes")
    plain = getattr(passes, what)
    calls = []

    def hungry(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise MemoryError
        return plain(*arguments, **options)

    monkeypatch.setattr(passes, what, hungry)
    if times == 3:
        with pytest.raises(OutOfMemoryError, match="slabs of 1 slice;") as caught:
            run(given)
        assert is_one_sentence(caught.value)
        return
    found = run(given)
    assert f"slabs had {8 // (4, 16)[times - 1] or 1} slices" in found.provenance["notes"][0]
    assert content(found, tmp_path / "got") == want


def test_a_smaller_tile_comes_last_and_then_one_sentence():
    portions = Portions(replace(CONFIG, slab_slices=None), 90 * 100)
    portions.slices = 5
    assert portions.tile == 1024
    seen = []
    for _ in range(3):
        portions.reduce(SEGMENTING, portions.slices)
        seen.append((portions.slices, portions.tile))
    assert seen == [(2, 1024), (1, 1024), (1, 512)]
    with pytest.raises(OutOfMemoryError) as caught:
        portions.reduce(SEGMENTING, portions.slices)
    assert is_one_sentence(caught.value)
    batches = []
    for _ in range(3):
        portions.reduce(JUDGING, 1)
        batches.append(portions.batch)
    assert batches == [256, 64, 16]
    with pytest.raises(OutOfMemoryError, match="--threads 1"):
        portions.reduce(JUDGING, 1)


def test_batches_shrink_for_a_model_that_is_run_window_by_window(tmp_path, monkeypatch):
    few = replace(CONFIG, plan="windows", slab_slices=1, search_distance_nm=2)
    given = {**world(tmp_path), "config": few}
    want = run(given)
    classify = importlib.import_module("t3ssfast.kernels.score_windows")
    plain = classify.run_model
    batches = []

    def hungry(model: nn.Module, windows: torch.Tensor, **options: Any) -> Any:
        batches.append(len(windows))
        if len(windows) > 100:
            raise KINDS[1]()
        return plain(model, windows, **options)

    monkeypatch.setattr(classify, "run_model", hungry)
    found = run(given)
    assert max(batches) == 512
    np.testing.assert_allclose(found.candidates.centre_zyx, want.candidates.centre_zyx, atol=1e-3)
    np.testing.assert_allclose(found.candidates.score, want.candidates.score, atol=1e-4)


class Hungry(nn.Module):
    """Asks for more memory than there is, as soon as it sees more than the probe shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_classifier()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            x = x + torch.zeros(1 << 50).sum()
        return self.inner(x)


def test_a_model_that_asks_for_too_much_is_told_as_want_of_memory(tmp_path):
    given = world(tmp_path)
    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(Hungry(), tmp_path / "hungry.pt", metadata)
    with pytest.raises(OutOfMemoryError) as caught:
        run(given, classifier=tmp_path / "hungry.pt")
    assert is_one_sentence(caught.value)
    assert "judging windows" in str(caught.value)


def test_other_errors_are_no_want_of_memory():
    for error in (RuntimeError("shape mismatch"), InputError("x"), OutOfMemoryError("x"), OSError(12, "x")):
        assert not is_out_of_memory(error)
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        retry_on_oom("testing", fail)
    assert len(calls) == 1


# ------------------------------------------------------------------------------------ a limit that is real


def limit_memory(lowest: int, limits: int, tmp_path: Path) -> None:
    """Limits on the address space, from so many MiB up to enough: the same result, or one sentence.

    Where there is still less, threads cannot be started and libraries end the process by themselves.
    """
    world(tmp_path, (48, 300, 320))
    done = python(
        f"""
        import os
        # The C library takes address space for every thread, which is not what is tested here.
        if os.environ.get("MALLOC_ARENA_MAX") != "2":
            os.environ["MALLOC_ARENA_MAX"] = "2"
            import sys
            os.execv(sys.executable, [sys.executable, "-W", "ignore", *sys.orig_argv[1:]])
        import resource, sys, test_memory as t
        from pathlib import Path
        import numpy as np, t3ssfast as t3
        folder = Path({str(tmp_path)!r})
        given = {{"tomogram": folder / "toy.mrc", "segmenter": folder / "segmenter.pt",
                  "classifier": folder / "classifier.pt", "device": "cpu", "progress": False,
                  "config": t.replace(t.CONFIG, threads=1, slab_slices=48)}}
        import t3ssfast.detection, t3ssfast.plotting
        with open("/proc/self/statm") as file:
            before = int(file.read().split()[0]) * resource.getpagesize()
        outcomes = []
        for more in [1 << 40, *np.geomspace({lowest} << 20, 400 << 20, {limits}).astype(int).tolist()]:
            child = os.fork()
            if child:
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                outcomes.append(code)
                continue
            resource.setrlimit(resource.RLIMIT_AS, (before + more, -1))
            code = 1
            try:
                found = t.run(given)
                resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
                out = folder / ("want" if more == 1 << 40 else "got")
                got = t.content(found, out)
                want = {{name: (folder / "want" / name).read_bytes() for name in got}}
                backed_off = bool(found.provenance["notes"])
                code = (7 if backed_off else 0) if got == want else 2
            except t.OutOfMemoryError as error:
                code = 3 if t.is_one_sentence(error) else 4
            except t3.T3Error as error:
                print(more, repr(error), file=sys.stderr)
                code = 5
            except BaseException as error:
                import traceback
                traceback.print_exc()
                code = 6
            os._exit(code)
        print(outcomes)
        assert outcomes[0] == outcomes[-1] == 0, outcomes
        assert set(outcomes) <= {{0, 3, 7}}, outcomes
        assert {{3, 7}} & set(outcomes), "some limits were too low"
        """,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_limits_on_memory(tmp_path):
    limit_memory(40, 3, tmp_path)


@pytest.mark.slow
def test_forty_limits_on_memory(tmp_path):
    limit_memory(40, 40, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_device_that_is_nearly_full(tmp_path):
    """A share of the device's memory so small that the slabs have to shrink, or that nothing can be done."""
    given = {**world(tmp_path), "device": "cuda"}
    want = run(given)
    total = torch.cuda.get_device_properties(0).total_memory
    outcomes = set()
    for megabytes in (1, 4, 16, 64, 256, 1024):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(megabytes * 2**20 / total)
        try:
            found = run(given)
        except OutOfMemoryError as error:
            outcomes.add("told" if is_one_sentence(error) else str(error))
        else:
            np.testing.assert_array_equal(found.candidates.centre_zyx, want.candidates.centre_zyx)
            outcomes.add("equal")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert outcomes == {"told", "equal"}
