"""The pose of a particle: every rotation about its axis, tilts within the membrane's say, and shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.fourier import Shells, Spectrum, phase_ramp
from t3ssfast.averaging.stack import zyx_matrices

__all__ = ["LocalRotations", "Match", "Reference", "ShiftSearch", "find_pose", "local_rotations"]

Tensor = torch.Tensor
CHUNK = 64


@dataclass(frozen=True)
class LocalRotations:
    """Rotations of a particle in the frame of its prior pose.

    Parameters
    ----------
    matrix
        (q, 3, 3) float32, acting on zyx vectors.
    cone_degrees
        How far its axis may leave that of the prior pose.
    """

    matrix: Tensor
    cone_degrees: float


def local_rotations(
    step_degrees: float, cone_degrees: float, fold: int, device: torch.device
) -> LocalRotations:
    """Turns about the axis over 360 / fold degrees times tilts within a cone, all about `step_degrees` apart.

    Parameters
    ----------
    step_degrees
        Between neighbours.
    cone_degrees
        Largest tilt of the axis (+z of the object).
    fold
        Of the rotational symmetry about the axis.
    """
    spins = max(1, round(360 / fold / step_degrees))
    spin = np.arange(spins) * (360 / fold / spins)
    tilts, ways = [0.0], [0.0]
    rings = int(np.ceil(cone_degrees / step_degrees - 1e-9))
    for ring in range(1, rings + 1):
        tilt = cone_degrees * ring / rings
        around = max(3, round(360 * np.sin(np.radians(tilt)) / step_degrees))
        tilts += [tilt] * around
        ways += [(i + 0.5 * (ring % 2)) * 360 / around for i in range(around)]
    # Turn back by the direction of the tilt, so that tilting alone does not turn the object.
    lean = Rotation.from_euler("ZYZ", np.stack([ways, tilts, -np.array(ways)], axis=1), degrees=True)
    turn = Rotation.from_euler("Z", spin[:, None], degrees=True)
    matrices = np.concatenate([(lean * one).as_matrix() for one in turn])
    return LocalRotations(zyx_matrices(Rotation.from_matrix(matrices), device), cone_degrees)


@dataclass(frozen=True)
class Match:
    """Where a particle fits the reference best.

    Parameters
    ----------
    rotation
        (3, 3) in the frame of the prior pose, acting on zyx vectors.
    shift_zyx
        (3,) voxels in that frame.
    score
        Constrained cross-correlation on the coarse shells, -1 to 1.
    """

    rotation: Tensor
    shift_zyx: Tensor
    score: float


class Reference:
    """A reference volume, turned by every rotation of a search once for all particles.

    Parameters
    ----------
    volume
        (n, n, n), masked.
    weight
        (radius + 1,) factor of each shell.
    shells
        Frequencies at which poses are refined and scored.
    rotations
        Searched.
    coarse_radius
        The global search compares no finer than this.
    """

    def __init__(
        self, volume: Tensor, weight: Tensor, shells: Shells, rotations: LocalRotations, coarse_radius: int
    ) -> None:
        self.shells, self.rotations, self.weight = shells, rotations, weight[shells.shell]
        self.coarse = Shells(shells.size, coarse_radius, shells.device)
        # Both lists run in the same order: the coarse one is the fine one with its outer shells left out.
        self.inner = torch.nonzero(shells.frequency.square().sum(1) <= coarse_radius**2)[:, 0]
        self.spectrum = Spectrum(volume[None], shells.radius)
        parts = torch.split(rotations.matrix, CHUNK)
        self.views = torch.cat([self.turned(part, coarse=True) for part in parts])
        self.power = self.views.abs().square() * self.coarse.multiplicity

    def turned(self, rotations: Tensor, *, coarse: bool = False) -> Tensor:
        """(q, K) weighted transform of the reference turned by (q, 3, 3) rotations, on the shells asked."""
        if coarse:
            return self.spectrum.turned(rotations, self.coarse.frequency) * self.weight[self.inner]
        return self.spectrum.turned(rotations, self.shells.frequency) * self.weight


class ShiftSearch:
    """Correlations over a cube of shifts, by a small separable Fourier sum instead of a whole transform.

    Parameters
    ----------
    shells
        Frequencies of what is correlated.
    reach_voxels
        Largest shift along each axis. The step is a quarter of the finest wave, at least half a voxel.
    """

    def __init__(self, shells: Shells, reach_voxels: float) -> None:
        self.shells = shells
        step = max(0.5, shells.size / shells.radius / 4)
        count = int(np.ceil(reach_voxels / step - 1e-9))
        self.step = reach_voxels / count if count else 0.0
        self.offsets = torch.arange(-count, count + 1, device=shells.device) * self.step
        both = torch.arange(-shells.radius, shells.radius + 1, device=shells.device, dtype=torch.float32)
        self.full = self._waves(both)
        half = both[shells.radius :]
        self.half = self._waves(half) * torch.where(half == 0, 1.0, 2.0)[:, None]

    def _waves(self, frequency: Tensor) -> Tensor:
        angle = frequency[:, None] * self.offsets * (2 * torch.pi / self.shells.size)
        return torch.polar(torch.ones_like(angle), angle)

    def __call__(self, product: Tensor) -> Tensor:
        """(q, K) products of transforms to (q, T, T, T) correlations at shifts z, y, x."""
        grid = self.shells.on_grid(product)
        found = torch.matmul(grid, self.half)
        found = torch.einsum("qzyx,yt->qztx", found, self.full)
        return torch.einsum("qztx,zs->qstx", found, self.full).real

    def at(self, flat: int) -> list[int]:
        """Indices z, y, x of a place in the flattened cube."""
        edge = len(self.offsets)
        return [flat // (edge * edge), flat // edge % edge, flat % edge]


def find_pose(
    reference: Reference,
    particle: Tensor,
    wedge: Tensor,
    coarse_shifts: ShiftSearch,
    fine_shifts: ShiftSearch,
    refinements: int,
    step_degrees: float,
) -> Match:
    """The best rotation and shift of one particle by constrained cross-correlation (Foerster et al. 2008).

    Parameters
    ----------
    reference
        What it is compared with.
    particle
        (K,) whitened transform in the frame of its prior pose.
    wedge
        (K,) what of it was measured.
    coarse_shifts, fine_shifts
        Of the global search, on the reference's coarse shells, and of the refinement, on all.
    refinements, step_degrees
        How often the angular step is halved about the best rotation on the coarse shells, before it is
        once more on all; the step to begin with.
    """
    shells, inner = reference.shells, reference.inner
    seen = particle * wedge
    rotation, best, _ = _best(
        reference.rotations.matrix, reference.views, reference.power, seen[inner], wedge[inner], coarse_shifts
    )
    step = step_degrees
    for _ in range(refinements):
        step /= 2
        near = _within(_neighbours(step, shells.device) @ rotation, reference.rotations.cone_degrees)
        views = reference.turned(near, coarse=True)
        power = views.abs().square() * reference.coarse.multiplicity
        found, value, _ = _best(near, views, power, seen[inner], wedge[inner], coarse_shifts)
        if value > best:
            best, rotation = value, found
    # Only now is the rotation close enough for the finer shells to know more than to mislead.
    near = _within(_neighbours(step / 2, shells.device) @ rotation, reference.rotations.cone_degrees)
    near = torch.cat([near, rotation[None]])
    views = reference.turned(near)
    power = views.abs().square() * shells.multiplicity
    rotation, _, shift_index = _best(near, views, power, seen, wedge, fine_shifts)
    view = reference.turned(rotation[None])[0]
    shift = _refined_shift(fine_shifts(seen[None] * view.conj())[0], fine_shifts, shift_index)
    return Match(rotation, shift, _score(reference, particle, wedge, view, shift))


def _score(reference: Reference, particle: Tensor, wedge: Tensor, view: Tensor, shift: Tensor) -> float:
    """Constrained cross-correlation on the coarse shells: finer ones add more noise than they tell apart."""
    inner, coarse = reference.inner, reference.coarse
    weight = wedge[inner] * coarse.multiplicity
    particle, view = particle[inner], view[inner]
    overlap = (particle * view.conj() * phase_ramp(coarse.frequency, shift, coarse.size)).real
    norm = (particle.abs().square() * weight).sum() * (view.abs().square() * weight).sum()
    return float((overlap * weight).sum() / norm.sqrt().clamp_min(1e-20))


def _best(
    rotations: Tensor, views: Tensor, power: Tensor, seen: Tensor, wedge: Tensor, shifts: ShiftSearch
) -> tuple[Tensor, float, int]:
    """The best of (q, 3, 3) rotations, its correlation over the view's norm, and the place of its shift."""
    best, at, where = -float("inf"), 0, 0
    for first in range(0, len(views), CHUNK):
        part = slice(first, first + CHUNK)
        scale = (power[part] @ wedge).clamp_min(1e-20).sqrt()
        scores = shifts(seen * views[part].conj()) / scale[:, None, None, None]
        value, index = scores.reshape(-1).max(0)
        if float(value) > best:
            each = scores[0].numel()
            best, at, where = float(value), first + int(index) // each, int(index) % each
    return rotations[at], best, where


