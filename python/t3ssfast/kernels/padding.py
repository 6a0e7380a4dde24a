"""Padding of slices by reflection, so that every voxel is the centre of a window."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["pad_by_reflection", "pad_for_windows"]

Slab = TypeVar("Slab", npt.NDArray[np.float32], torch.Tensor)


def pad_for_windows(slab: Slab, size: int) -> Slab:
    """Pad slices by reflection, so that the valid windows of the result are centred on the voxels of `slab`.

    A window of size n centred at c covers c - n//2 ... c - n//2 + n - 1: its top-left corner in the padded
    slice is c itself, and a mask over windows has the shape of the slab.

    Parameters
    ----------
    slab
        (z, y, x) values.
    size
        Side of the windows in pixels.

    Returns
    -------
    (z, y + size - 1, x + size - 1) values, of the kind of `slab` and on its device.
    """
    around = size // 2, size - 1 - size // 2
    return pad_by_reflection(slab, around, around)


def pad_by_reflection(slab: Slab, rows: tuple[int, int], columns: tuple[int, int]) -> Slab:
    """Slices with so many rows more before and after, and columns.

    Parameters
    ----------
    slab
        (z, y, x) values.
    rows, columns
        How many; they may be more than there are, as for `numpy.pad`.
    """
    if isinstance(slab, torch.Tensor):
        for axis, pad in ((1, rows), (2, columns)):
            if pad != (0, 0):
                source = np.pad(np.arange(slab.shape[axis]), pad, mode="reflect")
                slab = slab.index_select(axis, torch.from_numpy(source).to(slab.device))
        return slab
    return np.pad(slab, ((0, 0), rows, columns), mode="reflect")
