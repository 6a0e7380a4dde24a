"""A preselection applied to one tomogram, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass, field
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
FloatArray = npt.NDArray[np.float32]
Values = FloatArray | torch.Tensor


def search_grid(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    classifier: LoadedModel,
    config: DetectConfig | None,
    contrast_sign: int = 1,
) -> tuple[PreparedTomogram, SearchRegion]:
    """Prepare a tomogram for a classifier, and its search region around a membrane mask."""
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    on_grid = grid.mask_from_tomogram(membrane, 0, grid.shape[0])
    return grid, SearchRegion.of(on_grid, grid.voxel_size_angstrom, config or DetectConfig())


@dataclass
class WindowFilter:
    """Narrows the search region of a tomogram; the answer for a voxel is the same in any slab.

    No preselection keeps every window. A coarse scan passes the last options to `classify_slab`.
    """

    preselection: Preselection | None
    grid: PreparedTomogram
    search: SearchRegion
    classifier: LoadedModel
    device: str | torch.device = "cpu"
    precision: str = "float32"
    plan: str = "auto"
    # Scores of scanned slices; see `_scan_slice`.
    _scores: dict[int, FloatArray] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.preselection, PreselectModel):
            sizes, statistics = self.preselection.sizes, self.preselection.statistics
            self._statistics = BlockStatistics(self.grid, self.search, sizes, statistics)

    def apply(self, slab: Values, region: Mask, z0: int) -> Mask:
        """Return the voxels of a region to classify; region and slab are (z, y, x) and begin at slice z0."""
        preselection = self.preselection
        if preselection is None or not region.any():
            return region
        if isinstance(preselection, CoarseScan):
            return self._apply_scan(preselection, slab, region, z0)
        values = slab.cpu().numpy() if isinstance(slab, torch.Tensor) else slab
        if isinstance(preselection, PreselectRule):
            return preselection.apply(pad_for_windows(values, preselection.size), region).view(np.uint8)
        kept = np.array(region, dtype=bool)
        for k in range(z0 // BLOCK_Z, (z0 + len(values) - 1) // BLOCK_Z + 1):
            part = slice(max(0, k * BLOCK_Z - z0), (k + 1) * BLOCK_Z - z0)
            blocks = any_per_square(region[part], BLOCK_YX)
            if blocks.any():
                blocks[blocks] = preselection.keeps(self._statistics.features(k, blocks, values, z0))
                kept[part] &= fill_squares(blocks, BLOCK_YX, kept.shape[1:])
        return kept.view(np.uint8)

    def _apply_scan(self, scan: CoarseScan, slab: Values, region: Mask, z0: int) -> Mask:
        first, last = z0 // scan.stride_z, (z0 + len(slab) - 1) // scan.stride_z
        planes = range(max(0, first - 1), min((self.grid.shape[0] - 1) // scan.stride_z, last + 1) + 1)
        self._scores = {k: scores for k, scores in self._scores.items() if k >= planes[0]}
        for k in planes:
            if k not in self._scores:
                self._scores[k] = self._scan_slice(scan, k, slab, region, z0)
        # "nearest" repeats the outermost plane beyond the ends of the volume, which changes no maximum.
        stack = np.stack([self._scores[k] for k in planes])
        high = ndimage.maximum_filter(stack, 3, mode="nearest") >= scan.level
        kept = np.array(region, dtype=bool)
        for z, image in enumerate(kept, z0):
            image &= fill_squares(high[z // scan.stride_z - planes[0]], scan.stride_yx, image.shape)
        return kept.view(np.uint8)

    def _scan_slice(self, scan: CoarseScan, k: int, slab: Values, region: Mask, z0: int) -> FloatArray:
        """Return the scores of scanned slice k, (blocks along y, blocks along x); 0 outside the region."""
        depth, height, width = self.grid.shape
        stride, z = scan.stride_yx, min(k * scan.stride_z + scan.stride_z // 2, depth - 1)
        if z0 <= z < z0 + len(slab):
            image, allowed = slab[z - z0 : z - z0 + 1], region[z - z0]
        else:
            image, allowed = self.grid.slab(z, z + 1), self.search.slab(z, z + 1)[0]
        scanned = np.zeros((1, height, width), np.uint8)
        centres = slice(stride // 2, None, stride)
        scanned[0, centres, centres] = allowed[centres, centres]
        index, probability = classify_slab(
            image, scanned, self.classifier, device=self.device, precision=self.precision, plan=self.plan
        )
        scores = np.zeros((-(-height // stride), -(-width // stride)), np.float32)
        scores[index // width // stride, index % width // stride] = probability
        return scores
