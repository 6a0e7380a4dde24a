"""A preselection applied to one tomogram, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.classify_slab import classify_slab, runs_of_slices
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.block_statistics import BLOCK_YX, BLOCK_Z, BlockStatistics
from t3ssfast.detection.preselect.preselections import CoarseScan, Preselection, PreselectModel, PreselectRule
from t3ssfast.detection.preselect.slab_scan import PeakLimit, SlabScan
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

    No preselection keeps every window. A coarse scan passes the last options to `classify_slab`; given how
    peaks are found, it keeps only what may become one.
    """

    preselection: Preselection | None
    grid: PreparedTomogram
    search: SearchRegion
    classifier: LoadedModel
    device: str | torch.device = "cpu"
    precision: str = "float32"
    plan: str = "auto"
    peaks: PeakLimit | None = None

    def __post_init__(self) -> None:
        if isinstance(self.preselection, PreselectModel):
            sizes, statistics = self.preselection.sizes, self.preselection.statistics
            self._statistics = BlockStatistics(self.grid, self.search, sizes, statistics)
        if isinstance(self.preselection, CoarseScan):
            options: dict[str, Any] = {"device": self.device, "precision": self.precision, "plan": self.plan}
            classify = partial(classify_slab, model=self.classifier, **options)
            self._scan = SlabScan(self.preselection, self.grid, self.search, classify, self.peaks)

    @property
    def follows_peaks(self) -> bool:
        """Whether only what may become a peak is kept."""
        return isinstance(self.preselection, CoarseScan) and self.peaks is not None

    def apply(self, slab: Values, region: Mask, z0: int) -> Mask:
        """Return the voxels of a region to classify; region and slab are (z, y, x) and begin at slice z0.

        For a coarse scan, the region may go on after the slab.
        """
        preselection = self.preselection
        if preselection is None or not region.any():
            return region
        if isinstance(preselection, CoarseScan):
            return self._scan.keep(slab, region, z0)
        values = slab.cpu().numpy() if isinstance(slab, torch.Tensor) else slab
        kept = np.array(region, dtype=bool)
        if isinstance(preselection, PreselectRule):
            for a, b in runs_of_slices(region):
                padded = pad_for_windows(values[a:b], preselection.size)
                kept[a:b] = preselection.apply(padded, region[a:b])
            return kept.view(np.uint8)
        for k in range(z0 // BLOCK_Z, (z0 + len(values) - 1) // BLOCK_Z + 1):
            part = slice(max(0, k * BLOCK_Z - z0), (k + 1) * BLOCK_Z - z0)
            blocks = any_per_square(region[part], BLOCK_YX)
            if blocks.any():
                blocks[blocks] = preselection.keeps(self._statistics.features(k, blocks, values, z0))
                kept[part] &= fill_squares(blocks, BLOCK_YX, kept.shape[1:])
        return kept.view(np.uint8)
