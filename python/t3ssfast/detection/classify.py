"""Classification of a tomogram: the score of every window that the preselection keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.classify_slab import classify_slab, runs_of_slices
from t3ssfast.detection.inputs import window_of
from t3ssfast.detection.lattice import interpolate_scores, lattice_around
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect import PeakLimit, WindowFilter
from t3ssfast.detection.run import Run
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.slices_between import EverySlice, SlicesBetween
from t3ssfast.detection.smooth_scores import Scores, ScoreSmoother, SparseScores, join_scores
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import has_dense_plan
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.checkpoint import Arrays, CheckpointStore, Slab
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["Classification", "classify", "resolve_plan"]

Mask = npt.NDArray[np.uint8]

# Largest stride of classified windows, in windows: less overlap says too little about those between.
MAX_STRIDE_SHARE = 0.1


@dataclass(frozen=True)
class Classification:
    """Smoothed probabilities at the voxels that can matter to picking, and how they came about.

    `searched` counts the windows of the search region, `classified` those that the preselection kept, and
    `resumed_slices` the slices read from a checkpoint.
    """

    scores: SparseScores
    searched: int
    classified: int
    resumed_slices: int


def window_stride(spacing_nm: float, voxel_size_angstrom: float, size: int) -> int:
    """Return how many voxels classified windows are apart along y and x."""
    # The rounding error of the division must not exclude a whole number of voxels.
    voxels = math.floor(spacing_nm * 10 / voxel_size_angstrom + 1e-6)
    return max(1, min(voxels, int(size * MAX_STRIDE_SHARE)))


@retry_on_oom("classifying windows")
def resolve_plan(classifier: LoadedModel, plan: str) -> str:
    """Return "dense" or "windows" for a plan of the configuration.

    Decided once for a tomogram: chosen slab by slab, rounding would depend on the slabs.
    """
    if plan != "auto":
        return plan
    return "dense" if has_dense_plan(classifier.module, window_of(classifier)) else "windows"


@retry_on_oom("classifying windows")
def classify(
    grid: PreparedTomogram,
    search: SearchRegion,
    window_filter: WindowFilter,
    classifier: LoadedModel,
    plan: str,
    threshold: float,
    run: Run,
) -> Classification:
    """Classify the windows of the search region that the preselection keeps, slab by slab.

    All on the classifier's grid; `plan` is "dense" or "windows", `threshold` the lowest score of a peak.
    """
    depth, plane = grid.shape[0], grid.shape[1] * grid.shape[2]
    smoothing_nm = run.config.score_smoothing_nm
    searched = classified = resumed = 0
    stride = window_stride(run.config.classified_spacing_nm, grid.voxel_size_angstrom, window_of(classifier))
    smoother = ScoreSmoother(grid.shape, grid.voxel_size_angstrom, smoothing_nm, threshold, stride)

    def prepare(z0: int, z1: int) -> tuple[Mask, Any]:
        region = search.slab(z0, z1)
        return region, run.read_slab(grid, z0, z1) if region.any() else None

    def kept_scores(slab: Slab, piece: Arrays) -> tuple[int, Scores]:
        index, probability = piece["index"], piece["probability"]
        volume = (slab[1] - slab[0]) * plane
        if index.dtype.kind not in "iu" or probability.dtype != np.float32 or index.ndim != 1:
            raise ValueError("not scores")
        # Differences of unsigned numbers are never negative.
        index = index.astype(np.int64)
        if index.shape != probability.shape or not 0 <= int(piece["near"]) <= volume:
            raise ValueError("not scores of these slices")
        inside = len(index) == 0 or (index[0] >= 0 and index[-1] < volume and np.all(np.diff(index) > 0))
        if not (inside and np.all((probability >= 0) & (probability <= 1))):
            raise ValueError("not probabilities of these slices")
        return int(piece["near"]), (index, probability)

    def keep(values: Any, region: Mask, z0: int) -> Mask:
        with run.stages("preselect"):
            return window_filter.apply(values, region, z0)

    peaks = PeakLimit(threshold, smoothing_nm)
    # By estimate, a CUDA device classifies the windows between before the host has chosen among them.
    on_host = run.device.type == "cpu"
    order: EverySlice | SlicesBetween = EverySlice(keep)
    if on_host and stride == 1 and window_filter.follows_peaks and SlicesBetween.suits(grid, peaks):
        order = SlicesBetween(grid, search, keep, peaks)

    with run.bar("classify windows", depth) as move_to:
        for slices, kept in run.store.runs("scores", depth, kept_scores):
            if kept is not None:
                near, (index, probability) = kept
                order.add([(index, probability)], *slices)
                smoother.add(index + np.int64(slices[0] * plane), probability)
                searched += near
                classified += len(index)
                resumed += slices[1] - slices[0]
                move_to(slices[1])
                continue
            for slab in run.slabs.slabs(
                slices, prepare, "classifying windows", run.slabs.shrink_batch, run.stages
            ):
                with run.slabs.retry(slab):
                    region, values = slab.values
                    near = int(_native.count_nonzero(region).sum())
                    for request in order.requests(values, region, slab.z0):
                        for a, b in runs_of_slices(request.windows):
                            with run.stages("classify"):
                                few = request.windows[a:b]
                                lattice = few if stride == 1 else lattice_around(few, stride)
                                at_points = classify_slab(
                                    request.slices[a:b],
                                    lattice,
                                    classifier,
                                    stride=stride,
                                    device=run.device,
                                    precision=run.config.precision,
                                    plan=plan,
                                    batch_size=run.slabs.batch,
                                )
                                index, probability = interpolate_scores(at_points, lattice, few, stride)
                            index += a * plane
                            request.scores.append((index, probability))
                    scores = order.slab_scores(slab.z0, slab.z1)
                    with run.stages("keep"):
                        _save_scores(run.store, (slab.z0, slab.z1), near, scores, plane)
                    for index, _ in scores:
                        index += slab.z0 * plane
                    smoother.add_parts(scores)
                    searched += near
                    classified += sum(len(index) for index, _ in scores)
                    move_to(slab.z1)
    return Classification(smoother.finish(), searched, classified, resumed)


def _save_scores(store: CheckpointStore, slab: Slab, near: int, scores: Sequence[Scores], plane: int) -> None:
    """Keep the scores of a slab, whose flat indices count from its first voxel, where anything is kept."""
    if store.folder is None:
        return
    index, probability = join_scores(scores)
    small = (slab[1] - slab[0]) * plane < 2**32
    index_as_kept = index.astype(np.uint32) if small else index
    store.save_slab("scores", slab, near=near, index=index_as_kept, probability=probability)
