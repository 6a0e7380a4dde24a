"""Where memory runs out the work gets smaller, and results stay the same."""

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
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.slabs import SlabScheduler
from t3ssfast.errors import InputError, OutOfMemoryError
from t3ssfast.kernels import _native
from t3ssfast.models import ModelMetadata, save_model
from t3ssfast.runtime.memory import is_out_of_memory, retry_on_oom
from t3ssfast.runtime.progress import Stages
from toy import VOXEL, save_toy_models, toy_classifier, toy_tomogram

# The toy segmenter gives low probabilities in so small a volume. Every slice is segmented, one at a time.
CONFIG = DetectConfig(
    slab_slices=8,
    segmenter_engine="torch",
    contrast="dark",
    membrane_threshold=0.3,
    segmented_spacing_nm=0,
    threads=1,
)
# Out of memory as NumPy, PyTorch and CUDA report it.
ERRORS: list[Callable[[], Exception]] = [
    lambda: MemoryError("Unable to allocate 9.1 GiB for an array with shape (7, 7)"),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
    ),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has"),
]
ALLOCATORS = [
    *((np, name) for name in ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "pad", "stack")),
    *((np, name) for name in ("concatenate", "ascontiguousarray")),
    *((torch, name) for name in ("empty", "zeros", "from_numpy", "clamp")),
]


class Allocations:
    """Counts allocations of arrays, and lets some of them fail.

    Parameters
    ----------
    fails
        Whether the allocation of a number, counted from 0, fails.
    error
        Makes the exception that it raises.
    """

    def __init__(self, fails: Callable[[int], bool], error: Callable[[], Exception]) -> None:
        self.count = 0
        self._fails, self._error = fails, error

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Allocations]:
        def through(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **options: Any) -> Any:
                number, self.count = self.count, self.count + 1
                if self._fails(number):
                    raise self._error()
                return make(*arguments, **options)

            return made

        with monkeypatch.context() as patch:
            for module, name in ALLOCATORS:
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


def test_any_of_the_first_allocations_may_fail(tmp_path, monkeypatch, soak):
    numbers = range(200 if soak else 20)
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    with Allocations(lambda _: False, MemoryError).watched(monkeypatch) as allocations:
        run(given)
    assert allocations.count > max(numbers)
    for number in numbers:
        error = ERRORS[number % len(ERRORS)]
        with Allocations(lambda n, number=number: n == number, error).watched(monkeypatch) as allocations:
            found = run(given)
        assert allocations.count > number
        assert content(found, tmp_path / "got") == want, number


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stage", ["prepare", "segment", "classify"])
def test_slabs_are_halved_until_they_fit(tmp_path, monkeypatch, error, stage):
    """No more than three slices can be prepared or classified, or none segmented."""
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    classify_module = importlib.import_module("t3ssfast.detection.classify")
    segment_module = importlib.import_module("t3ssfast.detection.segment")
    slices = []

    def within(most: int, make: Callable[..., Any], at: int) -> Callable[..., Any]:
        def made(*arguments: Any, **options: Any) -> Any:
            first = arguments[at]
            here = arguments[at + 1] - first if at == 1 else len(first)
            slices.append(here)
            if here > most:
                raise error()
            return make(*arguments, **options)

        return made

    with monkeypatch.context() as patch:
        if stage == "prepare":
            grid = PreparedTomogram
            patch.setattr(grid, "slab", within(3, grid.slab, 1))
        elif stage == "classify":
            patch.setattr(classify_module, "classify_slab", within(3, classify_module.classify_slab, 0))
        else:
            # It gets one slice at a time: only a smaller tile can help, and there is none.
            patch.setattr(segment_module, "segment_on_device", within(0, segment_module.segment_on_device, 0))
            with pytest.raises(OutOfMemoryError) as caught:
                run(given)
            assert is_one_sentence(caught.value)
            return
        found = run(given)
    # A slab is segmented with the slice beside it.
    assert max(slices) == (9 if stage == "prepare" else 8)
    assert "Memory ran out" in found.provenance["notes"][0]
    assert content(found, tmp_path / "got") == want


def test_finished_slabs_are_not_computed_again(tmp_path, monkeypatch):
    given = world(tmp_path)
    segment_module = importlib.import_module("t3ssfast.detection.segment")
    segmented = []

    def segment(around: np.ndarray, *arguments: Any, **options: Any) -> Any:
        segmented.append(1)
        if len(segmented) == 11:
            raise MemoryError
        return plain(around, *arguments, **options)

    plain = segment_module.segment_on_device
    monkeypatch.setattr(segment_module, "segment_on_device", segment)
    run(given)
    # The first slab of eight stays. Of the second the slice that failed is segmented again, and the last
    # slice of the first, which had been dropped.
    assert len(segmented) == 16 + 2


@pytest.mark.parametrize("times", [1, 2])
def test_removal_of_small_components_is_tried_twice(tmp_path, monkeypatch, times):
    given = world(tmp_path)
    want = content(run(given), tmp_path / "want")
    plain = _native.MaskComponents.faces
    calls = []

    def failing(components: _native.MaskComponents) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise MemoryError
        return plain(components)

    monkeypatch.setattr(_native.MaskComponents, "faces", failing)
    if times == 2:
        with pytest.raises(OutOfMemoryError) as caught:
            run(given)
        assert is_one_sentence(caught.value)
    else:
        assert content(run(given), tmp_path / "got") == want


