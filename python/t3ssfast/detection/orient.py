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

__all__ = ["orient"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Gaussian around a candidate in which membrane edges determine the normal; the two membranes of a cell lie
# 12-15 nm from the centre of a base.
NORMAL_SIGMA_NM = 16.0
# Gaussian in which the curvature determines the sign: the cell is on the concave side.
POLARITY_SIGMA_NM = 40.0
# Blur of the mask before its gradient is taken; a membrane in a mask is about 7 nm thick.
EDGE_SIGMA_NM = 2.0
# Voxel size of the coarser grid on which gradients are computed; it resolves the edge of a membrane.
GRID_NM = 3.0
# Memory for candidates oriented in parallel, where it suffices for more than one.
MAX_PARALLEL_BYTES = 256 << 20
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
    nm_per_voxel = voxel_size_angstrom / 10
    # A thread holds a block of the mask, twice, and its gradients on the coarser grid.
    side = 4 * POLARITY_SIGMA_NM / nm_per_voxel
    block_bytes = 2 * side**3 + 32 * (side / max(1, int(GRID_NM / nm_per_voxel))) ** 3
    threads = max(1, min(torch.get_num_threads(), int(MAX_PARALLEL_BYTES / block_bytes)))
    with ThreadPoolExecutor(threads) as pool:
        normals = list(pool.map(lambda centre: _normal_at(membrane, centre, nm_per_voxel), centres))
    without = [k for k, normal in enumerate(normals) if normal is None]
    if without:
        voxels = np.array([np.count_nonzero(image) for image in membrane], np.float64)
        mean_z = float(voxels @ np.arange(len(voxels)) / max(1.0, voxels.sum()))
        for k in without:
            normals[k] = np.array([1.0 if centres[k, 0] >= mean_z else -1.0, 0.0, 0.0])
    return np.array(normals, np.float32).reshape(-1, 3)


def _normal_at(membrane: npt.NDArray[Any], centre: Float64Array, nm_per_voxel: float) -> Float64Array | None:
    """Return the normal at one centre, or None without membrane in reach."""
    offset_nm, gradient = _mask_gradient(membrane, centre, nm_per_voxel)
    if not len(gradient):
        return None
    length = np.sqrt(_squared_lengths(gradient))
    direction = gradient / length[:, None]
    squared_nm = _squared_lengths(offset_nm)
    near = np.exp(-0.5 * squared_nm / NORMAL_SIGMA_NM**2)
    axis = np.linalg.eigh((gradient * near[:, None]).T @ gradient)[1][:, -1]
    normal, _ = _fit_normal(offset_nm, direction, near * length, axis)
    wide = np.exp(-0.5 * squared_nm / POLARITY_SIGMA_NM**2)
    _, divergence = _fit_normal(offset_nm, direction, wide * length, normal)
    return normal if divergence >= 0 else -normal


def _squared_lengths(vectors: Float64Array) -> Float64Array:
    # NumPy's sum over so short an axis takes several times as long.
    z, y, x = vectors.T
    return np.asarray(z * z + y * y + x * x)


def _mask_gradient(
    membrane: npt.NDArray[Any], centre: Float64Array, nm_per_voxel: float
) -> tuple[Float64Array, Float64Array]:
    """Return the offsets (nm) of edge voxels of the mask around `centre`, and the mask's gradient there."""
    reach = 2 * POLARITY_SIGMA_NM / nm_per_voxel
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, membrane.shape).astype(int)
    # Averaged over cubes of `step` voxels, thinner where the volume is; incomplete cubes are left out.
    step = np.minimum(max(1, int(GRID_NM / nm_per_voxel)), high - low)
    count = (high - low) // step
    block = membrane[tuple(slice(a, a + n * s) for a, n, s in zip(low, count, step, strict=True))] != 0
    spacing = step * nm_per_voxel
    coarse = ndimage.gaussian_filter(_cube_means(block, step), EDGE_SIGMA_NM / spacing, mode="nearest")
    gradient = [
        np.gradient(coarse, spacing[axis], axis=axis) if count[axis] > 1 else np.zeros_like(coarse)
        for axis in range(3)
    ]
    squared = sum((np.square(component, dtype=np.float64) for component in gradient), np.zeros(coarse.shape))
    edge = np.nonzero(squared > MIN_GRADIENT_PER_NM**2)
    offset = np.stack(edge, axis=1) * step + (step - 1) / 2 + low - centre
    return offset * nm_per_voxel, np.stack([c[edge] for c in gradient], axis=1).astype(np.float64)


def _cube_means(block: npt.NDArray[np.bool_], step: npt.NDArray[np.int64]) -> FloatArray:
    """Return the fraction of each cube of `step` voxels that is set; the block holds whole cubes."""
    # Axis by axis in the smallest sufficient integer type: a tenth of the time of a mean over three axes.
    total = block.astype(np.min_scalar_type(math.prod(step.tolist())))
    for axis, stride in enumerate(step.tolist()):
        parts = [total[(slice(None),) * axis + (slice(k, None, stride),)] for k in range(stride)]
        total = functools.reduce(np.add, parts)
    return np.asarray(total.astype(np.float32) / np.float32(math.prod(step.tolist())))


def _fit_normal(
    offset_nm: Float64Array, direction: Float64Array, weight: Float64Array, axis: Float64Array
) -> tuple[Float64Array, float]:
    """Fit directions linearly against position; return the normal at offset 0 and the divergence (1/nm)."""
    along = direction @ axis
    # Opposite faces of a sheet have opposite gradients. Gradients across the axis belong to the sheet's rim.
    turned = direction * np.sign(along)[:, None]
    weight = weight * np.abs(along) ** 3
    design = np.column_stack([np.ones(len(offset_nm)), offset_nm])
    normal_matrix = (design * weight[:, None]).T @ design
    # Ridge regression: positions along the axis vary little, and curvature above 1/30 nm needs evidence.
    normal_matrix[1:, 1:] += np.eye(3) * weight.sum() * 30.0
    coefficients = np.linalg.solve(normal_matrix, (design * weight[:, None]).T @ turned)
    normal, jacobian = coefficients[0] / np.linalg.norm(coefficients[0]), coefficients[1:]
    return normal, float(np.trace(jacobian) - normal @ jacobian @ normal)
