"""From the scores of windows to particles: peaks in 3D, one a particle, and its pose on the membrane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from t3ssfast.errors import InputError

__all__ = ["SparseScores", "pick", "separate", "smooth_slabs"]

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
Shape = tuple[int, int, int]

# Windows at stride 1 overlap by 98 %, so their scores hardly differ between neighbours within a slice:
# a light touch in the plane, against the full smoothing along z, where every slice has noise of its own.
LATERAL_SMOOTHING = 0.25
# A Gaussian is cut off at this many sigmas (0.3 % of its weight lies beyond).
KERNEL_SIGMAS = 3.0

# Voxels whose scores are smoothed at a time; it bounds memory and never changes results.
BAND_VOXELS = 1_000_000


@dataclass(frozen=True)
class SparseScores:
    """Probabilities of the voxels of a grid that were judged, and of no others.

    Parameters
    ----------
    index
        (n,) int64, ascending: flat C-order index of each judged voxel.
    value
        (n,) float32 in [0, 1].
    shape
        (z, y, x) of the grid.
    smoothed
        Whether they are those of `smooth_slabs`.
    """

    index: IndexArray
    value: FloatArray
    shape: Shape
    smoothed: bool = False

    def __post_init__(self) -> None:
        if len(self.index) != len(self.value):
            raise InputError(
                f"There are {len(self.value)} scores for {len(self.index)} voxels; give one score a voxel."
            )

    @classmethod
    def from_slabs(
        cls, slabs: Sequence[tuple[IndexArray, FloatArray]], shape: tuple[int, ...], *, smoothed: bool = False
    ) -> SparseScores:
        """Join the (index, value) pairs of slabs given from the first slice to the last."""
        z, y, x = shape
        if not slabs:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), (z, y, x), smoothed)
        index = np.concatenate([part for part, _ in slabs]).astype(np.int64, copy=False)
        value = np.concatenate([part for _, part in slabs]).astype(np.float32, copy=False)
        return cls(index, value, (z, y, x), smoothed)

    @classmethod
    def from_dense(cls, volume: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None) -> SparseScores:
        """The scores of a (z, y, x) volume, only where `mask` is true if one is given."""
        if volume.ndim != 3 or (mask is not None and mask.shape != volume.shape):
            raise InputError(
                f"Scores have shape {volume.shape}"
                + ("" if mask is None else f" and their mask has {mask.shape}")
                + "; give a (z, y, x) volume and a mask of the same shape."
            )
        index = np.arange(volume.size) if mask is None else np.flatnonzero(mask)
        z, y, x = volume.shape
        return cls(index, volume.reshape(-1)[index].astype(np.float32), (z, y, x))


def pick(
    scores: SparseScores | npt.NDArray[Any],
    *,
    voxel_size_angstrom: float,
    smoothing_nm: float = 5.0,
    threshold: float = 0.5,
    min_distance_nm: float = 24.0,
    max_candidates: int = 10_000,
) -> tuple[FloatArray, FloatArray]:
    """Find one peak a particle in the scores of its windows.

    The classifier answers slice by slice, and a particle spans some twenty slices: its scores are averaged
    along z (Gaussian), lightly in the plane, and the peaks of the result are taken from the highest down,
    none closer than `min_distance_nm` to one already taken. Voxels that were not judged count as zeros:
    they are far from the membrane, or a rule has excluded them.

    Parameters
    ----------
    scores
        `SparseScores`, or a dense (z, y, x) volume of probabilities. Those of `smooth_slabs` are taken as
        they are; they must have been made with the same options.
    voxel_size_angstrom
        Of the grid the scores lie on.
    smoothing_nm
        Sigma of the Gaussian along z; a quarter of it is used in the plane.
    threshold
        Peaks below it are not reported.
    min_distance_nm
        Between two peaks, at least.
    max_candidates
        At most so many are returned, the highest.

    Returns
    -------
    centre_zyx
        (n, 3) float32 sub-voxel centres on the grid: the centroid of what stands out above half the peak.
    score
        (n,) float32 in [0, 1], highest first; equal scores in C order of their peaks.
    """
    if not isinstance(scores, SparseScores):
        scores = SparseScores.from_dense(scores)
    nm_per_voxel = voxel_size_angstrom / 10
    if not scores.smoothed:
        scores = smooth_slabs(
            [(scores.index, scores.value)],
            scores.shape,
            voxel_size_angstrom=voxel_size_angstrom,
            smoothing_nm=smoothing_nm,
            threshold=threshold,
        )
    index, value = _local_maxima(scores, threshold)
    place = np.stack(np.unravel_index(index, scores.shape), axis=1)
    kept = separate(place, min_distance_nm / nm_per_voxel)[:max_candidates]
    peaks = index[kept], value[kept]
    # Half the distance to the next candidate belongs to this one.
    radius = max(1, int(min_distance_nm / nm_per_voxel / 2))
    centres = [
        _centroid(scores, index, value, radius)
        for index, value in zip(peaks[0].tolist(), peaks[1].tolist(), strict=True)
    ]
    return np.array(centres, np.float32).reshape(-1, 3), np.clip(peaks[1], 0, 1)


def smooth_slabs(
    slabs: Iterable[tuple[IndexArray, FloatArray]],
    shape: tuple[int, ...],
    *,
    voxel_size_angstrom: float,
    smoothing_nm: float = 5.0,
    threshold: float = 0.5,
) -> SparseScores:
    """The first step of `pick`, for scores that come slab by slab: average them, and keep the high ones.

    Kept are the smoothed scores of at least half the threshold: down to there the centroid of a peak looks.
    No more is held than the slices that the smoothing reaches, and the answer is that for all slabs at once.

    Parameters
    ----------
    slabs
        Ascending flat indices into the whole grid, and their scores; whole slices, from the first to the
        last.
    shape
        (z, y, x) of the grid.
    voxel_size_angstrom, smoothing_nm, threshold
        As for `pick`.
    """
    z, y, x = shape
    sigmas = _sigmas(voxel_size_angstrom, smoothing_nm)
    reach = _radius(sigmas[0])
    pending: list[tuple[IndexArray, FloatArray]] = []
    kept: list[tuple[IndexArray, FloatArray]] = []
    done = 0

    def smooth_until(end: int) -> None:
        """Smooth the slices from `done` up to `end`, and forget those that no later slice needs."""
        block = SparseScores.from_slabs(pending, (z, y, x))
        rest = int(np.searchsorted(block.index, (end - reach) * y * x))
        pending[:] = [(block.index[rest:].copy(), block.value[rest:].copy())]
        block = _near_high_scores(block, threshold / 2, _radius(sigmas[1]))
        # The slices around are there for the average along z alone.
        block = _smooth(block, sigmas, axes=(0,))
        first, last = (int(np.searchsorted(block.index, n * y * x)) for n in (done, end))
        block = SparseScores(block.index[first:last], block.value[first:last], block.shape)
        block = _smooth(block, sigmas, axes=(1, 2))
        high = np.flatnonzero(block.value >= threshold / 2)
        kept.append((block.index[high], block.value[high]))

    for index, value in slabs:
        if len(index):
            pending.append((index, value))
            end = int(index[-1]) // (y * x) + 1 - reach
            # Steps shorter than the reach would mostly smooth what surrounds them.
            if end - done >= max(reach, 1):
                smooth_until(end)
                done = end
    smooth_until(z)
    return SparseScores.from_slabs(kept, shape, smoothed=True)


def _sigmas(voxel_size_angstrom: float, smoothing_nm: float) -> tuple[float, float, float]:
    """Sigmas in voxels of the smoothing along z, y and x."""
    sigma = smoothing_nm / (voxel_size_angstrom / 10)
    return sigma, sigma * LATERAL_SMOOTHING, sigma * LATERAL_SMOOTHING


def _radius(sigma: float) -> int:
    """Voxels to either side that a Gaussian of `sigma` voxels reaches."""
    return int(np.ceil(KERNEL_SIGMAS * sigma)) if sigma > 0 else 0


def _near_high_scores(scores: SparseScores, floor: float, reach: int) -> SparseScores:
    """Drop columns (all z at one y, x) that cannot hold a smoothed score above `floor`.

    A weighted mean is above `floor` only where one of its terms is: in the same column or, through the
    smoothing in the plane, in one up to `reach` voxels away. Exact, and it leaves few of the voxels.
    """
    _, y, x = scores.shape
    high = np.zeros(y * x, bool)
    high[scores.index[scores.value >= floor] % (y * x)] = True
    near = ndimage.maximum_filter(high.reshape(y, x), size=4 * reach + 1, mode="constant").reshape(-1)
    keep = near[scores.index % (y * x)]
    return SparseScores(scores.index[keep], scores.value[keep], scores.shape)


def _smooth(
    scores: SparseScores, sigmas: tuple[float, float, float], axes: tuple[int, ...] = (0, 1, 2)
) -> SparseScores:
    """Average with neighbours along each axis in turn, at the judged voxels.

    Lines are done in bands of some `BAND_VOXELS` voxels: working memory is several times that of a band.
    """
    value, shape = scores.value, scores.shape
    place = _coordinates(scores.index, shape)
    for axis in axes:
        sigma = sigmas[axis]
        if sigma <= 0 or not len(value):
            continue
        # A line along one axis stays within a band of another.
        across = 1 if axis == 0 else 0
        bands = min(shape[across], -(-len(value) // BAND_VOXELS))
        number_of = (np.arange(shape[across]) * bands // shape[across]).astype(np.int32)
        band = number_of[place[across]] if bands > 1 else None
        smooth = np.empty_like(value)
        for number in range(bands):
            here = np.arange(len(value)) if band is None else np.flatnonzero(band == number)
            if len(here):
                position = place[axis][here]
                line = scores.index[here] - position * np.int64(math.prod(shape[axis + 1 :]))
                if axis < 2:  # along x they follow each other already
                    order = np.argsort(line * shape[axis] + position)
                    here, line, position = here[order], line[order], position[order]
                smooth[here] = _smooth_lines(value[here], line, position, shape[axis], sigma)
        value = smooth
    return SparseScores(scores.index, value, scores.shape)


def _coordinates(index: IndexArray, shape: Shape) -> tuple[npt.NDArray[np.int32], ...]:
    """(z, y, x) of flat indices; one division of 64 bits, which are slow, and one of 32 bits."""
    plane = shape[1] * shape[2]
    z = index // plane
    within = (index - z * plane).astype(np.int64 if plane >= 2**31 else np.uint32)
    y = within // shape[2]
    return z.astype(np.int32), y.astype(np.int32), (within - y * shape[2]).astype(np.int32)


def _smooth_lines(
    value: FloatArray,
    line: IndexArray,
    position: npt.NDArray[np.signedinteger[Any]],
    length: int,
    sigma: float,
) -> FloatArray:
    """Gaussian average along lines of which only some positions hold a value; the others count as zeros.

    What lies beyond the ends of a line counts for nothing: the average is over what is inside.
    Lines are laid end to end with gaps cut down to the reach of the kernel, so that one dense 1D filter
    does them all, at a cost that follows the number of values and not the length of the lines.
    """
    radius = _radius(sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    step = np.diff(position)
    apart = (np.diff(line) != 0) | (step > radius)
    slot = np.concatenate([[0], np.cumsum(np.where(apart, radius + 1, step))])
    laid_out = np.zeros(slot[-1] + 1, np.float32)
    laid_out[slot] = value
    total = ndimage.correlate1d(laid_out, kernel, mode="constant")[slot]
    inside = ndimage.correlate1d(np.ones(length, np.float32), kernel, mode="constant")[position]
    smooth: FloatArray = total / inside
    return smooth


def _local_maxima(scores: SparseScores, threshold: float) -> tuple[IndexArray, FloatArray]:
    """Voxels at or above `threshold` that no neighbour (26) exceeds, highest first.

    Of a plateau, the first voxel in C order is taken for its maximum.
    """
    keep = (scores.value >= threshold) & (scores.value > 0)
    index, value = scores.index[keep], scores.value[keep]
    position = np.stack(np.unravel_index(index, scores.shape), axis=1)
    is_maximum = np.ones(len(index), bool)
    limits = np.array(scores.shape)
    for offset in np.ndindex(3, 3, 3):
        shift = np.array(offset) - 1
        if not shift.any() or not len(index):
            continue
        other = position + shift
        there = np.flatnonzero(((other >= 0) & (other < limits)).all(axis=1))
        wanted = np.ravel_multi_index(tuple(other[there].T), scores.shape)
        found = np.minimum(np.searchsorted(index, wanted), len(index) - 1)
        same = index[found] == wanted
        here, found = there[same], found[same]
        beaten = (value[found] > value[here]) | ((value[found] == value[here]) & (found < here))
        is_maximum[here[beaten]] = False
    index, value = index[is_maximum], value[is_maximum]
    order = np.lexsort((index, -value))
    return index[order], value[order]


def separate(place_zyx: npt.NDArray[Any], distance: float) -> IndexArray:
    """Which of (n, 3) places to keep, from the first on, so that none is nearer than `distance` to one."""
    open_ = np.ones(len(place_zyx), bool)
    kept: list[int] = []
    if not len(place_zyx):
        return np.array(kept, np.int64)
    tree = cKDTree(place_zyx)
    for i in range(len(place_zyx)):
        if open_[i]:
            kept.append(i)
            # A hair less than the distance: two exactly that far apart both stand.
            open_[tree.query_ball_point(place_zyx[i], distance * (1 - 1e-9))] = False
    return np.array(kept, np.int64)


def _centroid(scores: SparseScores, peak: int, value: float, radius: int) -> npt.NDArray[np.float64]:
    """Centre of what exceeds half of a peak, within `radius` voxels of it."""
    centre = np.array(np.unravel_index(peak, scores.shape))
    low = np.maximum(centre - radius, 0)
    high = np.minimum(centre + radius + 1, scores.shape)
    rows = np.arange(low[0], high[0])[:, None] * scores.shape[1] + np.arange(low[1], high[1])
    starts = np.searchsorted(scores.index, rows.reshape(-1) * scores.shape[2] + low[2])
    stops = np.searchsorted(scores.index, rows.reshape(-1) * scores.shape[2] + high[2])
    entries = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    offset = np.stack(np.unravel_index(scores.index[entries], scores.shape), axis=1) - centre
    weight = np.maximum(scores.value[entries].astype(np.float64) - value / 2, 0)
    weight[(offset**2).sum(axis=1) > radius**2] = 0
    total = weight.sum()
    return centre + (weight @ offset / total if total > 0 else 0)
