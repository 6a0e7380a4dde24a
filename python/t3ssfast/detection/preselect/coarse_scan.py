"""Preselection by the classifier itself, on a coarse grid of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.stored import StoredPreselection
from t3ssfast.detection.search_region import SearchRegion, fill_squares
from t3ssfast.errors import InputError

__all__ = ["CoarseScan", "CoarseScanFilter"]

Values = npt.NDArray[np.float32] | torch.Tensor
# Flat indices and probabilities of the windows of a region of a slab.
Classify = Callable[[Values, npt.NDArray[np.uint8]], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class CoarseScan(StoredPreselection):
    """Keep the windows around every `stride`-th window with a high enough score.

    A block of stride voxels is kept where its own scanned window, or that of one of its 26 neighbours, scores
    `level` or more. A particle spans about twenty slices, and scores are high within a few pixels of its
    centre, so a stride of a few voxels does not miss it.

    Parameters
    ----------
    stride_z, stride_yx
        Voxels of the model's grid between scanned windows.
    level
        Minimum score.
    metrics
        Measurements on held-out tomograms.
    """

    KIND: ClassVar = "coarse_scan"
    REQUIRED: ClassVar = {"stride_z": int, "stride_yx": int, "level": float}

    stride_z: int = 4
    stride_yx: int = 4
    level: float = 0.1
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.stride_z, self.stride_yx) < 1 or not 0 <= self.level <= 1:
            raise InputError(
                f"A coarse scan has strides {self.stride_z} and {self.stride_yx} and level {self.level}; "
                "give strides of at least 1 and a level from 0 to 1."
            )


class CoarseScanFilter:
    """Applies a coarse scan to one tomogram, slab by slab from the first."""

    def __init__(
        self, scan: CoarseScan, grid: PreparedTomogram, search: SearchRegion, classify: Classify
    ) -> None:
        self._scan, self._grid, self._search, self._classify = scan, grid, search, classify
        self._scores: dict[int, npt.NDArray[np.float32]] = {}

    def apply(self, slab: Values, region: npt.NDArray[np.uint8], z0: int) -> npt.NDArray[np.bool_]:
        """Return the voxels of a region to keep; `slab` and `region` begin at slice z0."""
        scan, (depth, height, width) = self._scan, self._grid.shape
        first, last = z0 // scan.stride_z, (z0 + len(slab) - 1) // scan.stride_z
        planes = range(max(0, first - 1), min((depth - 1) // scan.stride_z, last + 1) + 1)
        self._scores = {k: scores for k, scores in self._scores.items() if k >= planes[0]}
        for k in planes:
            if k not in self._scores:
                self._scores[k] = self._scan_plane(k, slab, region, z0)
        # "nearest" repeats the outermost plane beyond the ends of the volume, which changes no maximum.
        stack = np.stack([self._scores[k] for k in planes])
        high = ndimage.maximum_filter(stack, 3, mode="nearest") >= scan.level
        kept: npt.NDArray[np.bool_] = region != 0
        for z, image in enumerate(kept, z0):
            image &= fill_squares(high[z // scan.stride_z - planes[0]], scan.stride_yx, (height, width))
        return kept

    def _scan_plane(
        self, k: int, slab: Values, region: npt.NDArray[np.uint8], z0: int
    ) -> npt.NDArray[np.float32]:
        """Return the scores of a scanned slice, (blocks along y, blocks along x); 0 outside the region."""
        depth, height, width = self._grid.shape
        stride, z = self._scan.stride_yx, min(k * self._scan.stride_z + self._scan.stride_z // 2, depth - 1)
        if z0 <= z < z0 + len(slab):
            image, allowed = slab[z - z0 : z - z0 + 1], region[z - z0]
        else:
            image, allowed = self._grid.slab(z, z + 1), self._search.slab(z, z + 1)[0]
        scanned = np.zeros((1, height, width), np.uint8)
        grid = slice(stride // 2, None, stride)
        scanned[0, grid, grid] = allowed[grid, grid]
        index, probability = self._classify(image, scanned)
        scores = np.zeros((-(-height // stride), -(-width // stride)), np.float32)
        scores[index // width // stride, index % width // stride] = probability
        return scores
