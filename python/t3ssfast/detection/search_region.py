"""Where windows are judged: near the membrane, and inside of what it encloses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.connected_components import label_components
from t3ssfast.errors import ConfigError, InputError

__all__ = ["SearchRegion", "search_region"]

Mask = npt.NDArray[np.uint8]

# Enclosed space is told on cubes about this large: a good part of the distance between two membranes.
CUBE_NM = 10.0
# What is less wide holds no cell: all of a smaller vesicle's inside is near its membrane anyway.
MIN_CELL_NM = 100.0
# Voxels whose distances along z are held at a time; never changes the answer.
ROWS_VOXELS = 1 << 20


class SearchRegion:
    """The voxels of a grid whose windows are judged.

    A T3SS sits in the membrane, so its neighbourhood is searched. Where the membrane faces the beam the
    missing wedge has taken it, and a large part of a cell's surface is nowhere near what is left: there the
    region holds all that the membrane encloses, seen along the beam. Around the beam a cell is convex enough
    for its convex hull, and the hull also closes cells that the volume cuts. The answer for a voxel does not
    depend on the slab.

    Parameters
    ----------
    membrane
        (z, y, x) of the whole grid, non-zero is membrane.
    voxel_size_angstrom
        Of the grid.
    distance_nm
        Of `search_region`; hulls reach as far beyond the first and the last slice of their membrane.
    enclosed
        Whether to search what the membrane encloses; without it the region is that of `search_region`.
    """

    def __init__(
        self,
        membrane: npt.NDArray[Any],
        voxel_size_angstrom: float,
        distance_nm: float,
        *,
        enclosed: bool = True,
    ) -> None:
        self.membrane = membrane
        self.voxel_size_angstrom = voxel_size_angstrom
        self.distance_nm = distance_nm
        self._side = max(1, round(CUBE_NM * 10.0 / voxel_size_angstrom))
        reach = math.ceil(distance_nm * 10.0 / voxel_size_angstrom)
        self._hulls = _hulls(membrane, self._side, voxel_size_angstrom, reach) if enclosed else []

    @classmethod
    def of(cls, membrane: npt.NDArray[Any], voxel_size_angstrom: float, config: DetectConfig) -> SearchRegion:
        """The region that a detection with these options searches."""
        return cls(membrane, voxel_size_angstrom, config.search_distance_nm, enclosed=config.search_enclosed)

    def slab(self, z0: int, z1: int) -> Mask:
        """(z1 - z0, y, x) uint8, 0 or 1, of the slices z0 up to z1."""
        region = search_region(self.membrane, self.voxel_size_angstrom, self.distance_nm, z0, z1)
        _, height, width = region.shape
        rows, columns = np.arange(height) // self._side, np.arange(width) // self._side
        for hull in self._hulls:
            first, last = max(z0, hull.z0), min(z1, hull.z1)
            if first < last:
                region[first - z0 : last - z0] |= hull.inside[rows[:, None], columns]
        return region


@dataclass(frozen=True)
class _Hull:
    """Slices of a piece of membrane, and the (y, x) cubes inside of its hull as seen along the beam."""

    z0: int
    z1: int
    inside: Mask


def _hulls(membrane: npt.NDArray[Any], side: int, voxel_size_angstrom: float, reach: int) -> list[_Hull]:
    """Hulls of the pieces of a membrane that hang together by cubes of `side` voxels."""
    if not membrane.size:
        return []
    cubes = np.stack([_in_squares(membrane[z : z + side], side) for z in range(0, len(membrane), side)])
    labels, _ = label_components(cubes)
    boxes = cc3d.statistics(labels, no_slice_conversion=False)["bounding_boxes"]
    least = MIN_CELL_NM * 10.0 / (voxel_size_angstrom * side)
    centres = np.indices(cubes.shape[1:]).reshape(2, -1).T + 0.5
    found = []
    for label, (along, rows, columns) in enumerate(boxes[1:], 1):
        if max(rows.stop - rows.start, columns.stop - columns.start) < least:
            continue
        here = (labels[along, rows, columns] == label).any(axis=0)
        y, x = (
            there + first for there, first in zip(np.nonzero(here), (rows.start, columns.start), strict=True)
        )
        corners = np.concatenate([np.column_stack([y + dy, x + dx]) for dy in (0, 1) for dx in (0, 1)])
        # Each edge of the hull as the outward normal and offset of a half-plane that it bounds.
        edges = ConvexHull(corners).equations
        inside = np.all(centres @ edges[:, :2].T + edges[:, 2] <= 0, axis=1)
        z0, z1 = along.start * side - reach, along.stop * side + reach
        found.append(_Hull(z0, z1, inside.reshape(cubes.shape[1:]).astype(np.uint8)))
    return found


def _in_squares(slices: npt.NDArray[Any], side: int) -> npt.NDArray[np.bool_]:
    """Which squares of side x side pixels hold anything in some (z, y, x) slices."""
    seen = (np.asarray(slices) != 0).any(axis=0)
    height, width = seen.shape
    padded = np.pad(seen, ((0, -height % side), (0, -width % side)))
    rows, columns = (n // side for n in padded.shape)
    return np.asarray(padded.reshape(rows, side, columns, side).any(axis=(1, 3)))


def search_region(
    membrane: npt.NDArray[Any],
    voxel_size_angstrom: float,
    distance_nm: float,
    z0: int = 0,
    z1: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Voxels within a distance of the membrane, for one slab.

    The distance is exact, between voxel centres, in whole numbers: a voxel's answer does not depend on the
    slab. Only the slices that the distance reaches are looked at.

    Parameters
    ----------
    membrane
        (z, y, x) of the whole grid, non-zero is membrane.
    voxel_size_angstrom
        Of the grid.
    distance_nm
        0 or more; 0 gives the membrane itself.
    z0, z1
        The slab; by default everything.

    Returns
    -------
    (z1 - z0, y, x) uint8, 0 or 1.
    """
    depth = len(membrane)
    z1 = depth if z1 is None else z1
    if not 0 <= z0 <= z1 <= depth:
        raise InputError(f"Slices {z0} to {z1} were asked of a membrane with {depth} slices.")
    if not (math.isfinite(distance_nm) and distance_nm >= 0):
        raise ConfigError(f"The search distance is {distance_nm!r} nm; give 0 or more.")
    radius = distance_nm * 10.0 / voxel_size_angstrom
    # Rounding errors of the division must not decide about a voxel that lies exactly at the distance.
    limit = math.floor(radius * radius + 1e-6)
    reach = math.isqrt(limit)
    # Beyond the reach all distances are alike. Sums of two such numbers are the largest; the fewer bytes they
    # take, the more fit into a vector and the caches.
    far = limit + 1
    kind = np.uint8 if 2 * far < 2**8 else np.uint16 if 2 * far < 2**16 else np.int64
    out = np.zeros((z1 - z0, *membrane.shape[1:]), np.uint8)
    # Twice the reach at a time: what surrounds them is then no more than themselves.
    step = max(1, 2 * reach)
    for first in range(z0, z1, step):
        last = min(first + step, z1)
        low, high = max(0, first - reach), min(depth, last + reach)
        # Farther than the reach from the membrane's bounding box there is nothing to find.
        across = np.zeros(membrane.shape[1:], bool)
        for section in membrane[low:high]:
            across |= np.asarray(section) != 0
        if not across.any():
            continue
        rows, columns = (
            slice(max(0, int(there[0]) - reach), int(there[-1]) + reach + 1)
            for there in (np.flatnonzero(across.any(axis=1)), np.flatnonzero(across.any(axis=0)))
        )
        squared = np.empty((last - first, *across[rows, columns].shape), kind)
        # The slices around are there for distances along z alone: some rows of them at a time.
        some = max(1, ROWS_VOXELS // ((high - low) * squared.shape[2]))
        for r in range(0, squared.shape[1], some):
            part = np.asarray(membrane[low:high, rows, columns][:, r : r + some])
            part = np.where(part != 0, kind(0), kind(far))
            squared[:, r : r + some] = _nearer(part, 0, reach, slice(first - low, last - low))
        for z, plane in enumerate(squared, first - z0):
            nearest = _nearer(_nearer(plane, 0, reach, slice(None)), 1, reach, slice(None))
            np.less_equal(nearest, limit, out=out[z, rows, columns].view(bool))
    return out


def _nearer(squared: npt.NDArray[Any], axis: int, reach: int, keep: slice) -> npt.NDArray[Any]:
    """Least over an axis of the values around, each raised by its squared offset; of `keep` along that axis.

    What lies beyond the ends counts for nothing. One such step an axis makes squared distances out of 0
    inside and more outside (the lower envelope of Felzenszwalb & Huttenlocher 2012), by trying few offsets.
    """
    length = squared.shape[axis]
    start, stop, _ = keep.indices(length)

    def part(a: int, b: int) -> tuple[slice, ...]:
        return (slice(None),) * axis + (slice(a, b),)

    least: npt.NDArray[Any] = squared[part(start, stop)].copy()
    raised = np.empty_like(squared)
    for offset in range(1, min(reach, length - 1) + 1):
        np.add(squared, squared.dtype.type(offset * offset), out=raised)
        for shift in (-offset, offset):
            a, b = max(start, -shift), min(stop, length - shift)
            if a < b:
                here = least[part(a - start, b - start)]
                np.minimum(here, raised[part(a + shift, b + shift)], out=here)
    return least
