"""Pad slices by reflection, so that every voxel is the centre of a window."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["pad_by_reflection", "pad_for_windows"]

Slab = TypeVar("Slab", npt.NDArray[np.float32], torch.Tensor)


def pad_for_windows(slab: Slab, size: int) -> Slab:
    """Pad (z, y, x) slices by reflection, so that the valid windows are centred on the voxels of `slab`.

    The top-left corner of a window in the padded slice is its centre in `slab`: a mask over windows has the
    shape of the slab.
    """
    pad = size // 2, (size - 1) // 2
    return pad_by_reflection(slab, pad, pad)


def pad_by_reflection(slab: Slab, rows: tuple[int, int], columns: tuple[int, int]) -> Slab:
    """Pad (z, y, x) slices before and after, as `numpy.pad` does with mode "reflect"."""
    if isinstance(slab, torch.Tensor):
        for axis, pad in ((1, rows), (2, columns)):
            if pad != (0, 0):
                source = np.pad(np.arange(slab.shape[axis]), pad, mode="reflect")
                slab = slab.index_select(axis, torch.from_numpy(source).to(slab.device))
        return slab
    return np.pad(slab, ((0, 0), rows, columns), mode="reflect")
