"""Axes of candidates from the membrane around them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels import _native

__all__ = ["orient"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Gaussian around a candidate in which membrane edges determine the normal; the two membranes of a cell lie
# 12-15 nm from the centre of a base.
NORMAL_SIGMA_NM = 16.0
# Gaussian in which the curvature determines the sign: the cell is on the concave side.
POLARITY_SIGMA_NM = 40.0
# Edges farther away do not count.
REACH_NM = 2 * POLARITY_SIGMA_NM
# Side of the boxes by which edges are sorted.
BOX_NM = 20.0
# Blur of the mask before its gradient is taken; a membrane in a mask is about 7 nm thick.
EDGE_SIGMA_NM = 2.0
# Voxel size of the coarser grid on which gradients are computed; it resolves the edge of a membrane.
GRID_NM = 3.0
# The blurred mask rises by about 0.2 per nm at an edge; a smaller gradient is no edge.
MIN_GRADIENT_PER_NM = 0.02


def orient(
    membrane: npt.NDArray[Any],
    centre_zyx: npt.ArrayLike,
    *,
    voxel_size_angstrom: float,
    grid_nm: float = GRID_NM,
) -> FloatArray:
    """Return the membrane normal at each centre, out of the cell.

    The structure tensor of the mask around the centre gives a first direction. A linear fit of the gradient
    directions against position then gives the normal at the centre itself, also at the rim of a membrane
    that the missing wedge or the edge of the volume cuts. The sign is that of the fitted divergence: the
    normals of a cell's surface diverge outwards. Without membrane in reach (the top and the bottom of a large
    cell, removed by the missing wedge) it is +z above the mean z of the membrane, -z below. The edges of the
    membrane are found on a grid of at most `grid_nm`, and of at least the mask's own voxels.
    """
    centres = np.asarray(centre_zyx, dtype=np.float64).reshape(-1, 3)
    edges = _Edges(membrane, voxel_size_angstrom / 10, grid_nm)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        normals = list(pool.map(lambda centre: _normal_at(edges.around(centre)), centres))
    without = [k for k, normal in enumerate(normals) if normal is None]
    if without:
        voxels = np.array([np.count_nonzero(image) for image in membrane], np.float64)
        mean_z = float(voxels @ np.arange(len(voxels)) / max(1.0, voxels.sum()))
        for k in without:
            normals[k] = np.array([1.0 if centres[k, 0] >= mean_z else -1.0, 0.0, 0.0])
    return np.array(normals, np.float32).reshape(-1, 3)


def _normal_at(edges: FloatArray) -> Float64Array | None:
    """Return the normal amid edges of the membrane, as `_Edges.around` returns them; None without any."""
    offset_nm, direction, length = edges[:3], edges[3:6], edges[6]
    # Row by row: NumPy takes several times as long to reduce three rows.
    z, y, x = offset_nm
    within_reach = (np.abs(z) <= REACH_NM) & (np.abs(y) <= REACH_NM) & (np.abs(x) <= REACH_NM)
    if not within_reach.any():
        return None
    squared_nm = z * z + y * y + x * x
    near = np.exp(squared_nm * np.float32(-0.5 / NORMAL_SIGMA_NM**2)) * length
    gradient = direction * near
    axis = np.linalg.eigh((gradient @ gradient.T).astype(np.float64))[1][:, -1]
    normal, _ = _fit_normal(offset_nm, direction, near, axis)
    wide = np.exp(squared_nm * np.float32(-0.5 / POLARITY_SIGMA_NM**2)) * within_reach
    _, divergence = _fit_normal(offset_nm, direction, wide * length, normal)
    return normal if divergence >= 0 else -normal


class _Edges:
    """The edges of a membrane mask, on a coarser grid, and the gradients of the mask there."""

    def __init__(self, membrane: npt.NDArray[Any], nm_per_voxel: float, grid_nm: float) -> None:
        self._nm_per_voxel = nm_per_voxel
        # Averaged over cubes of `step` voxels, thinner where the volume is; incomplete cubes are left out.
        step = np.minimum(max(1, int(grid_nm / nm_per_voxel)), np.maximum(membrane.shape, 1)).tolist()
        axes = [_edge_axis(n, s, nm_per_voxel) for n, s in zip(membrane.shape, step, strict=True)]
        # Sorted by boxes, so that the boxes side by side along x are one run.
        self._boxes = tuple(axis.boxes for axis in axes)
        mask = membrane if membrane.dtype == np.uint8 else (membrane != 0).view(np.uint8)
        # Rows: position, direction, length of the gradient.
        self._box, self._rows = _native.mask_edges(mask, axes, MIN_GRADIENT_PER_NM)

    def around(self, centre: Float64Array) -> FloatArray:
        """Return the edges within reach of a centre, and some beyond, (7, n).

        The rows are the offset from the centre in nm, the direction of the gradient, and its length.
        """
        centre_nm = centre * self._nm_per_voxel
        low = np.maximum((centre_nm - REACH_NM) // BOX_NM, 0).astype(int)
        high = np.minimum((centre_nm + REACH_NM) // BOX_NM, np.array(self._boxes) - 1).astype(int)
        runs = [self._rows[:, :0]]
        if (low <= high).all():
            z, y = (part.ravel() for part in np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1])
            first, last = (
                np.ravel_multi_index((z, y, np.full(z.size, x)), self._boxes) for x in (low[2], high[2])
            )
            starts, ends = np.searchsorted(self._box, first), np.searchsorted(self._box, last, side="right")
            runs += [self._rows[:, a:b] for a, b in zip(starts, ends, strict=True)]
        edges = np.concatenate(runs, axis=1)
        edges[:3] -= centre_nm.astype(np.float32)[:, None]
        return edges


def _edge_axis(voxels: int, step: int, nm_per_voxel: float) -> _native.EdgeAxis:
    """Return an axis of the coarser grid, in nm, of a mask with so many voxels along it."""
    position_nm = (np.arange(voxels // step) * step + (step - 1) / 2) * nm_per_voxel
    # As scipy.ndimage.gaussian_filter: up to four sigmas.
    sigma = EDGE_SIGMA_NM / (step * nm_per_voxel)
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights = (weights / weights.sum())[radius:]
    box = (position_nm // BOX_NM).astype(np.int64)
    return _native.EdgeAxis(step, step * nm_per_voxel, weights, position_nm.astype(np.float32), box)


def _fit_normal(
    offset_nm: FloatArray, direction: FloatArray, weight: FloatArray, axis: Float64Array
) -> tuple[Float64Array, float]:
    """Fit directions (3, n) linearly against positions; the normal at offset 0 and the divergence (1/nm)."""
    along = axis.astype(np.float32) @ direction
    # Gradients across the axis belong to the sheet's rim.
    steep = np.abs(along)
    # A power of 3 takes as long as all the rest.
    weight = weight * steep * steep * steep
    design = np.concatenate([np.ones((1, offset_nm.shape[1]), np.float32), offset_nm])
    weighted = design * weight
    normal_matrix = (weighted @ design.T).astype(np.float64)
    # Ridge regression: positions along the axis vary little, and curvature above 1/30 nm needs evidence.
    normal_matrix[1:, 1:] += np.eye(3) * weight.sum(dtype=np.float64) * 30.0
    # Opposite faces of a sheet have opposite gradients.
    turned = (weighted * np.sign(along)) @ direction.T
    coefficients = np.linalg.solve(normal_matrix, turned.astype(np.float64))
    normal, jacobian = coefficients[0] / np.linalg.norm(coefficients[0]), coefficients[1:]
    return normal, float(np.trace(jacobian) - normal @ jacobian @ normal)
