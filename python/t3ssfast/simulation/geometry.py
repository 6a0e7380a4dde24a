"""Closed irregular surfaces (cells, vesicles) and the distance of voxels from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

__all__ = ["Surface", "irregular_surface"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

TANGENT_STEP = 1e-4  # Step of the finite differences that give tangents, in units of the unit sphere.
N_WAVES = 5  # Number of cosine waves of the outline. Few waves of length 1 to 4 keep the curvature low.


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a surface: (n, 3) positions in nm, (n, 3) outward unit normals, (n,) areas in nm^2."""

    position_zyx: Float64
    normal_zyx: Float64
    area: Float64


@dataclass(frozen=True)
class Surface:
    """A star-shaped surface: ``centre + rotation @ (axes * u * (1 + sum a cos(k.u + p)))``, u unit vectors.

    Lengths are in nm. k, p and a are `waves` (m, 3), `phases` (m,) and `amplitudes` (m,).
    """

    centre_zyx: Float64
    axes_zyx: Float64
    rotation: Float64
    waves: Float64
    phases: Float64
    amplitudes: Float64

    def _radius(self, direction: Float64) -> Float64:
        return np.asarray(1.0 + np.cos(direction @ self.waves.T + self.phases) @ self.amplitudes)

    def _position(self, direction: Float64) -> Float64:
        radius = self._radius(direction)
        position: Float64 = self.centre_zyx + (direction * radius[:, None] * self.axes_zyx) @ self.rotation.T
        return position

    def _radial_offset(self, position_zyx: Float64) -> Float64:
        """Return (n,) approximate distances of (n, 3) positions along rays from the centre; inside < 0."""
        local = ((position_zyx - self.centre_zyx) @ self.rotation) / self.axes_zyx
        length = np.linalg.norm(local, axis=1)
        radius = self._radius(local / np.maximum(length, 1e-9)[:, None])
        return np.asarray((length - radius) * self.axes_zyx.min())

    def points(self, spacing_nm: float) -> SurfacePoints:
        """Sample points about `spacing_nm` apart, or less, from a Fibonacci lattice of directions."""
        count = int(np.clip(4 * np.pi * (self.axes_zyx.max() / spacing_nm) ** 2, 500, 500_000))
        index = np.arange(count) + 0.5
        height = 1 - 2 * index / count
        angle = np.pi * (1 + 5**0.5) * index
        ring = np.sqrt(1 - height**2)
        direction = np.stack([height, ring * np.sin(angle), ring * np.cos(angle)], axis=1)
        helper = np.where(np.abs(direction[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
        first = np.cross(direction, helper)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        position = self._position(direction)
        # The cross product of two tangents gives the normal, and its length the area.
        tangents = []
        for vector in (first, np.cross(direction, first)):
            ahead = self._position(direction + TANGENT_STEP * vector)
            behind = self._position(direction - TANGENT_STEP * vector)
            tangents.append((ahead - behind) / (2 * TANGENT_STEP))
        normal = np.cross(tangents[0], tangents[1])
        stretch = np.linalg.norm(normal, axis=1)
        normal /= stretch[:, None]
        normal *= np.sign(np.sum(normal * (position - self.centre_zyx), axis=1, keepdims=True))
        return SurfacePoints(position, normal, stretch * 4 * np.pi / count)

    def signed_distance(
        self, shape: tuple[int, int, int], voxel_nm: float, pad_nm: float, reach_nm: float
    ) -> tuple[Box, Float32] | None:
        """Return a box around the surface, padded by `pad_nm`, and the distances of its voxels in nm.

        Distances are negative inside and valid up to `reach_nm`. None if the box lies outside the volume.
        """
        # Interpolated between nodes h apart, the distance to a surface of curvature radius R deviates by less
        # than h^2 / (8 R), here 0.1 nm.
        spacing = min(2.5, float(self.axes_zyx.min()) / 12)
        points = self.points(spacing)
        low = np.floor((points.position_zyx.min(axis=0) - pad_nm) / voxel_nm).astype(np.int64)
        high = np.ceil((points.position_zyx.max(axis=0) + pad_nm) / voxel_nm).astype(np.int64) + 1
        low, high = np.clip([low, high], 0, shape)
        size = high - low
        if np.any(size < 1):
            return None
        step = max(1, round(min(5.0, float(self.axes_zyx.min()) / 8) / voxel_nm))
        nodes = [-(-(int(n) - 1) // step) + 1 for n in size]
        axes = [(int(start) + step * np.arange(n)) * voxel_nm for start, n in zip(low, nodes, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        # Interpolation uses nodes up to the diagonal of a grid cell further away.
        distance = self._distance_at(grid, points, spacing, reach_nm + 1.8 * step * voxel_nm)
        coarse = torch.from_numpy(distance.reshape(nodes).astype(np.float32))[None, None]
        fine_size = [step * (n - 1) + 1 for n in nodes]
        fine = torch.nn.functional.interpolate(coarse, fine_size, mode="trilinear", align_corners=True)[0, 0]
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        return box, fine[: size[0], : size[1], : size[2]].numpy()

    def _distance_at(
        self, position: Float64, points: SurfacePoints, spacing_nm: float, reach_nm: float
    ) -> Float64:
        """Return (n,) signed distances of (n, 3) positions, clipped to `reach_nm`."""
        radial = self._radial_offset(position)
        distance = np.where(radial < 0, -reach_nm, reach_nm)
        # The distance along the ray exceeds the true one by the slope of the outline, which is well below 1.
        close = np.flatnonzero(np.abs(radial) < 1.5 * reach_nm)
        low, high = position.min(axis=0) - reach_nm, position.max(axis=0) + reach_nm
        near = np.all((points.position_zyx > low) & (points.position_zyx < high), axis=1)
        if not near.any() or not len(close):
            return distance
        surface, normal = points.position_zyx[near], points.normal_zyx[near]
        found, index = map(np.asarray, cKDTree(surface).query(position[close], distance_upper_bound=reach_nm))
        hit = np.isfinite(found)
        close, found, index = close[hit], found[hit], index[hit]
        offset = np.einsum("ij,ij->i", position[close] - surface[index], normal[index])
        # Near the surface, the distance to the tangent plane is more accurate than that to the nearest point.
        exact = np.where(found < 4 * spacing_nm, offset, np.sign(distance[close]) * found)
        distance[close] = np.clip(exact, -reach_nm, reach_nm)
        return distance


def irregular_surface(
    rng: np.random.Generator, centre_zyx: npt.ArrayLike, axes_zyx: npt.ArrayLike, roughness: float
) -> Surface:
    """Draw a surface with semi-axes in nm, rotated about z; `roughness`: relative spread of the radius."""
    waves = rng.normal(size=(N_WAVES, 3))
    waves *= rng.uniform(1.0, 3.5, size=(N_WAVES, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    return Surface(
        centre_zyx=np.asarray(centre_zyx, dtype=np.float64),
        axes_zyx=np.asarray(axes_zyx, dtype=np.float64),
        rotation=Rotation.from_rotvec([rng.uniform(0, 2 * np.pi), 0, 0]).as_matrix(),
        waves=waves,
        phases=rng.uniform(0, 2 * np.pi, size=N_WAVES),
        amplitudes=roughness * np.sqrt(2 / N_WAVES) * rng.uniform(0.7, 1.3, size=N_WAVES),
    )
