"""Comparisons of the kernels and of a detection with PyTorch alone: equal results first, then times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t3ssfast.cli.torch_baselines import (
    BASELINE_CONFIG,
    detect_by_torch,
    medians,
    moments_and_extrema,
    score_in_batches,
)
from t3ssfast.detection import detect
from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.errors import T3Error
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram

SIZE = 50
ROUNDS = 5
# Windows that PyTorch is timed on; all of them take it many seconds, in proportion to their number.
TIMED_WINDOWS = 2048

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Median times of some work by t3ssfast and by PyTorch alone, and how PyTorch did it."""

    work: str
    seconds: float
    torch_seconds: float
    how: str

    @property
    def times_faster(self) -> float:
        """Time of PyTorch over that of t3ssfast."""
        return self.torch_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "times_faster": self.times_faster}


def run_benchmarks(device: str | torch.device = "auto", threads: int | None = None) -> Iterator[Timing]:
    """Check that the results of every comparison are equal, or raise `T3Error`, then time both sides."""
    device = check_device(device)
    with torch_threads(threads):
        for benchmark in BENCHMARKS.values():
            yield from benchmark(device)


def check_equal(work: str, found: Any, expected: Any, tolerance: float) -> None:
    """Raise `T3Error` if two arrays or tensors differ in shape, or in a value by more than a tolerance."""
    found, expected = (np.asarray(a.cpu() if isinstance(a, Tensor) else a) for a in (found, expected))
    if found.shape != expected.shape:
        difference = f"have shape {found.shape} and {expected.shape}"
    else:
        largest = float(np.abs(found - expected).max(initial=0.0))
        if largest <= tolerance:  # false for NaN
            return
        difference = f"differ by {largest:.2g}, more than {tolerance:g}"
    raise T3Error(
        f"{work}: the results of t3ssfast and PyTorch {difference}; please report this with the output of "
        "t3ssfast doctor."
    )


def time_in_turns(
    *functions: Work,
    rounds: int,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Return the seconds of each round, per function; by CPU time if the clock is `time.process_time`.

    Functions run in turns, so that other work on the machine slows all of them alike.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, measured in zip(functions, seconds, strict=True):
            start = clock()
            function()
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            measured.append(clock() - start)
    return seconds


def _compare(
    work: str, how: str, device: torch.device, ours: Work, baseline: Work, tolerance: float
) -> Timing:
    check_equal(work, ours(), baseline(), tolerance)
    seconds, torch_seconds = time_in_turns(ours, baseline, rounds=ROUNDS, device=device)
    return Timing(work, statistics.median(seconds), statistics.median(torch_seconds), how)


def _image(height: int, width: int, device: torch.device) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(0)).to(device)


def _compare_unfold(device: torch.device) -> Iterator[Timing]:
    image = _image(160, 230, device)
    yield _compare(
        f"unfold, every window of {SIZE} x {SIZE} in 160 x 230",
        "torch.nn.functional.unfold",
        device,
        lambda: unfold(image, SIZE).reshape(-1, SIZE * SIZE),
        lambda: torch.nn.functional.unfold(image[None, None], SIZE)[0].T,
        tolerance=0.0,
    )


def _compare_moments(device: torch.device) -> Iterator[Timing]:
    image = _image(192, 192, device)
    names = ("mean", "std", "skewness", "kurtosis", "min", "max")
    yield _compare(
        f"{', '.join(names)} of every window in 192 x 192",
        "average and maximum pooling",
        device,
        lambda: window_statistics(image, SIZE, names),
        lambda: moments_and_extrema(image[None], SIZE)[:, 0],
        tolerance=1e-4,
    )


def _compare_median(device: torch.device) -> Iterator[Timing]:
    image = _image(128, 128, device)
    yield _compare(
        "median of every window in 128 x 128",
        "windows sorted, row by row",
        device,
        lambda: window_statistics(image, SIZE, ("median",))[0],
        lambda: medians(image, SIZE),
        tolerance=1e-6,
    )


