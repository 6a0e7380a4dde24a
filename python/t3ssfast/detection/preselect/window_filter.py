"""A preselection at work on one tomogram, slab by slab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.blocks import BLOCK_YX, BLOCK_Z, BlockStatistics, in_blocks
from t3ssfast.detection.preselect.coarse_scan import CoarseScan
from t3ssfast.detection.preselect.model import PreselectModel
from t3ssfast.detection.preselect.rule import PreselectRule, apply_rule
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.errors import ModelError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.models import LoadedModel

__all__ = ["Preselection", "WindowFilter", "read_preselection"]

Preselection = PreselectRule | PreselectModel | CoarseScan
FloatArray = npt.NDArray[np.float32]


def read_preselection(entries: Mapping[str, Any] | None) -> Preselection | None:
    """The preselection in a model's metadata, None where it carries none.

    Raises
    ------
    ModelError
        If it is of no known kind or cannot be read.
    """
    if entries is None:
        return None
    kinds: dict[str, type[Preselection]] = {
        "rule": PreselectRule,
        "model": PreselectModel,
        "look": CoarseScan,
    }
    # Rules were there first, without a kind.
    kind = entries.get("kind", "rule")
    if kind not in kinds:
        raise ModelError(
            f"A preselection is of the kind {kind!r}; give one of {', '.join(kinds)}, or update t3ssfast."
        )
    return kinds[kind].from_dict(entries)


class WindowFilter:
    """Narrows the search region of a tomogram; the answer for a voxel does not depend on the slab.

    Parameters
    ----------
    preselection
        By what; None lets everything pass.
    grid
        The tomogram on the classifier's grid.
    search
        What is narrowed, on that grid.
    classifier
        Takes the looks.
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
        self.preselection = preselection
        self._grid, self._search, self._classifier = grid, search, classifier
        self._how = {"device": device, "precision": precision, "plan": plan}
        self._planes: dict[int, FloatArray] = {}
        self._statistics = (
            BlockStatistics(grid, search, sizes=preselection.sizes, statistics=preselection.statistics)
            if isinstance(preselection, PreselectModel)
            else None
        )

    def narrow(
        self, slab: FloatArray | torch.Tensor, region: npt.NDArray[np.uint8], z0: int
    ) -> npt.NDArray[np.uint8]:
        """What of the region is worth the classifier.

        Parameters
        ----------
        slab
            (z, y, x) prepared values, in an array or on a device.
        region
            (z, y, x) voxels of the search region.
        z0
            First slice of both.
        """
        if self.preselection is None or not region.any():
            return region
        if isinstance(self.preselection, CoarseScan):
            return self._near_looks(self.preselection, slab, region, z0).view(np.uint8)
        if isinstance(slab, torch.Tensor):
            slab = slab.cpu().numpy()
        if isinstance(self.preselection, PreselectRule):
            padded = pad_for_windows(slab, self.preselection.size)
            kept = apply_rule(self.preselection, padded, region)
        else:
            kept = self._in_good_blocks(self.preselection, slab, region, z0)
        return kept.view(np.uint8)

    def _in_good_blocks(
        self, model: PreselectModel, slab: FloatArray, region: npt.NDArray[np.uint8], z0: int
    ) -> npt.NDArray[np.bool_]:
        assert self._statistics is not None, "a model comes with its statistics"
        kept: npt.NDArray[np.bool_] = region != 0
        _, height, width = kept.shape
        rows, columns = np.arange(height) // BLOCK_YX, np.arange(width) // BLOCK_YX
        for k in range(z0 // BLOCK_Z, (z0 + len(slab) - 1) // BLOCK_Z + 1):
            here = slice(max(0, k * BLOCK_Z - z0), (k + 1) * BLOCK_Z - z0)
            blocks = in_blocks(np.asarray(region[here].any(axis=0)))
            if blocks.any():
                good = blocks.copy()
                good[blocks] = model.keeps(self._statistics.features(k, blocks, slab, z0))
                kept[here] &= good[rows[:, None], columns]
        return kept

    def _near_looks(
        self, look: CoarseScan, slab: FloatArray | torch.Tensor, region: npt.NDArray[np.uint8], z0: int
    ) -> npt.NDArray[np.bool_]:
        depth, height, width = self._grid.shape
        first, last = z0 // look.stride_z, (z0 + len(slab) - 1) // look.stride_z
        planes = range(max(0, first - 1), min((depth - 1) // look.stride_z, last + 1) + 1)
        for k in [k for k in self._planes if k < planes[0]]:
            del self._planes[k]
        stack = np.stack([self._plane(look, k, slab, region, z0) for k in planes])
        # Beyond the ends of the volume "nearest" repeats the last plane, which changes no maximum.
        worth = ndimage.maximum_filter(stack, 3, mode="nearest") >= look.level
        block_z = np.arange(z0, z0 + len(slab)) // look.stride_z - planes[0]
        kept: npt.NDArray[np.bool_] = region != 0
        rows, columns = np.arange(height) // look.stride_yx, np.arange(width) // look.stride_yx
        for z, k in enumerate(block_z.tolist()):
            kept[z] &= worth[k][rows[:, None], columns]
        return kept

    def _plane(
        self,
        look: CoarseScan,
        k: int,
        slab: FloatArray | torch.Tensor,
        region: npt.NDArray[np.uint8],
        z0: int,
    ) -> FloatArray:
        """Scores of the looks of one slice, (blocks along y, blocks along x); 0 outside of the region."""
        if k in self._planes:
            return self._planes[k]
        depth, height, width = self._grid.shape
        image: FloatArray | torch.Tensor
        step, z = look.stride_yx, min(k * look.stride_z + look.stride_z // 2, depth - 1)
        if z0 <= z < z0 + len(slab):
            image, near = slab[z - z0 : z - z0 + 1], region[z - z0]
        else:
            near = self._search.slab(z, z + 1)[0]
            image = self._grid.slab(z, z + 1)
        looks = np.zeros((1, height, width), np.uint8)
        looks[0, step // 2 :: step, step // 2 :: step] = near[step // 2 :: step, step // 2 :: step]
        plane = np.zeros((-(-height // step), -(-width // step)), np.float32)
        index, probability = classify_slab(image, looks, self._classifier, **self._how)  # type: ignore[arg-type]
        plane[index // width // step, index % width // step] = probability
        self._planes[k] = plane
        return plane