def _neighbours(step_degrees: float, device: torch.device) -> Tensor:
    """(27, 3, 3) rotations by up to a step about each axis."""
    turns = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return zyx_matrices(Rotation.from_rotvec(turns * step_degrees, degrees=True), device)


def _within(rotations: Tensor, cone_degrees: float) -> Tensor:
    """Those whose axis stays within the cone; the first axis of zyx is that of the object."""
    cosine = float(np.cos(np.radians(cone_degrees + 1e-3)))
    kept = rotations[rotations[:, 0, 0] >= cosine]
    return kept if len(kept) else rotations[rotations[:, 0, 0].argmax()][None]


def _refined_shift(surface: Tensor, shifts: ShiftSearch, where: int) -> Tensor:
    """The shift at the top of a parabola through the best place and its neighbours, axis by axis."""
    index = shifts.at(where)
    shift = []
    for axis, i in enumerate(index):
        top = float(shifts.offsets[i])
        if 0 < i < len(shifts.offsets) - 1:
            line = [[*index[:axis], i + d, *index[axis + 1 :]] for d in (-1, 0, 1)]
            low, mid, high = (float(surface[tuple(p)]) for p in line)
            curve = low - 2 * mid + high
            if curve < 0:
                top += shifts.step * min(max(0.5 * (low - high) / curve, -1.0), 1.0)
        shift.append(top)
    return torch.tensor(shift, dtype=torch.float32, device=surface.device)
