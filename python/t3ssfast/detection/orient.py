"""Poses of candidates from the membrane around them."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]

__all__ = ["orient"]

# Edges of the membrane within this Gaussian of a candidate give its normal; the two membranes of a cell
# lie 12-15 nm to either side of the centre of a base.
NORMAL_SIGMA_NM = 16.0
# Within this Gaussian, how normals turn tells convex from concave: the cell lies where they converge.
POLARITY_SIGMA_NM = 40.0
# The mask is blurred by this much before its gradient is taken; a membrane in a mask is about 7 nm thick.
EDGE_SIGMA_NM = 2.0
# Blocks of the mask are looked at on a grid about this coarse: enough for the edge of a membrane.
POSE_GRID_NM = 3.0
# What the threads that look at blocks take together, if more than one can.
POSES_BYTES = 256 << 20
# The blurred mask rises by about 0.2 a nm at its edges; below this, nothing is an edge.
MIN_GRADIENT_PER_NM = 0.02


def orient(
    membrane: npt.NDArray[Any], centre_zyx: npt.ArrayLike, *, voxel_size_angstrom: float
) -> FloatArray:
    """Normals of the membrane at each centre, out of the cell.

    The direction comes from the gradient of the mask: its structure tensor about the centre, then a linear
    fit of the gradients' directions against their positions, so that a centre at the rim of what is left of
    a membrane (a missing wedge, the end of the volume) is not given the normal of its middle. The sign is
    that of the fitted curvature: the normals of a cell's surface diverge outwards.

    Parameters
    ----------
    membrane
        (z, y, x) mask with both membranes of the cell; read in blocks of some 200 nm.
    centre_zyx
        (n, 3) voxels of the mask, 0-based.
    voxel_size_angstrom
        Of the mask.

    Returns
    -------
    (n, 3) float32 unit vectors, zyx. Where there is no membrane in reach (the top and the bottom of a large
    cell, taken by the missing wedge): +z above the middle of all membrane, -z below.
    """
    centres = np.asarray(centre_zyx, dtype=np.float64).reshape(-1, 3)
    nm_per_voxel = voxel_size_angstrom / 10
    threads = max(1, min(torch.get_num_threads(), int(POSES_BYTES / _pose_bytes(nm_per_voxel))))
    with ThreadPoolExecutor(threads) as pool:
        normals = list(pool.map(lambda centre: _normal_at(membrane, centre, nm_per_voxel), centres))
    lost = [k for k, normal in enumerate(normals) if normal is None]
    middle = _middle_slice(membrane) if lost else 0.0
    for k in lost:
        normals[k] = np.array([1.0 if centres[k, 0] >= middle else -1.0, 0.0, 0.0])
    return np.array(normals, np.float32).reshape(-1, 3)


def _middle_slice(membrane: npt.NDArray[Any]) -> float:
    """Mean z of a mask; 0 of an empty one."""
    voxels = np.array([np.count_nonzero(section) for section in membrane], np.float64)
    return float(voxels @ np.arange(len(voxels)) / max(1.0, voxels.sum()))


def _normal_at(
    membrane: npt.NDArray[Any], centre: npt.NDArray[np.float64], nm_per_voxel: float
) -> npt.NDArray[np.float64] | None:
    """The normal at one centre, or None where there is no membrane in reach."""
    offset_nm, gradient = _mask_edges(membrane, centre, nm_per_voxel)
    if not len(gradient):
        return None
    length = np.sqrt(_squared_lengths(gradient))
    squared_nm = _squared_lengths(offset_nm)

    near = np.exp(-0.5 * squared_nm / NORMAL_SIGMA_NM**2)
    axis = np.linalg.eigh((gradient * near[:, None]).T @ gradient)[1][:, -1]
    normal, _ = _fit_normals(offset_nm, gradient / length[:, None], near * length, axis)
    far = np.exp(-0.5 * squared_nm / POLARITY_SIGMA_NM**2)
    _, divergence = _fit_normals(offset_nm, gradient / length[:, None], far * length, normal)
    return normal if divergence >= 0 else -normal


def _pose_bytes(nm_per_voxel: float) -> float:
    """What `_mask_edges` takes at a time: a block of the mask, twice, and its gradients on their grid."""
    side = 4 * POLARITY_SIGMA_NM / nm_per_voxel
    step = max(1, int(POSE_GRID_NM / nm_per_voxel))
    return float(2 * side**3 + 32 * (side / step) ** 3)


def _squared_lengths(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of (n, 3) vectors; a sum over so short an axis takes NumPy several times as long."""
    z, y, x = vectors.T
    squared: npt.NDArray[np.float64] = z * z + y * y + x * x
    return squared


