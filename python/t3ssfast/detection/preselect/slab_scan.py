"""A coarse scan of a tomogram: the windows worth classifying, found from a few that are classified first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.preselections import CoarseScan
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.kernels import _native

__all__ = ["MAX_SPACING_SIGMAS", "PeakLimit", "SlabScan"]

Mask = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
Values = FloatArray | torch.Tensor


class Classify(Protocol):
    """Score windows of a slice (1, y, x) at every `stride`-th row and column; see `classify_slab`."""

    def __call__(
        self, slab: Values, region: Mask, /, *, stride: int
    ) -> tuple[npt.NDArray[np.int64], FloatArray]: ...


# Share of the lowest score of a peak that averaged scores of the second scan must reach. With a half, of 772
# peaks of four calibration tomograms nine were lost, the best with a score of 0.18, and half of the windows.
LIKELY_SHARE = 0.5
# Between scanned slices farther apart than this many sigmas of the smoothing, scores say too little.
MAX_SPACING_SIGMAS = 1.5


@dataclass(frozen=True)
class PeakLimit:
    """What becomes a peak: the lowest smoothed score, and the sigma of the smoothing along z in nm."""

    threshold: float
    smoothing_nm: float


class SlabScan:
    """Keeps the windows of slabs where a scan sees something, whatever the slabs.

    Some windows of every few slices are classified. A block of windows is kept where one in it, or in its 26
    neighbours, scores the scan's level. Given how peaks are found, a second scan of the same slices with half
    the stride follows in these blocks. Its scores are averaged along z, as those of all windows will be, and
    windows are kept near averages that may become a peak.
    """

    def __init__(
        self,
        scan: CoarseScan,
        grid: PreparedTomogram,
        search: SearchRegion,
        classify: Classify,
        peaks: PeakLimit | None,
    ) -> None:
        self._scan, self._grid, self._search, self._classify = scan, grid, search, classify
        self._last_plane = (grid.shape[0] - 1) // scan.stride_z
        self._fine_stride = max(1, scan.stride_yx // 2)
        self._likely_score, self._kernel = 0.0, None
        if peaks is not None:
            sigma = peaks.smoothing_nm * 10 / grid.voxel_size_angstrom / scan.stride_z
            if sigma * MAX_SPACING_SIGMAS >= 1:
                radius = math.ceil(3 * sigma)
                self._kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
                self._likely_score = LIKELY_SHARE * peaks.threshold
        # By the number of the scanned slice.
        self._slices: dict[int, tuple[Values, Mask]] = {}
        self._seen: dict[int, BoolArray] = {}
        self._fine: dict[int, FloatArray] = {}
        self._likely: dict[int, BoolArray] = {}

    def keep(self, slab: Values, region: Mask, z0: int) -> Mask:
        """Return the voxels of a region to classify; region and slab are (z, y, x) and begin at slice z0.

        The region may go on after the slab.
        """
        stride = self._scan.stride_z
        first, last = z0 // stride, (z0 + len(region) - 1) // stride
        reach = 1 if self._kernel is None else len(self._kernel) // 2 + 2
        self._look_at(slab, region, z0, max(0, first - reach), min(last + reach, self._last_plane))
        scanned = range(first, last + 1)
        squares = [([self._blocks(k) for k in scanned], self._scan.stride_yx)]
        if self._kernel is not None:
            squares.append(([self._near_likely(k) for k in scanned], self._fine_stride))
        return _native.keep_in_squares(region, squares, z0 - first * stride, stride)

    def _look_at(self, slab: Values, region: Mask, z0: int, first: int, last: int) -> None:
        """Scan the slices from number first to last, and drop what was before them."""
        self._slices = {k: held for k, held in self._slices.items() if k >= first}
        self._seen = {k: seen for k, seen in self._seen.items() if k >= first}
        self._fine = {k: scores for k, scores in self._fine.items() if k >= first}
        self._likely = {k: likely for k, likely in self._likely.items() if k >= first}
        stride, depth, views = self._scan.stride_z, self._grid.shape[0], set()
        for k in range(first, last + 1):
            if k in self._seen:
                continue
            z = min(k * stride + stride // 2, depth - 1)
            if z0 <= z < z0 + len(slab):
                image, allowed = slab[z - z0 : z - z0 + 1], region[z - z0]
                views.add(k)
            else:
                image, allowed = self._grid.slab(z, z + 1), self._search.slab(z, z + 1)[0]
            side = self._scan.stride_yx
            self._seen[k] = np.asarray(
                self._scores(image, _at_centres(allowed, side), side) >= self._scan.level
            )
            if self._kernel is not None:
                self._slices[k] = image, _at_centres(allowed, self._fine_stride)
        if self._kernel is not None:
            # The outermost slices serve as neighbours alone.
            for k in range(first if first == 0 else first + 1, last + (last == self._last_plane)):
                if k not in self._fine:
                    image, allowed = self._slices.pop(k)
                    inside = self._at_fine_centres(self._blocks(k))
                    self._fine[k] = self._scores(image, allowed & inside, self._fine_stride)
            # Views would keep the slab.
            for k in views & self._slices.keys():
                image, allowed = self._slices[k]
                image = image.clone() if isinstance(image, torch.Tensor) else image.copy()
                self._slices[k] = image, allowed

    def _scores(self, image: Values, chosen: Mask, stride: int) -> FloatArray:
        """Return the scores of the chosen among every `stride`-th window of a slice; 0 for others."""
        index, probability = self._classify(image, chosen[None], stride=stride)
        scores = np.zeros(chosen.shape, np.float32)
        scores.reshape(-1)[index] = probability
        _, height, width = self._grid.shape
        # Squares at the end of an axis may have no centre.
        rows, columns = -(-height // stride), -(-width // stride)
        if chosen.shape == (rows, columns):
            return scores
        padded = np.zeros((rows, columns), np.float32)
        padded[: chosen.shape[0], : chosen.shape[1]] = scores
        return padded

    def _at_fine_centres(self, blocks: BoolArray) -> BoolArray:
        """Blocks at every window of the second scan."""
        rows, columns = (
            np.arange(self._fine_stride // 2, length, self._fine_stride) // self._scan.stride_yx
            for length in self._grid.shape[1:]
        )
        return np.asarray(blocks.take(columns, axis=1).take(rows, axis=0))

    def _beside(self, k: int) -> range:
        """Numbers of the scanned slices that blocks of slice k touch."""
        return range(max(0, k - 1), min(k + 1, self._last_plane) + 1)

    def _blocks(self, k: int) -> BoolArray:
        """Where the first scan sees something in or beside the blocks of scanned slice k."""
        return _native.mark_near([self._seen[n] for n in self._beside(k)])

    def _near_likely(self, k: int) -> BoolArray:
        """Where something in or beside the blocks of scanned slice k may become a peak."""
        for n in self._beside(k):
            if n not in self._likely:
                self._likely[n] = self._find_likely(n)
        return _native.mark_near([self._likely[n] for n in self._beside(k)])

    def _find_likely(self, k: int) -> BoolArray:
        """Where scores of the second scan, averaged along z, may become a peak at scanned slice k."""
        assert self._kernel is not None, "there is no second scan without a smoothing"
        radius = len(self._kernel) // 2
        beside = range(max(0, k - radius), min(k + radius, self._last_plane) + 1)
        weights = self._kernel[[n - k + radius for n in beside]]
        limit = float(self._likely_score * weights.sum())
        return _native.mark_high_sums([self._fine[n] for n in beside], weights.tolist(), limit)


def _at_centres(mask: Mask, stride: int) -> Mask:
    """A copy of a (y, x) mask at every `stride`-th window."""
    return mask[stride // 2 :: stride, stride // 2 :: stride].copy()
