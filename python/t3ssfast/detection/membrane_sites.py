"""Places along the envelope of cells where particles can stand, also where only part of it was found."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from t3ssfast.detection.connected_components import label_components
from t3ssfast.detection.pick import separate
from t3ssfast.detection.search_region import any_per_cube

__all__ = ["membrane_sites"]

# Distance of the middle of the envelope from either membrane.
GAP_NM = (7.0, 19.0)
# And from the one that was found, where the other was not.
MIDDLE_NM = 13.0
# The distance transform takes 30 bytes per voxel. Coarser voxels are small enough to see the gap.
COARSE_NM = 4.0
# Positions closer to a particle than this lead the verifier to its centre.
SPACING_NM = 11.0
# The missing wedge removes membrane whose normal is within this angle of the beam. What is left ends in a
# rim, and the hull of it in a flat cap, above which the cell bulges.
CAP_DEGREES = 50.0
# Extent of the places at a cap: below and above the hull. They are farther from all membrane than the last.
CAP_NM = (5.0, 20.0, 18.0)
# Smaller components of the membrane have no caps: they are vesicles and fragments.
MIN_CELL_NM = 100.0
# Side of the blocks that are connected to a component: membranes of an envelope are farther apart, and gaps
# in one membrane are smaller.
BLOCK_NM = 10.0

Float64Array = npt.NDArray[np.float64]


def membrane_sites(
    mask: npt.NDArray[Any], voxel_size_angstrom: float, *, spacing_nm: float = SPACING_NM
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return places on the envelope of cells: positions (n, 3) in voxels of a membrane mask, and directions.

    They lie half-way between two membranes 14 to 38 nm apart; at the tops and bottoms of cells, where the
    missing wedge has removed the membrane; and 13 nm to either side of membranes. Every such place is within
    about `spacing_nm` of a position. The direction (n,) is 1 or -1 at tops and bottoms, where +z or -z leads
    out of the cell, and 0 where the membrane tells the normal.
    """
    factor = max(1, round(COARSE_NM * 10 / voxel_size_angstrom))
    if not np.any(mask):
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    coarse = any_per_cube(mask, factor)
    nm = factor * voxel_size_angstrom / 10
    distance = ndimage.distance_transform_edt(~coarse, sampling=nm)
    between = np.argwhere(_between(distance, nm))
    caps = _caps(coarse, distance, nm)
    beside = np.argwhere(np.abs(distance - MIDDLE_NM) <= nm / 2)
    # Of two places too close to each other, the one that more is known about is kept.
    parts = [between, np.argwhere(caps), beside]
    position = np.concatenate(parts).astype(np.float64)
    at_cap = np.repeat([False, True, False], [len(part) for part in parts])
    direction = np.where(at_cap, caps[tuple(position.astype(np.int64).T)], 0)
    kept = separate(position, spacing_nm / nm)
    site = (position[kept] + 0.5) * factor - 0.5
    inside = np.minimum(site, np.array(mask.shape) - 1)
    return np.asarray(inside, np.float32), np.asarray(direction[kept], np.float32)


def _between(distance: Float64Array, nm: float) -> npt.NDArray[np.bool_]:
    """Where the distance to the membrane, on voxels of `nm`, is largest between two membranes."""
    # On the medial surface of the gap no neighbour is farther from the membranes, but for rounding. At a face
    # of the volume, a neighbour beyond it may be.
    highest = ndimage.maximum_filter(distance, size=3, mode="constant", cval=np.inf) - 0.6 * nm
    return (distance >= GAP_NM[0]) & (distance <= GAP_NM[1]) & (distance >= highest)


def _caps(coarse: npt.NDArray[np.bool_], distance: Float64Array, nm: float) -> npt.NDArray[np.int8]:
    """1 at the tops and -1 at the bottoms of cells where no membrane was found, else 0."""
    below, above, clear = CAP_NM
    side = max(1, round(BLOCK_NM / nm))
    labels, _ = label_components(any_per_cube(coarse, side))
    boxes = cc3d.statistics(labels, no_slice_conversion=False)["bounding_boxes"]
    z, y, x = (np.arange(n, dtype=np.float64) for n in coarse.shape)
    caps = np.zeros(coarse.shape, np.int8)
    for label, box in enumerate(boxes[1:], 1):
        rows, columns = box[1:]
        if max(rows.stop - rows.start, columns.stop - columns.start) * side * nm < MIN_CELL_NM:
            continue
        centres = np.argwhere(labels == label).astype(np.float64) + 0.5
        for sign, height in _hull_heights(side * centres - 0.5, y, x):
            # A cell that a face of the volume cuts has no top there.
            height[sign * (height - (z[-1] if sign > 0 else 0)) > -side] = np.nan
            # Slice by slice, for the memory.
            for at, slice_of_caps in zip(z, caps, strict=True):
                outside = sign * (at - height) * nm
                slice_of_caps[(outside > -below) & (outside < above)] = sign
    caps[distance <= clear] = 0
    return caps


def _hull_heights(points: Float64Array, y: Float64Array, x: Float64Array) -> list[tuple[int, Float64Array]]:
    """The z (y, x) of the top and the bottom of the convex hull of points, each with its sign.

    NaN beside the hull, and where it is steep.
    """
    try:
        facets = ConvexHull(points).equations
    except QhullError:
        # Too few points for a body, or all in one plane.
        return []
    sides: list[tuple[int, Float64Array]] = []
    for sign in (1, -1):
        # Of the planes of the facets that face this side, the innermost one is the surface. They are compared
        # one by one, for the memory: a large cell has hundreds of facets.
        height = np.full((len(y), len(x)), sign * np.inf)
        slope = np.zeros_like(height)
        for normal_z, normal_y, normal_x, offset in facets[sign * facets[:, 0] > 1e-6]:
            plane = -(normal_y * y[:, None] + normal_x * x + offset) / normal_z
            inner = sign * plane < sign * height
            height[inner] = plane[inner]
            slope[inner] = abs(normal_z)
        height[slope < np.cos(np.radians(CAP_DEGREES))] = np.nan
        sides.append((sign, height))
    beside = sides[0][1] < sides[1][1]
    return [(sign, np.where(beside, np.nan, height)) for sign, height in sides]