def _mask_edges(
    membrane: npt.NDArray[Any], centre: npt.NDArray[np.float64], nm_per_voxel: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Offsets (nm) from `centre` of the mask's edge voxels round it, and the mask's gradient there."""
    reach = 2 * POLARITY_SIGMA_NM / nm_per_voxel
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, membrane.shape).astype(int)
    # Averaged over cubes of `step` voxels (thinner where the volume is); the rest, not a cube, is left out.
    step = np.minimum(max(1, int(POSE_GRID_NM / nm_per_voxel)), high - low)
    count = (high - low) // step
    block = membrane[tuple(slice(a, a + n * s) for a, n, s in zip(low, count, step, strict=True))] != 0
    coarse = _cube_means(block, step)
    coarse = ndimage.gaussian_filter(coarse, EDGE_SIGMA_NM / (step * nm_per_voxel), mode="nearest")
    gradient = [
        np.gradient(coarse, step[axis] * nm_per_voxel, axis=axis)
        if count[axis] > 1
        else np.zeros_like(coarse)
        for axis in range(3)
    ]
    squared = np.zeros(coarse.shape)
    for along in gradient:
        squared += np.square(along, dtype=np.float64)
    edge = np.nonzero(squared > MIN_GRADIENT_PER_NM**2)
    offset = np.stack(edge, axis=1) * step + (step - 1) / 2 + low - centre
    return offset * nm_per_voxel, np.stack([along[edge] for along in gradient], axis=1).astype(np.float64)


def _cube_means(block: npt.NDArray[np.bool_], step: npt.NDArray[np.int64]) -> FloatArray:
    """Share of each cube of `step` voxels that is set; the block holds whole cubes.

    Counted in the smallest whole numbers that hold a cube, one axis after the other: a mean over three axes
    of it at once takes ten times as long.
    """
    total = block.astype(np.min_scalar_type(math.prod(step.tolist())))
    for axis, every in enumerate(step.tolist()):
        parts = [total[(slice(None),) * axis + (slice(k, None, every),)] for k in range(every)]
        total = functools.reduce(np.add, parts)
    means: FloatArray = total.astype(np.float32) / np.float32(math.prod(step.tolist()))
    return means


def _fit_normals(
    offset_nm: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    axis: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], float]:
    """Normal at offset 0 and divergence (1/nm): a weighted linear fit of directions turned towards `axis`."""
    along = direction @ axis
    # The two faces of a sheet have opposite gradients; edges across the axis are ends of a sheet, not faces.
    turned = direction * np.sign(along)[:, None]
    weight = weight * np.abs(along) ** 3
    design = np.column_stack([np.ones(len(offset_nm)), offset_nm])
    normal_matrix = (design * weight[:, None]).T @ design
    # Ridge: curvature tighter than 1/30 nm needs evidence; positions along the axis carry next to none.
    normal_matrix[1:, 1:] += np.eye(3) * weight.sum() * 30.0
    coefficients = np.linalg.solve(normal_matrix, (design * weight[:, None]).T @ turned)
    normal = coefficients[0] / np.linalg.norm(coefficients[0])
    jacobian = coefficients[1:]
    divergence = float(np.trace(jacobian) - normal @ jacobian @ normal)
    return normal, divergence
