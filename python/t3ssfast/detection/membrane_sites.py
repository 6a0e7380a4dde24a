"""Positions all along the envelope of cells, half-way between the membranes, where particles can stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t3ssfast.detection.pick import separate

__all__ = ["membrane_sites"]

# Distance of the middle of the envelope from either membrane.
GAP_NM = (7.0, 19.0)
# The distance transform takes 30 bytes per voxel. Coarser voxels are small enough to see the gap.
COARSE_NM = 4.0
# Positions closer to a particle than this lead the verifier to its centre.
SPACING_NM = 11.0


def membrane_sites(
    mask: npt.NDArray[Any], voxel_size_angstrom: float, *, spacing_nm: float = SPACING_NM
) -> npt.NDArray[np.float32]:
    """Return (n, 3) positions between the two membranes of cells, in voxels of a (z, y, x) membrane mask.

    They lie where the distance to the nearest membrane is largest between two membranes 14 to 38 nm apart.
    Every such place is within about `spacing_nm` of a position.
    """
    factor = max(1, round(COARSE_NM * 10 / voxel_size_angstrom))
    if not np.any(mask):
        return np.zeros((0, 3), np.float32)
    coarse = _any_in_blocks(np.asarray(mask) != 0, factor)
    nm = factor * voxel_size_angstrom / 10
    distance = np.asarray(ndimage.distance_transform_edt(~coarse, sampling=nm), np.float32)
    # On the medial surface of the gap no neighbour is farther from the membranes, but for rounding. At a face
    # of the volume, a neighbour beyond it may be.
    highest = ndimage.maximum_filter(distance, size=3, mode="constant", cval=np.inf) - np.float32(0.6 * nm)
    medial = (distance >= GAP_NM[0]) & (distance <= GAP_NM[1]) & (distance >= highest)
    position = np.argwhere(medial).astype(np.float64)
    position = position[separate(position, spacing_nm / nm)]
    return np.asarray((position + 0.5) * factor - 0.5, np.float32)


def _any_in_blocks(mask: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.bool_]:
    """Return whether any voxel is set in each block of factor^3; the last blocks may be incomplete."""
    padded = np.pad(mask, [(0, -n % factor) for n in mask.shape])
    z, y, x = (n // factor for n in padded.shape)
    return np.asarray(padded.reshape(z, factor, y, factor, x, factor).any(axis=(1, 3, 5)))
