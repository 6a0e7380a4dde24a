"""Pad slices by reflection, so that every voxel is the centre of a window."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["pad_by_reflection", "pad_for_windows"]

Slab = TypeVar("Slab", npt.NDArray[np.float32], torch.Tensor)


def pad_for_windows(slab: Slab, size: int) -> Slab:
    """Pad slices by reflection so that the valid windows of the result are centred on the voxels of `slab`.

    A window of size n centred at c covers c - n//2 ... c - n//2 + n - 1. Its top-left corner in the padded
    slice is therefore c itself, and a mask over windows has the shape of the slab.

    Parameters
    ----------
    slab
        (z, y, x) values.
    size
        Side of a window in pixels.

    Returns
    -------
    (z, y + size - 1, x + size - 1) values, an array or a tensor on the same device as `slab`.
    """
    pad = size // 2, size - 1 - size // 2
    return pad_by_reflection(slab, pad, pad)


def pad_by_reflection(slab: Slab, rows: tuple[int, int], columns: tuple[int, int]) -> Slab:
    """Pad slices by reflection, as `numpy.pad` does with mode "reflect".

    Parameters
    ----------
    slab
        (z, y, x) values, an array or a tensor.
    rows, columns
        Number of rows and columns to add before and after; may exceed those of the slab.
    """
    if isinstance(slab, torch.Tensor):
        for axis, pad in ((1, rows), (2, columns)):
            if pad != (0, 0):
                source = np.pad(np.arange(slab.shape[axis]), pad, mode="reflect")
                slab = slab.index_select(axis, torch.from_numpy(source).to(slab.device))
        return slab
    return np.pad(slab, ((0, 0), rows, columns), mode="reflect")