@pytest.mark.parametrize("times", [1, 2, 4])
def test_smoothing_is_repeated_with_thinner_slabs(tmp_path, monkeypatch, times):
    # Scores are smoothed as they come where the smoothing reaches fewer slices than a slab has.
    given = world(tmp_path) | {"config": replace(CONFIG, score_smoothing_nm=1.0)}
    want = content(run(given), tmp_path / "want")
    module = importlib.import_module("t3ssfast.detection.smooth_scores")
    plain = module.smooth_scores
    calls = []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise MemoryError
        return plain(*arguments, **options)

    monkeypatch.setattr(module, "smooth_scores", failing)
    found = run(given)
    assert content(found, tmp_path / "got") == want
    assert f"Memory ran out {times} times" in found.provenance["notes"][0]


def test_slabs_shrink_first_then_tiles_and_batches_and_then_an_error_is_raised():
    def slabs_until_error(shrink: str) -> list[tuple[int, int, int | None]]:
        scheduler = SlabScheduler(replace(CONFIG, slab_slices=5), 90 * 100)
        seen = []

        def always_fail(stages: Stages) -> None:
            prepare, smaller = (lambda z0, z1: None), getattr(scheduler, shrink)
            for slab in scheduler.slabs((0, 5), prepare, "testing", smaller, stages):
                seen.append((slab.z1 - slab.z0, scheduler.tile, scheduler.batch))
                with scheduler.retry(slab):
                    raise MemoryError

        with Stages(False) as stages, pytest.raises(OutOfMemoryError, match="--threads 1") as caught:
            always_fail(stages)
        assert is_one_sentence(caught.value)
        return seen

    sizes = [(5, 1024, None), (2, 1024, None), (1, 1024, None), (1, 512, None)]
    assert slabs_until_error("shrink_tile") == sizes
    batches = [batch for *_, batch in slabs_until_error("shrink_batch")]
    assert batches == [None, None, None, 256, 64, 16]


def test_batches_shrink_for_plan_windows(tmp_path, monkeypatch):
    few = replace(CONFIG, plan="windows", slab_slices=1, search_distance_nm=2)
    given = {**world(tmp_path, (8, 60, 66)), "config": few}
    want = run(given)
    kernel = importlib.import_module("t3ssfast.kernels.score_windows")
    plain = kernel.run_model
    batches = []

    def failing(model: nn.Module, windows: torch.Tensor, **options: Any) -> Any:
        batches.append(len(windows))
        if len(windows) > 100:
            raise ERRORS[1]()
        return plain(model, windows, **options)

    monkeypatch.setattr(kernel, "run_model", failing)
    found = run(given)
    assert max(batches) == 512
    np.testing.assert_allclose(found.candidates.centre_zyx, want.candidates.centre_zyx, atol=1e-3)
    np.testing.assert_allclose(found.candidates.score, want.candidates.score, atol=1e-4)


class Greedy(nn.Module):
    """Allocates more memory than there is, for more windows than the probe gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_classifier()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            x = x + torch.zeros(1 << 50).sum()
        return self.inner(x)


def test_model_that_allocates_too_much_is_reported_as_out_of_memory(tmp_path):
    given = world(tmp_path)
    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(Greedy(), tmp_path / "greedy.pt", metadata)
    with pytest.raises(OutOfMemoryError) as caught:
        run(given, classifier=tmp_path / "greedy.pt")
    assert is_one_sentence(caught.value)
    assert "classifying windows" in str(caught.value)


def test_other_errors_are_not_out_of_memory():
    for error in (RuntimeError("shape mismatch"), InputError("x"), OutOfMemoryError("x"), OSError(12, "x")):
        assert not is_out_of_memory(error)
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        retry_on_oom("testing")(fail)()
    assert len(calls) == 1


def test_products_of_matrices_have_their_workspace():
    """Without it, NumPy 1.26's OpenBLAS tries to allocate it for ever."""
    done = python(
        """
        import resource, signal
        import numpy as np
        from t3ssfast.runtime.memory import reserve_blas_workspace
        reserve_blas_workspace()
        matrix = np.ones((3, 900))
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), -1))
        signal.alarm(20)
        assert (matrix @ matrix.T == 900).all()
        """
    )
    assert done.returncode == 0


def test_limits_of_the_address_space_give_the_same_result_or_one_sentence(tmp_path, soak):
    """Below 64 MiB above the imports, OpenMP or Python may fail to start a thread, and end or hang."""
    lowest, limits = 64, 40 if soak else 3
    world(tmp_path, (48, 300, 320))
    done = python(
        f"""
        import os
        # The C library reserves address space for every thread, which is not tested here.
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
        assert {{3, 7}} & set(outcomes), "no limit was too low"
        """,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_nearly_full_device(tmp_path):
    """With a small fraction of the device's memory slabs shrink, or an error is raised."""
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
            outcomes.add("error" if is_one_sentence(error) else str(error))
        else:
            np.testing.assert_array_equal(found.candidates.centre_zyx, want.candidates.centre_zyx)
            outcomes.add("equal")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert outcomes == {"error", "equal"}
