"""Closed irregular surfaces (cells, vesicles) and the distance of every voxel from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

__all__ = ["Surface", "SurfacePoints", "irregular_surface"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a surface: (n, 3) positions in nm and outward unit normals, zyx; (n,) areas in nm^2."""

    position_zyx: Float64
    normal_zyx: Float64
    area: Float64


@dataclass(frozen=True)
class Surface:
    """A star-shaped surface: ``centre + rotation @ (axes * u * (1 + sum a cos(k.u + p)))`` for unit u.

    Parameters
    ----------
    centre_zyx, axes_zyx
        (3,) nm.
    rotation
        (3, 3), acting on zyx vectors.
    waves, phases, amplitudes
        (m, 3), (m,) and (m,): the irregularity. Few waves of length 1 to 4 keep the curvature low.
    """

    centre_zyx: Float64
    axes_zyx: Float64
    rotation: Float64
    waves: Float64
    phases: Float64
    amplitudes: Float64

    def _position(self, direction: Float64) -> Float64:
        radius = 1.0 + np.cos(direction @ self.waves.T + self.phases) @ self.amplitudes
        position: Float64 = self.centre_zyx + (direction * radius[:, None] * self.axes_zyx) @ self.rotation.T
        return position

    def radial_offset(self, position_zyx: Float64) -> Float64:
        """(n,) distance of (n, 3) positions from the surface along the ray from the centre, in nm.

        Negative inside. In the frame where the axes are 1, times the shortest of them.
        """
        local = ((position_zyx - self.centre_zyx) @ self.rotation) / self.axes_zyx
        length = np.linalg.norm(local, axis=1)
        direction = local / np.maximum(length, 1e-9)[:, None]
        radius = 1.0 + np.cos(direction @ self.waves.T + self.phases) @ self.amplitudes
        return np.asarray((length - radius) * self.axes_zyx.min())

    def points(self, spacing_nm: float) -> SurfacePoints:
        """Points at most about `spacing_nm` apart, from a Fibonacci lattice of directions."""
        count = int(np.clip(4 * np.pi * (self.axes_zyx.max() / spacing_nm) ** 2, 500, 500_000))
        index = np.arange(count) + 0.5
        height = 1 - 2 * index / count
        angle = np.pi * (1 + 5**0.5) * index
        ring = np.sqrt(1 - height**2)
        direction = np.stack([height, ring * np.sin(angle), ring * np.cos(angle)], axis=1)
        # Two tangents by finite differences give the normal and the stretching of the area.
        helper = np.where(np.abs(direction[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
        first = np.cross(direction, helper)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(direction, first)
        step = 1e-4
        position = self._position(direction)
        tangents = [
            (self._position(direction + step * t) - self._position(direction - step * t)) / (2 * step)
            for t in (first, second)
        ]
        normal = np.cross(tangents[0], tangents[1])
        stretch = np.linalg.norm(normal, axis=1)
        normal /= stretch[:, None]
        normal *= np.sign(np.sum(normal * (position - self.centre_zyx), axis=1, keepdims=True))
        return SurfacePoints(position, normal, stretch * 4 * np.pi / count)

    def signed_distance(
        self, shape: tuple[int, int, int], voxel_nm: float, pad_nm: float, reach_nm: float
    ) -> tuple[Box, Float32] | None:
        """Distance of voxels from the surface, negative inside, exact within `reach_nm`.

        Found exactly on a coarse grid and interpolated: between nodes h apart a distance to a surface of
        curvature radius R bends by less than h^2 / (8 R), 0.1 nm here.

        Parameters
        ----------
        shape
            (z, y, x) of the volume, whose voxel (0, 0, 0) is centred at 0 nm.
        voxel_nm
            Voxel size.
        pad_nm
            How far beyond the surface the answer's box goes.
        reach_nm
            Distances beyond are only known to be beyond.

        Returns
        -------
        The box, and the distances in it; None if the box misses the volume.
        """
        spacing = min(2.5, float(self.axes_zyx.min()) / 12)
        points = self.points(spacing)
        low = np.floor((points.position_zyx.min(axis=0) - pad_nm) / voxel_nm).astype(np.int64)
        high = np.ceil((points.position_zyx.max(axis=0) + pad_nm) / voxel_nm).astype(np.int64) + 1
        low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        size = high - low
        if np.any(size < 1):
            return None
        step = max(1, round(min(5.0, float(self.axes_zyx.min()) / 8) / voxel_nm))
        nodes = [-(-(int(n) - 1) // step) + 1 for n in size]
        axes = [(int(start) + step * np.arange(n)) * voxel_nm for start, n in zip(low, nodes, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        # A voxel within reach draws on nodes up to a cell's diagonal further away.
        reach_nm += 1.8 * step * voxel_nm
        near = np.all(
            (points.position_zyx > grid.min(axis=0) - reach_nm)
            & (points.position_zyx < grid.max(axis=0) + reach_nm),
            axis=1,
        )
        radial = self.radial_offset(grid)
        distance = np.where(radial < 0, -reach_nm, reach_nm)
        # The ray is longer than the distance by the slope of the outline, which is well below 1.
        asked = np.flatnonzero(np.abs(radial) < 1.5 * reach_nm)
        if near.any() and len(asked):
            position, normal = points.position_zyx[near], points.normal_zyx[near]
            nearest = cKDTree(position).query(grid[asked], distance_upper_bound=reach_nm)
            found, index = np.asarray(nearest[0]), np.asarray(nearest[1])
            hit = np.isfinite(found)
            asked, found, index = asked[hit], found[hit], index[hit]
            offset = np.einsum("ij,ij->i", grid[asked] - position[index], normal[index])
            # Near the surface the distance to the tangent plane is finer than that to the point.
            exact = np.where(found < 4 * spacing, offset, np.sign(distance[asked]) * found)
            distance[asked] = np.clip(exact, -reach_nm, reach_nm)
        coarse = torch.from_numpy(distance.reshape(nodes).astype(np.float32))[None, None]
        fine_size = [step * (n - 1) + 1 for n in nodes]
        fine = torch.nn.functional.interpolate(coarse, fine_size, mode="trilinear", align_corners=True)[0, 0]
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        return box, fine[: size[0], : size[1], : size[2]].numpy()


def irregular_surface(
    rng: np.random.Generator, centre_zyx: npt.ArrayLike, axes_zyx: npt.ArrayLike, roughness: float
) -> Surface:
    """A closed surface with semi-axes `axes_zyx` (nm), turned about z, with a random smooth outline.

    Parameters
    ----------
    rng
        Source of the turn and the outline.
    centre_zyx, axes_zyx
        (3,) nm.
    roughness
        Standard deviation of the radius, relative to it.
    """
    count = 5
    waves = rng.normal(size=(count, 3))
    waves *= rng.uniform(1.0, 3.5, size=(count, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    return Surface(
        centre_zyx=np.asarray(centre_zyx, dtype=np.float64),
        axes_zyx=np.asarray(axes_zyx, dtype=np.float64),
        rotation=Rotation.from_rotvec([rng.uniform(0, 2 * np.pi), 0, 0]).as_matrix(),
        waves=waves,
        phases=rng.uniform(0, 2 * np.pi, size=count),
        amplitudes=roughness * np.sqrt(2 / count) * rng.uniform(0.7, 1.3, size=count),
    )
