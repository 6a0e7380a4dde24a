"""Scores of windows, kept sparsely and averaged over neighbouring voxels as they come slab by slab."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.lattice import interpolation_variance
from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["ScoreSmoother", "SparseScores", "join_scores", "smooth_scores"]

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
Scores = tuple[IndexArray, FloatArray]
Shape = tuple[int, int, int]

# Windows at stride 1 overlap by 98%, so the scores of neighbours in a slice hardly differ: little smoothing
# in the plane, and the full smoothing along z, where every slice has its own noise.
LATERAL_SMOOTHING = 0.25
# A Gaussian is cut off at this many sigmas; 0.3% of its weight lies beyond.
KERNEL_SIGMAS = 3.0


@dataclass(frozen=True)
class SparseScores:
    """Probabilities, in [0, 1], at the voxels of a (z, y, x) grid that were classified.

    `index` holds the flat C-order index of each voxel, ascending. `smoothed` says whether a `ScoreSmoother`
    has averaged them.
    """

    index: IndexArray
    value: FloatArray
    shape: Shape
    smoothed: bool = False

    def __post_init__(self) -> None:
        if len(self.index) != len(self.value):
            raise InputError(
                f"There are {len(self.value)} scores for {len(self.index)} voxels; give one for each."
            )

    def __getitem__(self, keep: slice | npt.NDArray[Any]) -> SparseScores:
        """Some of the scores."""
        return replace(self, index=self.index[keep], value=self.value[keep])

    @classmethod
    def from_slabs(cls, slabs: Sequence[Scores], shape: Shape, *, smoothed: bool = False) -> SparseScores:
        """Join the (index, value) pairs of slabs, from the first slice to the last."""
        return cls(*join_scores(slabs), shape, smoothed)

    @classmethod
    def from_dense(cls, volume: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None) -> SparseScores:
        """Take the scores of a (z, y, x) volume, all or where a mask is true."""
        if volume.ndim != 3 or (mask is not None and mask.shape != volume.shape):
            mask_shape = "" if mask is None else f" and their mask has {mask.shape}"
            raise InputError(
                f"Scores have shape {volume.shape}{mask_shape}; give a (z, y, x) volume and a mask of the "
                "same shape."
            )
        index = np.arange(volume.size) if mask is None else np.flatnonzero(mask)
        return cls(index, volume.reshape(-1)[index].astype(np.float32), volume.shape)


def join_scores(slabs: Sequence[Scores]) -> Scores:
    """Join the (index, value) pairs of slabs."""
    index = np.concatenate([np.zeros(0, np.int64), *(index for index, _ in slabs)])
    value = np.concatenate([np.zeros(0, np.float32), *(value for _, value in slabs)], dtype=np.float32)
    return index, value


class ScoreSmoother:
    """Averages scores with their neighbours while slabs arrive, and keeps those that matter to picking.

    Scores are averaged by a Gaussian along z and, with a quarter of its width, in the plane; voxels that were
    not classified count as zeros. Smoothed scores of at least half the threshold are kept: the centroid of a
    peak needs them. The result is that of smoothing all slabs at once, but only as many slices as the
    smoothing reaches are held.

    `smoothing_nm` is the sigma of the Gaussian along z, `threshold` the lowest score of a peak. Scores that
    were interpolated between every `stride`-th one along y and x are averaged by so much less there.
    """

    def __init__(
        self,
        shape: Shape,
        voxel_size_angstrom: float,
        smoothing_nm: float = 5.0,
        threshold: float = 0.5,
        stride: int = 1,
    ) -> None:
        self._shape = shape
        sigma = smoothing_nm / (voxel_size_angstrom / 10)
        variance = (sigma * LATERAL_SMOOTHING) ** 2 - interpolation_variance(stride)
        lateral = math.sqrt(max(0.0, variance))
        self._sigmas = sigma, lateral, lateral
        self._floor = threshold / 2
        self._pending: list[Scores] = []
        self._kept: list[Scores] = []
        # Slices up to here are smoothed.
        self._done = 0

    def add(self, index: IndexArray, value: FloatArray) -> None:
        """Add the scores of a slab, which follows those before; where memory runs out, nothing is added.

        The flat indices are ascending, into the whole grid, and of whole slices.
        """
        self.add_parts([(index, value)])

    def add_parts(self, parts: Sequence[Scores]) -> None:
        """Add the scores of a slab, as `add` does, in parts that follow each other; they are not joined."""
        parts = [part for part in parts if len(part[0])]
        if not parts:
            return
        pending = [*self._pending, *parts]
        reach = _radius(self._sigmas[0])
        end = int(parts[-1][0][-1]) // (self._shape[1] * self._shape[2]) + 1 - reach
        # Shorter steps would mostly smooth the surrounding slices again.
        if end - self._done >= max(reach, 1):
            self._smooth_until(pending, end)
        else:
            self._pending = pending

    @retry_on_oom("smoothing scores")
    def finish(self) -> SparseScores:
        """The smoothed scores of all slabs."""
        if self._done < self._shape[0]:
            self._smooth_until(self._pending, self._shape[0])
        return SparseScores.from_slabs(self._kept, self._shape, smoothed=True)

    def _smooth_until(self, pending: list[Scores], end: int) -> None:
        """Smooth the slices up to `end`, and drop the scores that no later slice needs."""
        plane = self._shape[1] * self._shape[2]
        needed = join_scores(
            [_from_index(part, (end - _radius(self._sigmas[0])) * plane) for part in pending]
        )
        block = _near_high_scores(pending, self._shape, self._floor, _radius(self._sigmas[1]))
        # The surrounding slices serve the average along z alone.
        block = smooth_scores(block, self._sigmas, axes=(0,))
        first, last = (int(np.searchsorted(block.index, n * plane)) for n in (self._done, end))
        block = smooth_scores(block[first:last], self._sigmas, axes=(1, 2))
        kept = _native.scores_from(block.index, block.value, self._shape, self._floor)
        # Nothing changes before everything is computed, so that the call can be repeated.
        self._kept.append(kept)
        self._pending, self._done = [needed], end


def _radius(sigma: float) -> int:
    """Half-width in voxels of a Gaussian kernel with a sigma in voxels."""
    return int(np.ceil(KERNEL_SIGMAS * sigma)) if sigma > 0 else 0


def _from_index(scores: Scores, first: int) -> Scores:
    """The scores from a flat index on."""
    index, value = scores
    start = int(np.searchsorted(index, first))
    return index[start:], value[start:]


def _near_high_scores(slabs: Sequence[Scores], shape: Shape, floor: float, reach: int) -> SparseScores:
    """Join slabs without the columns (all z at one y, x) that cannot hold a smoothed score above `floor`.

    A weighted mean exceeds `floor` only where one of its terms does: in the same column or, by the smoothing
    in the plane, in one up to `reach` voxels away. Exact, and few voxels are left.
    """
    return SparseScores(*_native.scores_near(slabs, shape, floor, 2 * reach), shape)


def smooth_scores(
    scores: SparseScores, sigmas: tuple[float, float, float], axes: tuple[int, ...] = (0, 1, 2)
) -> SparseScores:
    """Average by a Gaussian along each axis in turn, at the classified voxels; `sigmas` in voxels.

    Voxels that were not classified count as zeros. Beyond the ends of the volume the kernel is cut off and
    renormalised.
    """
    value = scores.value
    for axis in axes:
        if sigmas[axis] > 0:
            weights = np.exp(-0.5 * (np.arange(_radius(sigmas[axis]) + 1) / sigmas[axis]) ** 2)
            weights /= weights[0] + 2 * weights[1:].sum()
            value = _native.smooth_along(scores.index, value, scores.shape, axis, weights)
    return replace(scores, value=value)
