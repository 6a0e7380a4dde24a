"""The search region: the voxels near the membrane, or enclosed by it, at which windows are classified."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import ConvexHull

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.connected_components import label_components
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.kernels import _native
from t3ssfast.runtime.threads import map_in_threads

__all__ = ["SearchRegion", "any_per_cube", "any_per_square", "fill_squares", "near_membrane"]

Mask = npt.NDArray[np.uint8]

# Side of the cubes on which enclosed space is found, close to the distance between the two membranes.
CUBE_NM = 10.0
# Smaller vesicles are not filled: all of their inside is near their membrane anyway.
MIN_CELL_NM = 100.0


class SearchRegion:
    """The voxels of a grid at which windows are classified; the answer for a voxel is the same in any slab.

    A T3SS stands in the membrane, so the region holds the voxels near it. The missing wedge removes membrane
    that faces the beam, and the volume's edge cuts cells. The region therefore also holds the convex hull of
    each cell's membrane, in projection along the beam.

    Parameters
    ----------
    membrane, voxel_size_angstrom
        (z, y, x) mask of the whole grid, non-zero is membrane, and its voxel size.
    distance_nm, enclosed
        Maximum distance from the membrane, also of hulls above and below it; whether to include hulls.
    allowed
        (z, y, x) mask of the whole grid that the region is restricted to; None does not restrict it.
    no_data
        Returns where slices z0 to z1 hold no data, which are left out, or None where all of them do.
    """

    def __init__(
        self,
        membrane: npt.NDArray[Any],
        voxel_size_angstrom: float,
        distance_nm: float,
        enclosed: bool = True,
        allowed: Mask | None = None,
        no_data: Callable[[int, int], Mask | None] = lambda z0, z1: None,
    ) -> None:
        self.allowed, self.no_data = allowed, no_data
        self.membrane, self.voxel_size_angstrom, self.distance_nm = membrane, voxel_size_angstrom, distance_nm
        self._side = max(1, round(CUBE_NM * 10.0 / voxel_size_angstrom))
        reach = math.ceil(distance_nm * 10.0 / voxel_size_angstrom)
        min_cubes = MIN_CELL_NM * 10.0 / (voxel_size_angstrom * self._side)
        self._hulls = _find_hulls(membrane, self._side, min_cubes, reach) if enclosed else []

    @classmethod
    def of(
        cls,
        membrane: npt.NDArray[Any],
        voxel_size_angstrom: float,
        config: DetectConfig,
        *,
        allowed: Mask | None = None,
        no_data: Callable[[int, int], Mask | None] = lambda z0, z1: None,
    ) -> SearchRegion:
        """Return the search region of a detection with given options."""
        distance, enclosed = config.search_distance_nm, config.search_enclosed
        return cls(membrane, voxel_size_angstrom, distance, enclosed, allowed, no_data)

    def slab(self, z0: int, z1: int) -> Mask:
        """Return slices z0 to z1 of the region, (z1 - z0, y, x) uint8, 0 or 1."""
        region = near_membrane(self.membrane, self.voxel_size_angstrom, self.distance_nm, z0, z1)
        for start, stop, squares in self._hulls:
            first, last = max(0, start - z0), min(z1, stop) - z0
            if first < last:
                region[first:last] |= fill_squares(squares, self._side, region.shape[1:])
        if self.allowed is not None:
            region &= self.allowed[z0:z1]
        if (without := self.no_data(z0, z1)) is not None:
            region[without != 0] = 0
        return region


def _find_hulls(membrane: npt.NDArray[Any], side: int, min_cubes: float, reach: int) -> list[Any]:
    """Return (first slice, end, mask of squares) of the hulls, at least `min_cubes` cubes of `side` wide."""
    if not membrane.size:
        return []
    cubes = any_per_cube(membrane, side)
    labels, _ = label_components(cubes)
    boxes = cc3d.statistics(labels, no_slice_conversion=False)["bounding_boxes"]
    centres = np.indices(cubes.shape[1:]).reshape(2, -1).T + 0.5
    hulls = []
    for label, (slices, rows, columns) in enumerate(boxes[1:], 1):
        if max(rows.stop - rows.start, columns.stop - columns.start) < min_cubes:
            continue
        y, x = np.nonzero((labels[slices] == label).any(axis=0))
        corners = np.concatenate([np.column_stack([y + dy, x + dx]) for dy in (0, 1) for dx in (0, 1)])
        # Each edge of the hull is the outward normal and the offset of a half-plane.
        edges = ConvexHull(corners).equations
        inside = np.all(centres @ edges[:, :2].T + edges[:, 2] <= 0, axis=1).reshape(cubes.shape[1:])
        hulls.append((slices.start * side - reach, slices.stop * side + reach, inside.astype(np.uint8)))
    return hulls


def any_per_square(slices: npt.NDArray[Any], side: int) -> npt.NDArray[np.bool_]:
    """Return whether each square of side x side pixels holds a non-zero value in any of (z, y, x) slices."""
    if slices.dtype.kind == "f":
        slices = slices != 0
    # Bitwise ORs, of whole rows first, take a tenth of the time of `any` over both sides of the squares.
    occupied = np.bitwise_or.reduce(slices, axis=0)
    padded = np.pad(occupied, [(0, -n % side) for n in occupied.shape])
    rows, columns = (n // side for n in padded.shape)
    in_rows = np.bitwise_or.reduce(padded.reshape(rows, side, columns * side), axis=1)
    return np.asarray(np.bitwise_or.reduceat(in_rows, np.arange(columns) * side, axis=1) != 0)


def any_per_cube(volume: npt.NDArray[Any], side: int) -> npt.NDArray[np.bool_]:
    """Return whether each cube of side^3 voxels of a (z, y, x) volume holds a non-zero value.

    The last cubes along each axis may be incomplete.
    """
    layers = range(0, len(volume), side)
    return np.stack(
        map_in_threads(lambda z: any_per_square(volume[z : z + side], side), layers, torch.get_num_threads())
    )


def fill_squares(squares: npt.NDArray[Any], side: int, shape_yx: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a (y, x) image of a shape in which each square of side x side pixels has one value."""
    rows, columns = (np.arange(n) // side for n in shape_yx)
    # A tenth of the time of squares[rows[:, None], columns].
    return np.asarray(squares.take(columns, axis=1).take(rows, axis=0))


def near_membrane(
    membrane: npt.NDArray[Any], voxel_size_angstrom: float, distance_nm: float, z0: int, z1: int
) -> Mask:
    """Return the voxels, uint8 0 or 1, of slices z0 to z1 within a distance of a membrane voxel's centre."""
    depth = len(membrane)
    if not 0 <= z0 <= z1 <= depth:
        raise InputError(f"Slices {z0} to {z1} are outside a membrane with {depth} slices.")
    if not (math.isfinite(distance_nm) and distance_nm >= 0):
        raise ConfigError(f"The search distance is {distance_nm!r} nm; give 0 or more.")
    # Squared distances are exact integers.
    radius = distance_nm * 10.0 / voxel_size_angstrom
    # The rounding error of the division must not exclude voxels exactly at the distance.
    limit = math.floor(radius * radius + 1e-6)
    reach = math.isqrt(limit)
    out = np.empty((z1 - z0, *membrane.shape[1:]), np.uint8)
    # Chunks of twice the reach are as thick as the slices around them that are read as well.
    chunk = max(1, 2 * reach)
    for first in range(z0, z1, chunk):
        last = min(first + chunk, z1)
        low, high = max(0, first - reach), min(depth, last + reach)
        around = np.asarray(membrane[low:high])
        if around.dtype != np.uint8:
            around = (around != 0).view(np.uint8)
        _native.near_mask(around, first - low, last - low, limit, out[first - z0 : last - z0])
    return out
