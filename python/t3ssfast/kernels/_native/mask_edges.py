"""Edges of a mask on the CPU: where the gradient of the blurred mask is steep, on a coarser grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["EdgeAxis", "mask_edges"]


@dataclass(frozen=True)
class EdgeAxis:
    """An axis of the coarser grid, whose cubes have `step` voxels along it; incomplete cubes are left out.

    Parameters
    ----------
    spacing
        Distance of the cubes, by which differences are divided.
    weights
        Of the symmetric blur, at distances of 0, 1 ... cubes. Beyond the ends the outermost cubes repeat.
    position, box
        Of each cube: its position, and the number of its box, ascending from 0.
    """

    step: int
    spacing: float
    weights: npt.NDArray[np.float64]
    position: npt.NDArray[np.float32]
    box: npt.NDArray[np.int64]

    def contiguous(self, voxels: int) -> EdgeAxis:
        """Return the same axis with arrays as the kernel reads them; checked for a mask of so many voxels."""
        weights = np.ascontiguousarray(self.weights, np.float64)
        position = np.ascontiguousarray(self.position, np.float32)
        box = np.ascontiguousarray(self.box, np.int64)
        cubes = voxels // self.step if self.step > 0 else -1
        if not (len(weights) > 0 and position.shape == box.shape == (cubes,)):
            raise ValueError(
                f"expected weights, and positions and boxes of {cubes} cubes, got {len(weights)}, "
                f"{position.shape} and {box.shape}"
            )
        if len(box) and not (box[0] >= 0 and np.all(box[1:] >= box[:-1])):
            raise ValueError("expected boxes in ascending order from 0")
        return EdgeAxis(self.step, float(self.spacing), weights, position, box)

    @property
    def boxes(self) -> int:
        """The number of boxes."""
        return int(self.box[-1]) + 1 if len(self.box) else 0


def mask_edges(
    mask: npt.NDArray[np.uint8], axes: Sequence[EdgeAxis], min_gradient: float, *, threads: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Find the cubes where the gradient of the blurred mask is longer than `min_gradient`.

    The share of a cube's voxels that are inside is blurred, and differentiated between the cubes on both
    sides, as scipy.ndimage.gaussian_filter and numpy.gradient do. Threads do not change results.

    Parameters
    ----------
    mask
        (z, y, x), non-zero inside.
    axes
        Along z, y and x.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    box
        (n,) number of each edge's box in a volume of boxes, ascending; the edges of a box are in C order.
    rows
        (7, n): position, direction of the gradient, and its length.
    """
    if mask.dtype != np.uint8 or mask.ndim != 3 or len(axes) != 3:
        raise ValueError(f"expected a uint8 mask and its 3 axes, got {mask.dtype} {mask.shape}, {len(axes)}")
    mask = np.ascontiguousarray(mask)
    threads = threads or torch.get_num_threads()
    axes = [axis.contiguous(voxels) for axis, voxels in zip(axes, mask.shape, strict=True)]
    z, y, x = (
        (
            voxels,
            axis.step,
            axis.spacing,
            axis.weights.ctypes.data,
            len(axis.weights) - 1,
            axis.position.ctypes.data,
            axis.box.ctypes.data,
            axis.boxes,
        )
        for axis, voxels in zip(axes, mask.shape, strict=True)
    )
    edges = core.MaskEdges(mask.ctypes.data, z, y, x, float(np.float32(min_gradient**2)), threads)
    count = edges.count()
    box, rows = np.empty(count, np.int64), np.empty((7, count), np.float32)
    edges.write(box.ctypes.data, rows.ctypes.data, threads)
    return box, rows
