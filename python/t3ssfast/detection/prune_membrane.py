"""Removal of small connected components from a membrane mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.kernels import _native
from t3ssfast.runtime.memory import is_out_of_memory, retry_on_oom

__all__ = ["MembraneSurvey", "prune_membrane"]

Mask = npt.NDArray[np.uint8]

# Averaged over directions, the exposed faces of voxels have 1.5 times the area of the surface
# (Cauchy-Crofton).
FACES_PER_AREA = 1.5


class MembraneSurvey:
    """Counts of levels and connected components of a membrane whose slabs are finished one after another.

    `histogram` counts the voxels of each level. `components` are those of levels over `above`; None where
    memory ran out for them. `threads` are those that it computes in.
    """

    def __init__(self, shape_yx: tuple[int, int], above: int, threads: int = 1) -> None:
        self._threads = threads
        self.histogram = np.zeros(256, np.int64)
        self.components: _native.MaskComponents | None = _native.MaskComponents(shape_yx, above)

    def add(self, levels: Mask) -> None:
        """Add the slices of the next slab, (z, y, x)."""
        _native.count_levels(levels, self.histogram, threads=self._threads)
        if self.components is None:
            return
        try:
            self.components.add(levels, threads=self._threads)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # Part of the slab may have been added. `prune_membrane` looks for them once more.
            self.components = None


@retry_on_oom("removing small membrane components")
def prune_membrane(
    mask: npt.NDArray[Any],
    voxel_size_angstrom: float,
    min_area_nm2: float,
    *,
    above: int = 0,
    out: Mask | None = None,
    components: _native.MaskComponents | None = None,
) -> Mask:
    """Remove the connected components (26-connectivity) whose surface is small.

    The area of a component is half of its exposed voxel faces, both sides of a sheet being exposed, divided
    by the 1.5-fold excess of voxel faces over a smooth surface. Voxels with values over `above` are membrane;
    those of removed components are lowered to `above`. `out`, C-contiguous, may be the mask itself.
    `components` are those of the mask, where they are known already.
    """
    kept = np.empty(mask.shape, np.uint8) if out is None else out
    if kept is not mask:
        kept[...] = mask
    if min_area_nm2 <= 0 or not mask.size:
        return kept
    if components is None:
        height, width = mask.shape[1:]
        components = _native.MaskComponents((height, width), above)
        components.add(kept)
    face_nm2 = (voxel_size_angstrom / 10.0) ** 2
    area = components.faces() * face_nm2 / (2.0 * FACES_PER_AREA)
    components.lower(kept, 0, area >= min_area_nm2)
    return kept
