"""Search for a particle's pose: all rotations about its axis, tilts within a cone, and shifts.

Rotations and shifts are relative to the particle's prior pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.fourier import FourierInterpolator, FourierShells, phase_ramp
from t3ssfast.averaging.stack import zyx_matrices

__all__ = ["Pose", "RotatedReference", "ShiftSearch", "find_pose", "rotation_grid"]

Tensor = torch.Tensor

CHUNK = 64  # Rotations compared at a time: bounds the memory of their correlations.


@dataclass(frozen=True)
class RotationGrid:
    """Rotations of a search: (q, 3, 3) float32 matrices acting on zyx vectors."""

    matrix: Tensor
    step_degrees: float
    cone_degrees: float  # Maximum tilt of the particle's axis (+z of the particle).

    def neighbours(self, rotation: Tensor, step_degrees: float) -> Tensor:
        """Return the (q, 3, 3) rotations within the cone up to one step away about each axis, at most 27."""
        vectors = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        steps = Rotation.from_rotvec(vectors * step_degrees, degrees=True)
        rotations = zyx_matrices(steps, rotation.device) @ rotation
        cosine = float(np.cos(np.radians(self.cone_degrees + 1e-3)))
        # The first axis of zyx is that of the particle.
        inside = rotations[rotations[:, 0, 0] >= cosine]
        return inside if len(inside) else rotations[rotations[:, 0, 0].argmax()][None]


def rotation_grid(step_degrees: float, cone_degrees: float, fold: int, device: torch.device) -> RotationGrid:
    """Sample rotations about the axis over 360 / fold degrees, and tilts within a cone, in similar steps."""
    n_spins = max(1, round(360 / fold / step_degrees))
    spins = np.arange(n_spins) * (360 / fold / n_spins)
    tilts, azimuths = [0.0], [0.0]
    rings = int(np.ceil(cone_degrees / step_degrees - 1e-9))
    for ring in range(1, rings + 1):
        tilt = cone_degrees * ring / rings
        count = max(3, round(360 * np.sin(np.radians(tilt)) / step_degrees))
        tilts += [tilt] * count
        azimuths += [(i + 0.5 * (ring % 2)) * 360 / count for i in range(count)]
    # The third angle undoes the azimuth, so that a tilt alone does not rotate the particle about its axis.
    angles = np.stack([azimuths, tilts, -np.array(azimuths)], axis=1)
    tilted = Rotation.from_euler("ZYZ", angles, degrees=True)
    spun = Rotation.from_euler("Z", spins[:, None], degrees=True)
    rotations = Rotation.from_matrix(np.concatenate([(tilted * one).as_matrix() for one in spun]))
    return RotationGrid(zyx_matrices(rotations, device), step_degrees, cone_degrees)


@dataclass(frozen=True)
class Pose:
    """The pose at which a particle fits the reference best."""

    rotation: Tensor  # (3, 3), acting on zyx vectors.
    shift_zyx: Tensor  # (3,) voxels.
    score: float  # Constrained cross-correlation on the coarse shells, -1 to 1.


class RotatedReference:
    """A masked reference in all rotations of a grid, with (radius + 1,) weights of the shells.

    The global search uses `grid` and frequencies up to `coarse_radius`; poses are refined on all `shells`.
    """

    def __init__(
        self, volume: Tensor, weight: Tensor, shells: FourierShells, grid: RotationGrid, coarse_radius: int
    ) -> None:
        self.shells, self.grid, self.weight = shells, grid, weight[shells.shell]
        self.coarse = FourierShells(shells.size, coarse_radius, shells.device)
        # Positions of the coarse frequencies in the list of all, which has the same order.
        self.inner = torch.nonzero(shells.frequency.square().sum(1) <= coarse_radius**2)[:, 0]
        self._interpolator = FourierInterpolator(volume[None], shells.radius)
        self.transforms = torch.cat([self.rotated_coarse(part) for part in torch.split(grid.matrix, CHUNK)])
        self.power = self.transforms.abs().square() * self.coarse.multiplicity

    def rotated(self, rotations: Tensor) -> Tensor:
        """Return the weighted transforms at (q, 3, 3) rotations on all shells, (q, K)."""
        return self._interpolator.sample_rotated(rotations, self.shells.frequency) * self.weight

    def rotated_coarse(self, rotations: Tensor) -> Tensor:
        """Return the weighted transforms at (q, 3, 3) rotations on the coarse shells, (q, K_coarse)."""
        return self._interpolator.sample_rotated(rotations, self.coarse.frequency) * self.weight[self.inner]


class ShiftSearch:
    """Cross-correlations over a cube of shifts, by a small separable Fourier sum instead of a full FFT.

    The step is a quarter of the shells' finest wavelength, at least half a voxel.
    """

    def __init__(self, shells: FourierShells, max_shift_voxels: float) -> None:
        self._shells = shells
        step = max(0.5, shells.size / shells.radius / 4)
        count = int(np.ceil(max_shift_voxels / step - 1e-9))
        self._step = max_shift_voxels / count if count else 0.0
        self._offsets = torch.arange(-count, count + 1, device=shells.device) * self._step
        k = torch.arange(-shells.radius, shells.radius + 1, device=shells.device, dtype=torch.float32)
        angle = k[:, None] * self._offsets * (2 * torch.pi / shells.size)
        self._waves = torch.polar(torch.ones_like(angle), angle)
        half = k[shells.radius :]
        self._half_waves = self._waves[shells.radius :] * torch.where(half == 0, 1.0, 2.0)[:, None]

    def correlations(self, product: Tensor) -> Tensor:
        """Return correlations (q, T, T, T) at shifts z, y, x from (q, K) products of transforms."""
        summed = torch.matmul(self._shells.on_grid(product), self._half_waves)
        summed = torch.einsum("qzyx,yt->qztx", summed, self._waves)
        return torch.einsum("qztx,zs->qstx", summed, self._waves).real

    def refined_maximum(self, correlation: Tensor, index: int) -> Tensor:
        """Return the (3,) shift at the maximum of a parabola through `index` of (T, T, T), axis by axis."""
        edge = len(self._offsets)
        z, y, x = index // (edge * edge), index // edge % edge, index % edge
        lines = correlation[:, y, x], correlation[z, :, x], correlation[z, y]
        shift = []
        for i, line in zip((z, y, x), lines, strict=True):
            top = float(self._offsets[i])
            if 0 < i < edge - 1:
                low, mid, high = line[i - 1 : i + 2].tolist()
                curvature = low - 2 * mid + high
                if curvature < 0:
                    top += self._step * min(max(0.5 * (low - high) / curvature, -1.0), 1.0)
            shift.append(top)
        return torch.tensor(shift, dtype=torch.float32, device=correlation.device)


def find_pose(
    reference: RotatedReference,
    particle: Tensor,
    wedge: Tensor,
    coarse_shifts: ShiftSearch,
    fine_shifts: ShiftSearch,
    refinements: int,
) -> Pose:
    """Find the best pose of a particle by constrained cross-correlation (Foerster et al. 2008).

    `particle` and `wedge` are (K,): the whitened transform in the frame of the prior pose, and its
    missing-wedge weights. The angular step is halved `refinements` times, on the coarse shells.
    """
    grid, inner, coarse = reference.grid, reference.inner, reference.coarse
    measured, coarse_wedge = particle * wedge, wedge[inner]
    value, row, _ = _best(reference.transforms, reference.power, measured[inner], coarse_wedge, coarse_shifts)
    rotation, step = grid.matrix[row], grid.step_degrees
    for _ in range(refinements):
        step /= 2
        near = grid.neighbours(rotation, step)
        transforms = reference.rotated_coarse(near)
        power = transforms.abs().square() * coarse.multiplicity
        new_value, row, _ = _best(transforms, power, measured[inner], coarse_wedge, coarse_shifts)
        if new_value > value:
            value, rotation = new_value, near[row]
    # The fine shells mislead the search until the rotation is this close.
    near = torch.cat([grid.neighbours(rotation, step / 2), rotation[None]])
    transforms = reference.rotated(near)
    power = transforms.abs().square() * reference.shells.multiplicity
    _, row, index = _best(transforms, power, measured, wedge, fine_shifts)
    rotation = near[row]
    transform = reference.rotated(rotation[None])[0]
    shift = fine_shifts.refined_maximum(fine_shifts.correlations(measured[None] * transform.conj())[0], index)
    # The score uses the coarse shells only: the fine ones add more noise than discrimination.
    particle, transform = particle[inner], transform[inner]
    weight = coarse_wedge * coarse.multiplicity
    overlap = (particle * transform.conj() * phase_ramp(coarse.frequency, shift, coarse.size)).real
    norm = (particle.abs().square() * weight).sum() * (transform.abs().square() * weight).sum()
    return Pose(rotation, shift, float((overlap * weight).sum() / norm.sqrt().clamp_min(1e-20)))


def _best(
    transforms: Tensor, power: Tensor, measured: Tensor, wedge: Tensor, shifts: ShiftSearch
) -> tuple[float, int, int]:
    """Return the highest normalised correlation, its row in (q, K) transforms and the index of its shift."""
    best = -float("inf"), 0, 0
    for first in range(0, len(transforms), CHUNK):
        part = slice(first, first + CHUNK)
        norm = (power[part] @ wedge).clamp_min(1e-20).sqrt()
        scores = shifts.correlations(measured * transforms[part].conj()) / norm[:, None, None, None]
        value, index = scores.reshape(-1).max(0)
        if float(value) > best[0]:
            row, shift_index = divmod(int(index), scores[0].numel())
            best = float(value), first + row, shift_index
    return best
