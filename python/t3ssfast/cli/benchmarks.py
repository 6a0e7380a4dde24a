"""What the kernels and a detection take on this machine, against PyTorch alone: answers first, then times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t3ssfast.detection import detect
from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.detection.pick import SparseScores, pick
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.segment import SIDE_MULTIPLE, average_slices, prune_membrane, segment_slice
from t3ssfast.errors import T3Error
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel, check_device, load_model
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram

__all__ = ["PLAIN_CONFIG", "Timing", "detect_by_torch", "run_benchmarks"]

SIZE = 50
SIX = ("mean", "std", "skewness", "kurtosis", "min", "max")
# PyTorch's best on a CPU.
BATCH = 512
# Windows of which PyTorch's time for all is known; they take it seconds.
TIMED_WINDOWS = 2048
ROUNDS = 5
# Preselection off: a user's own pipeline has none, and both shall judge the same windows. A low threshold:
# there must be picks to hold against each other.
PLAIN_CONFIG = DetectConfig(preselect=False, verify=False, score_threshold=0.01, contrast="dark")


@dataclass(frozen=True)
class Timing:
    """One piece of work, done twice.

    Attributes
    ----------
    work
        What was done.
    seconds
        By t3ssfast: the median of some rounds, in turns with the other.
    torch_seconds
        By PyTorch alone.
    how
        How PyTorch did it.
    """

    work: str
    seconds: float
    torch_seconds: float
    how: str

    @property
    def times_faster(self) -> float:
        """How many times as long PyTorch took."""
        return self.torch_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "work": self.work,
            "seconds": self.seconds,
            "torch_seconds": self.torch_seconds,
            "times_faster": self.times_faster,
            "how": self.how,
        }


def run_benchmarks(device: str | torch.device = "auto", threads: int | None = None) -> Iterator[Timing]:
    """Do each piece of work both ways, hold the answers against each other, then time them in turns.

    Parameters
    ----------
    device
        Where both run.
    threads
        For both; PyTorch's number where None.

    Yields
    ------
    Timing
        As each is done; all of them take about a minute on two cores.

    Raises
    ------
    T3Error
        If two answers differ: then a time would mean nothing.
    DeviceError
        If there is no such device.
    """
    where = check_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.inference_mode():
            for part in (_unfold, _statistics, _median, _scores, _segmenter):
                yield from part(where)
        yield from _detection(where)
    finally:
        torch.set_num_threads(before)


def _image(height: int, width: int, where: torch.device) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(0)).to(where)


def _agree(work: str, found: Any, wanted: Any, tolerance: float) -> None:
    found, wanted = (np.asarray(a.cpu() if isinstance(a, Tensor) else a) for a in (found, wanted))
    if found.shape != wanted.shape:
        raise T3Error(
            f"{work}: t3ssfast answers shape {found.shape} and PyTorch {wanted.shape}; please report this, "
            "with what t3ssfast doctor says."
        )
    apart = float(np.abs(found - wanted).max(initial=0.0))
    # Written so that NaN is no agreement.
    if not apart <= tolerance:
        raise T3Error(
            f"{work}: t3ssfast and PyTorch differ by {apart:.2g}, more than {tolerance:g}; please report "
            "this, with what t3ssfast doctor says."
        )


def _in_turns(
    where: torch.device, ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Median seconds of each; both have run before."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            way()
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _unfold(where: torch.device) -> Iterator[Timing]:
    image = _image(160, 230, where)
    work = f"unfold, every window of {SIZE} x {SIZE} in 160 x 230"

    def theirs() -> Tensor:
        return torch.nn.functional.unfold(image[None, None], SIZE)[0]

    _agree(work, unfold(image, SIZE).reshape(-1, SIZE * SIZE), theirs().T, 0.0)
    yield Timing(work, *_in_turns(where, lambda: unfold(image, SIZE), theirs), "torch.nn.functional.unfold")


def _statistics(where: torch.device) -> Iterator[Timing]:
    image = _image(192, 192, where)
    work = "mean, std, skewness, kurtosis, min, max of every window in 192 x 192"

    def theirs() -> Tensor:
        x = image[None].double()
        m1, m2, m3, m4 = (torch.nn.functional.avg_pool2d(x**k, SIZE, stride=1)[0] for k in range(1, 5))
        variance = m2 - m1**2
        third, fourth = m3 - 3 * m1 * m2 + 2 * m1**3, m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        low, high = (s * torch.nn.functional.max_pool2d(s * image[None], SIZE, 1)[0] for s in (-1, 1))
        moments = m1, variance.sqrt(), third / variance**1.5, fourth / variance**2 - 3
        return torch.stack([*(m.float() for m in moments), low, high])

    _agree(work, window_statistics(image, SIZE, SIX), theirs(), 1e-4)
    seconds = _in_turns(where, lambda: window_statistics(image, SIZE, SIX), theirs)
    yield Timing(work, *seconds, "average and maximum pooling")


def _median(where: torch.device) -> Iterator[Timing]:
    image = _image(128, 128, where)
    work = "median of every window in 128 x 128"

    def theirs() -> Tensor:
        windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)
        middle = SIZE * SIZE // 2
        rows = [row.reshape(len(row), -1).sort(dim=1).values for row in windows]
        return torch.stack([(row[:, middle - 1] + row[:, middle]) / 2 for row in rows])

    _agree(work, window_statistics(image, SIZE, ("median",))[0], theirs(), 1e-6)
    seconds = _in_turns(where, lambda: window_statistics(image, SIZE, ("median",)), theirs, 3)
    yield Timing(work, *seconds, "windows sorted, row by row")


def _scores(where: torch.device) -> Iterator[Timing]:
    model, image = load_model(None, model_kind="classifier", device=where), _image(512, 512, where)
    count = 512 - SIZE + 1
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    ring = ((torch.hypot(y - count / 2, x - count / 2) - 150).abs() < 7).to(where)
    rows, columns = ring.nonzero(as_tuple=True)
    windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)
    # Spread over the ring; with them the time for all windows is told by their number.
    step = max(1, len(rows) // TIMED_WINDOWS)
    some = slice(0, step * TIMED_WINDOWS, step)
    some_rows, some_columns = rows[some], columns[some]

    def theirs() -> Tensor:
        batches = zip(torch.split(some_rows, BATCH), torch.split(some_columns, BATCH), strict=True)
        return torch.cat([model.module(windows[r, c][:, None]) for r, c in batches])

    wanted = theirs()
    for work, mask in (("inside a ring of 6%", ring), ("on every window", None)):
        work = f"the classifier {work} of 512 x 512"
        answers = score_windows(model, image, mask=mask)
        found = answers[some] if mask is not None else answers[:, some_rows, some_columns].T
        _agree(work, found, wanted, 1e-4)
        asked = len(rows) if mask is not None else count * count
        ours, part = _in_turns(where, lambda m=mask: score_windows(model, image, mask=m), theirs, 3)  # type: ignore[misc]
        yield Timing(work, ours, part * asked / len(wanted), "window by window (some of them timed)")


def _segmenter(where: torch.device) -> Iterator[Timing]:
    model = load_model(None, model_kind="segmenter", device=where)
    slices, work = model.metadata.slices, "the segmenter on a slice of 512 x 512"
    around = _image(slices * 512, 512, where).reshape(slices, 512, 512)

    def theirs() -> Tensor:
        return model.probability(model.module(around[None]))[0, 0]

    def ours() -> npt.NDArray[np.float32]:
        return segment_slice(around, model)

    # Float16 on a CUDA device.
    _agree(work, ours(), theirs(), 1e-4 if where.type == "cpu" else 0.02)
    engine = model.engine("auto").name
    yield Timing(f"{work}, by {engine}", *_in_turns(where, ours, theirs), "the TorchScript file run as it is")


def _detection(where: torch.device) -> Iterator[Timing]:
    thick = simulate(11, (32, 160, 160)).tomogram
    tomogram = Tomogram(thick.data[12:20], thick.voxel_size_angstrom, thick.name)
    models = (
        load_model(None, model_kind="segmenter", device=where),
        load_model(None, model_kind="classifier", device=where),
    )
    work = "a detection in 8 x 160 x 160, without preselection"
    found: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []

    def ours() -> None:
        candidates = detect(
            tomogram,
            segmenter=models[0],
            classifier=models[1],
            config=PLAIN_CONFIG,
            device=where,
            progress=False,
        ).candidates
        found[:] = [(candidates.centre_zyx, candidates.score)]

    ours()
    with _timed() as taken:
        centre, score = detect_by_torch(tomogram, *models)
    # In half precision the mask of a CUDA device differs by some voxels.
    tolerance = (0.05, 1e-4) if where.type == "cpu" else (0.5, 0.02)
    _agree(work, found[0][0], centre, tolerance[0])
    _agree(work, found[0][1], score, tolerance[1])
    seconds = _in_turns(where, ours, lambda: None, 3)[0]
    yield Timing(work, seconds, taken[0], "U-Net slice by slice, windows in batches")


@contextmanager
def _timed() -> Iterator[list[float]]:
    taken: list[float] = []
    start = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - start)


@torch.inference_mode()
def detect_by_torch(
    tomogram: Tomogram, segmenter: LoadedModel, classifier: LoadedModel
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The pipeline that a good user would write with PyTorch alone, with the options of `PLAIN_CONFIG`.

    The U-Net is run on every slice, the windows inside the mask are cut with `Tensor.unfold` in batches of
    512, and the LeNet is asked for each. What is around it (normalisation, search region, picking) is ours,
    so that the picks can be held against those of `detect`: they are the same.

    Returns
    -------
    (n, 3) centres in voxels of the tomogram, and (n,) scores, highest first.
    """
    size, calibration = classifier.metadata.window_px, read_calibration(classifier.metadata.calibration)
    assert size is not None, "load_model gives every classifier a window"
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
    )
    depth, height, width = grid.shape
    seen = np.empty(grid.shape, np.float32)
    prepared = grid.slab(0, depth)
    for z in range(depth):
        around = neighbouring_slices(prepared, z, segmenter.metadata.slices)
        image = torch.from_numpy(around)[None].to(segmenter.device)
        pad = (0, -width % SIDE_MULTIPLE, 0, -height % SIDE_MULTIPLE)
        padded = torch.nn.functional.pad(image, pad, mode="reflect")
        seen[z] = segmenter.probability(segmenter.module(padded))[0, 0, :height, :width].cpu().numpy()
    beside = np.pad(seen, ((1, 1), (0, 0), (0, 0)), mode="edge")
    averages = map(average_slices, beside[:-2], seen, beside[2:])
    mask = np.stack([average > PLAIN_CONFIG.search_threshold for average in averages]).astype(np.uint8)
    nm = grid.voxel_size_angstrom / 10
    least = PLAIN_CONFIG.membrane_min_area_nm2
    mask = prune_membrane(mask, grid.voxel_size_angstrom, min(least, depth * nm * least**0.5))
    search = SearchRegion.of(mask, grid.voxel_size_angstrom, PLAIN_CONFIG)
    region = search.slab(0, depth)
    scores = np.zeros(grid.shape, np.float32)
    for z in range(depth):
        padded = torch.from_numpy(pad_for_windows(prepared[z : z + 1], size)[0]).to(classifier.device)
        windows = padded.unfold(0, size, 1).unfold(1, size, 1)
        y, x = (torch.from_numpy(i) for i in np.nonzero(region[z]))
        for first in range(0, len(y), BATCH):
            here = slice(first, first + BATCH)
            answer = classifier.probability(classifier.module(windows[y[here], x[here]][:, None]))
            scores[z, y[here], x[here]] = answer.cpu().numpy()
    centre, score = pick(
        SparseScores.from_dense(scores, region),
        voxel_size_angstrom=grid.voxel_size_angstrom,
        smoothing_nm=PLAIN_CONFIG.score_smoothing_nm,
        threshold=picking_threshold(calibration, PLAIN_CONFIG),
        min_distance_nm=PLAIN_CONFIG.min_distance_nm,
    )
    centre = np.clip(grid.to_tomogram(centre), 0, np.array(tomogram.shape) - 1)
    return centre, score if calibration is None else calibration.apply(score)
