"""A preselection applied to one tomogram, slab by slab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.block_statistics import BLOCK_YX, BLOCK_Z, BlockStatistics
from t3ssfast.detection.preselect.preselections import CoarseScan, Preselection, PreselectModel, PreselectRule
from t3ssfast.detection.search_region import SearchRegion, any_per_square, fill_squares
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.models import LoadedModel
from t3ssfast.tomogram import Tomogram

__all__ = ["WindowFilter", "search_grid"]

Mask = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32] | torch.Tensor


def search_grid(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    classifier: LoadedModel,
    config: DetectConfig | None,
    contrast_sign: int = 1,
) -> tuple[PreparedTomogram, SearchRegion]:
    """Prepare a tomogram for a classifier, and its search region around a membrane mask."""
    prepared = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    on_grid = prepared.mask_from_tomogram(membrane, 0, prepared.shape[0])
    return prepared, SearchRegion.of(on_grid, prepared.voxel_size_angstrom, config or DetectConfig())


class WindowFilter:
    """Narrows the search region of a tomogram; the answer for a voxel is the same in any slab.

    Parameters
    ----------
    preselection
        None keeps every window.
    grid, search
        The tomogram on the classifier's grid, and the search region there.
    classifier, device, precision, plan
        For a coarse scan; as for `classify_slab`.
    """

    def __init__(
        self,
        preselection: Preselection | None,
        grid: PreparedTomogram,
        search: SearchRegion,
        classifier: LoadedModel,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        plan: str = "auto",
    ) -> None:
        self._preselection = preselection
        if isinstance(preselection, CoarseScan):
            classify = partial(classify_slab, model=classifier, device=device, precision=precision, plan=plan)
            self._coarse_scan = _CoarseScanFilter(preselection, grid, search, classify)
        if isinstance(preselection, PreselectModel):
            self._statistics = BlockStatistics(grid, search, preselection.sizes, preselection.statistics)

    def apply(self, slab: Values, region: Mask, z0: int) -> Mask:
        """Return the voxels of a (z, y, x) region whose windows should be classified.

        Region and slab, prepared values on any device, begin at slice z0.
        """
        preselection = self._preselection
        if preselection is None or not region.any():
            return region
        if isinstance(preselection, CoarseScan):
            return self._coarse_scan.apply(slab, region, z0).view(np.uint8)
        values = slab.cpu().numpy() if isinstance(slab, torch.Tensor) else slab
        if isinstance(preselection, PreselectRule):
            return preselection.apply(pad_for_windows(values, preselection.size), region).view(np.uint8)
        kept: BoolArray = region != 0
        for k in range(z0 // BLOCK_Z, (z0 + len(values) - 1) // BLOCK_Z + 1):
            part = slice(max(0, k * BLOCK_Z - z0), (k + 1) * BLOCK_Z - z0)
            blocks = any_per_square(region[part].any(axis=0), BLOCK_YX)
            if blocks.any():
                blocks[blocks] = preselection.keeps(self._statistics.features(k, blocks, values, z0))
                kept[part] &= fill_squares(blocks, BLOCK_YX, kept.shape[1:])
        return kept.view(np.uint8)


@dataclass
class _CoarseScanFilter:
    """Applies a coarse scan to one tomogram, slab by slab."""

    scan: CoarseScan
    grid: PreparedTomogram
    search: SearchRegion
    classify: Callable[[Values, Mask], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
    _scores: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict, init=False)

    def apply(self, slab: Values, region: Mask, z0: int) -> BoolArray:
        """Return the voxels of a region to keep; `slab` and `region` begin at slice z0."""
        scan, (depth, height, width) = self.scan, self.grid.shape
        first, last = z0 // scan.stride_z, (z0 + len(slab) - 1) // scan.stride_z
        planes = range(max(0, first - 1), min((depth - 1) // scan.stride_z, last + 1) + 1)
        self._scores = {k: scores for k, scores in self._scores.items() if k >= planes[0]}
        for k in planes:
            if k not in self._scores:
                self._scores[k] = self._scan_plane(k, slab, region, z0)
        # "nearest" repeats the outermost plane beyond the ends of the volume, which changes no maximum.
        stack = np.stack([self._scores[k] for k in planes])
        high = ndimage.maximum_filter(stack, 3, mode="nearest") >= scan.level
        kept: BoolArray = region != 0
        for z, image in enumerate(kept, z0):
            image &= fill_squares(high[z // scan.stride_z - planes[0]], scan.stride_yx, (height, width))
        return kept

    def _scan_plane(self, k: int, slab: Values, region: Mask, z0: int) -> npt.NDArray[np.float32]:
        """Return the scores of a scanned slice, (blocks along y, blocks along x); 0 outside the region."""
        depth, height, width = self.grid.shape
        stride, z = self.scan.stride_yx, min(k * self.scan.stride_z + self.scan.stride_z // 2, depth - 1)
        if z0 <= z < z0 + len(slab):
            image, allowed = slab[z - z0 : z - z0 + 1], region[z - z0]
        else:
            image, allowed = self.grid.slab(z, z + 1), self.search.slab(z, z + 1)[0]
        scanned = np.zeros((1, height, width), np.uint8)
        grid = slice(stride // 2, None, stride)
        scanned[0, grid, grid] = allowed[grid, grid]
        index, probability = self.classify(image, scanned)
        scores = np.zeros((-(-height // stride), -(-width // stride)), np.float32)
        scores[index // width // stride, index % width // stride] = probability
        return scores
