"""A preselection applied to one tomogram, slab by slab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.classify import classify_slab
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.block_statistics import BLOCK_YX, BLOCK_Z, BlockStatistics
from t3ssfast.detection.preselect.coarse_scan import CoarseScan, CoarseScanFilter, Values
from t3ssfast.detection.preselect.model import PreselectModel
from t3ssfast.detection.preselect.rule import PreselectRule
from t3ssfast.detection.search_region import SearchRegion, any_per_square, fill_squares
from t3ssfast.errors import ModelError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.models import LoadedModel

__all__ = ["Preselection", "WindowFilter", "read_preselection"]

Preselection = PreselectRule | PreselectModel | CoarseScan
KINDS: dict[str, type[Preselection]] = {
    "rule": PreselectRule,
    "model": PreselectModel,
    "coarse_scan": CoarseScan,
    # As earlier versions wrote it.
    "look": CoarseScan,
}


def read_preselection(entries: Mapping[str, Any] | None) -> Preselection | None:
    """Read the preselection in a model's metadata; None without one.

    Raises
    ------
    ModelError
        The preselection is of an unknown kind or cannot be read.
    """
    if entries is None:
        return None
    kind = entries.get("kind", "rule")
    if kind not in KINDS:
        raise ModelError(
            f"The model's preselection is of the unknown kind {kind!r}; update t3ssfast, or train the model "
            "again."
        )
    return KINDS[kind].from_dict(entries)


class WindowFilter:
    """Narrows the search region of a tomogram; the answer for a voxel is the same in any slab.

    Parameters
    ----------
    preselection
        None keeps every window.
    grid
        The tomogram on the classifier's grid.
    search
        The search region on that grid.
    classifier
        Classifier for a coarse scan.
    device, precision, plan
        As for `classify_slab`.
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
        def classify(
            slab: Values, region: npt.NDArray[np.uint8]
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
            return classify_slab(slab, region, classifier, device=device, precision=precision, plan=plan)

        self._preselection = preselection
        if isinstance(preselection, CoarseScan):
            self._coarse_scan = CoarseScanFilter(preselection, grid, search, classify)
        if isinstance(preselection, PreselectModel):
            self._statistics = BlockStatistics(
                grid, search, sizes=preselection.sizes, statistics=preselection.statistics
            )

    def apply(self, slab: Values, region: npt.NDArray[np.uint8], z0: int) -> npt.NDArray[np.uint8]:
        """Return the voxels of a region whose windows should be classified.

        Parameters
        ----------
        slab
            (z, y, x) prepared values, an array or a tensor on any device.
        region
            (z, y, x) voxels of the search region.
        z0
            First slice of both.
        """
        preselection = self._preselection
        if preselection is None or not region.any():
            return region
        if isinstance(preselection, CoarseScan):
            return self._coarse_scan.apply(slab, region, z0).view(np.uint8)
        values = slab.cpu().numpy() if isinstance(slab, torch.Tensor) else slab
        if isinstance(preselection, PreselectRule):
            return preselection.apply(pad_for_windows(values, preselection.size), region).view(np.uint8)
        kept: npt.NDArray[np.bool_] = region != 0
        for k in range(z0 // BLOCK_Z, (z0 + len(values) - 1) // BLOCK_Z + 1):
            part = slice(max(0, k * BLOCK_Z - z0), (k + 1) * BLOCK_Z - z0)
            blocks = any_per_square(np.asarray(region[part].any(axis=0)), BLOCK_YX)
            if blocks.any():
                blocks[blocks] = preselection.keeps(self._statistics.features(k, blocks, values, z0))
                kept[part] &= fill_squares(blocks, BLOCK_YX, kept.shape[1:])
        return kept.view(np.uint8)