def _compare_scores(device: torch.device) -> Iterator[Timing]:
    model, image = load_model(None, model_kind="classifier", device=device), _image(512, 512, device)
    count = 512 - SIZE + 1
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    ring = ((torch.hypot(y - count / 2, x - count / 2) - 150).abs() < 7).to(device)
    in_ring = ring.reshape(-1).nonzero()[:, 0]
    timed = torch.zeros_like(ring)
    timed.view(-1)[in_ring[:: max(1, len(in_ring) // TIMED_WINDOWS)][:TIMED_WINDOWS]] = True

    def baseline() -> Tensor:
        return score_in_batches(model.module, image, timed, size=SIZE)

    expected = baseline()
    for where, mask in (("inside a ring of 6%", ring), ("on every window", None)):
        work = f"the classifier {where} of 512 x 512"
        ours = partial(score_windows, model, image, mask=mask)
        found = ours()[:, timed].T if mask is None else ours()[timed[mask]]
        check_equal(work, found, expected, 1e-4)
        seconds, part = map(statistics.median, time_in_turns(ours, baseline, rounds=3, device=device))
        torch_seconds = part * (count * count if mask is None else len(in_ring)) / len(expected)
        yield Timing(work, seconds, torch_seconds, "window by window (some of them timed)")


def _compare_segmenter(device: torch.device) -> Iterator[Timing]:
    model = load_model(None, model_kind="segmenter", device=device)
    count = model.metadata.slices
    slices = _image(count * 512, 512, device).reshape(count, 512, 512)

    @torch.inference_mode()
    def baseline() -> Tensor:
        return model.probability(model.module(slices[None]))[0, 0]

    yield _compare(
        f"the segmenter on a slice of 512 x 512, by {model.engine('auto').name}",
        "the network as it is, in float32",
        device,
        lambda: segment_slice(slices, model),
        baseline,
        tolerance=model.engine("auto").tolerance,
    )


def small_tomogram() -> Tomogram:
    """Simulate the tomogram of 8 x 160 x 160 voxels that detections are compared on."""
    tomogram = simulate(11, (32, 160, 160)).tomogram
    return Tomogram(tomogram.data[12:20], tomogram.voxel_size_angstrom, tomogram.name)


def detect_like_torch(
    tomogram: Tomogram, segmenter: LoadedModel, classifier: LoadedModel, device: torch.device
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Run `detect` with the configuration of `detect_by_torch`; return centres and scores as it does."""
    options: dict[str, Any] = {"config": BASELINE_CONFIG, "device": device, "progress": False}
    candidates = detect(tomogram, segmenter=segmenter, classifier=classifier, **options).candidates
    return candidates.centre_zyx, candidates.score


def _compare_detection(device: torch.device) -> Iterator[Timing]:
    work = "a detection in 8 x 160 x 160, without preselection"
    tomogram = small_tomogram()
    segmenter = load_model(None, model_kind="segmenter", device=device)
    classifier = load_model(None, model_kind="classifier", device=device)
    ours = partial(detect_like_torch, tomogram, segmenter, classifier, device)
    found = ours()
    start = time.perf_counter()
    expected = detect_by_torch(tomogram, segmenter, classifier)
    torch_seconds = time.perf_counter() - start
    # In half precision the mask of a CUDA device differs by some voxels.
    tolerances = (0.05, 1e-4) if device.type == "cpu" else (0.5, 0.02)
    for ours_array, torch_array, tolerance in zip(found, expected, tolerances, strict=True):
        check_equal(work, ours_array, torch_array, tolerance)
    seconds = statistics.median(time_in_turns(ours, rounds=3, device=device)[0])
    yield Timing(work, seconds, torch_seconds, "U-Net slice by slice, windows in batches")


BENCHMARKS: dict[str, Callable[[torch.device], Iterator[Timing]]] = {
    "unfold": _compare_unfold,
    "moments": _compare_moments,
    "median": _compare_median,
    "scores": _compare_scores,
    "segmenter": _compare_segmenter,
    "detection": _compare_detection,
}
