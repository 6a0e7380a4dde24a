"""Axes of candidates from the membrane around them."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from t3ssfast.runtime.threads import map_in_threads

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
# Cubes of the coarser grid whose gradients are computed at a time; results do not depend on it.
CHUNK_CUBES = 1 << 20
# Chunks that are computed at a time; each takes about 40 MB.
CHUNKS_AT_A_TIME = 4
# The blurred mask rises by about 0.2 per nm at an edge; a smaller gradient is no edge.
MIN_GRADIENT_PER_NM = 0.02


def orient(
    membrane: npt.NDArray[Any], centre_zyx: npt.ArrayLike, *, voxel_size_angstrom: float
) -> FloatArray:
    """Return the membrane normal at each centre, out of the cell.

    The structure tensor of the mask around the centre gives a first direction. A linear fit of the gradient
    directions against position then gives the normal at the centre itself, also at the rim of a membrane
    that the missing wedge or the edge of the volume cuts. The sign is that of the fitted divergence: the
    normals of a cell's surface diverge outwards. Without membrane in reach (the top and the bottom of a large
    cell, removed by the missing wedge) it is +z above the mean z of the membrane, -z below.
    """
    centres = np.asarray(centre_zyx, dtype=np.float64).reshape(-1, 3)
    edges = _Edges(membrane, voxel_size_angstrom / 10)
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

    def __init__(self, membrane: npt.NDArray[Any], nm_per_voxel: float) -> None:
        self._nm_per_voxel = nm_per_voxel
        # Averaged over cubes of `step` voxels, thinner where the volume is; incomplete cubes are left out.
        step = np.minimum(max(1, int(GRID_NM / nm_per_voxel)), np.maximum(membrane.shape, 1))
        count = np.array(membrane.shape) // step
        thickness = max(1, CHUNK_CUBES // max(1, int(count[1] * count[2])))

        def edges_of_chunk(z: int) -> tuple[npt.NDArray[np.int32], FloatArray]:
            return _edges_of_slices(membrane, step, nm_per_voxel, z, min(z + thickness, int(count[0])))

        chunks = map_in_threads(edges_of_chunk, range(0, int(count[0]), thickness), CHUNKS_AT_A_TIME)
        cube = np.concatenate([np.zeros((0, 3), np.int32), *(chunk for chunk, _ in chunks)])
        gradient = np.concatenate([np.zeros((0, 3), np.float32), *(chunk for _, chunk in chunks)])
        position_nm = (cube * step + (step - 1) / 2) * nm_per_voxel
        length = np.linalg.norm(gradient, axis=1)
        # Sorted by boxes, so that the boxes side by side along x are one run.
        self._boxes = tuple(int(n * nm_per_voxel / BOX_NM) + 1 for n in membrane.shape)
        box = np.ravel_multi_index(tuple((position_nm // BOX_NM).astype(np.int64).T), self._boxes)
        order = np.argsort(box, kind="stable")
        self._box = box[order]
        # Rows: position, direction, length of the gradient.
        rows = np.concatenate([position_nm.T, (gradient / length[:, None]).T, length[None]])
        self._rows: FloatArray = rows.astype(np.float32)[:, order]

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


def _edges_of_slices(
    membrane: npt.NDArray[Any], step: npt.NDArray[np.int64], nm_per_voxel: float, z0: int, z1: int
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Return the cubes, (n, 3), of slices z0 to z1 of the coarser grid that are edges, and the gradients."""
    spacing = step * nm_per_voxel
    sigma = EDGE_SIGMA_NM / spacing
    # The blur reaches four sigmas, and the gradient one cube more.
    halo = math.ceil(4 * sigma[0] + 0.5) + 1
    first, end = max(0, z0 - halo), min(z1 + halo, membrane.shape[0] // int(step[0]))
    # One layer of cubes at a time: the voxels of a chunk take several times the memory of its cubes.
    depth = int(step[0])
    coarse = np.stack([_cube_means(membrane[z * depth : (z + 1) * depth], step) for z in range(first, end)])
    if not coarse.any():
        return np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma, mode="nearest")
    # A gradient depends on one slice on each side.
    low = max(first, z0 - 1)
    coarse = coarse[low - first : z1 + 1 - first]
    inside = slice(z0 - low, z1 - low)
    gradient = [
        np.gradient(coarse, spacing[axis], axis=axis)[inside]
        if coarse.shape[axis] > 1
        else coarse[inside] * 0
        for axis in range(3)
    ]
    squared = sum((component * component for component in gradient), np.zeros_like(gradient[0]))
    edge = np.nonzero(squared > MIN_GRADIENT_PER_NM**2)
    cube = np.stack(edge, axis=1).astype(np.int32) + np.array([z0, 0, 0], np.int32)
    return cube, np.stack([component[edge] for component in gradient], axis=1).astype(np.float32)


def _cube_means(layer: npt.NDArray[Any], step: npt.NDArray[np.int64]) -> FloatArray:
    """Return the fraction of non-zero voxels in each cube of `step` voxels, of a layer one cube thick."""
    # Axis by axis in the smallest sufficient integer type: a tenth of the time of a mean over three axes.
    rows, columns = (slice(0, n // s * s) for n, s in zip(layer.shape[1:], step[1:], strict=True))
    total = (layer[:, rows, columns] != 0).astype(np.min_scalar_type(math.prod(step.tolist())))
    for axis, stride in enumerate(step.tolist()):
        parts = [total[(slice(None),) * axis + (slice(k, None, stride),)] for k in range(stride)]
        total = functools.reduce(np.add, parts)
    return np.asarray(total[0].astype(np.float32) / np.float32(math.prod(step.tolist())))


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
