"""Simulated particles with known poses, and how far averages of them are from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.average import AverageConfig
from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.simulation.subtomograms import Subtomograms, simulate_subtomograms

CPU = torch.device("cpu")
VOXEL_ANGSTROM = 20.0
BOX = 44
# The defaults are for boxes of more voxels.
CONFIG = AverageConfig(iterations=3, initial_resolution_angstrom=130.0, finest_alignment_voxels=3.0)


def simulate_particles() -> Subtomograms:
    """25 T3SS and 11 look-alikes."""
    return simulate_subtomograms(
        36,
        1,
        size=54,
        voxel_size_angstrom=VOXEL_ANGSTROM,
        false_fraction=0.3,
        noise_scale=0.7,
        t3ss_tilt_spread_degrees=2.0,
    )


def perturbed(
    truth: Sequence[Candidates], seed: int = 2, *, degrees: float = 5.0, voxels: float = 0.6
) -> list[Candidates]:
    """Candidates as a detection finds them: normals and centres inexact, rotations about the axis unknown."""
    rng = np.random.default_rng(seed)
    found = []
    for some in truth:
        tilt = Rotation.from_rotvec([*(degrees * rng.normal(size=2)), 0], degrees=True)
        normal, _ = normal_and_rot(rotation_of(some) * tilt)
        centre = some.centre_zyx + voxels * rng.normal(size=(len(some), 3))
        found.append(replace(some, centre_zyx=centre, normal_zyx=normal, rot_degrees=np.zeros(len(some))))
    return found


def rotation_errors_degrees(
    found: Sequence[Candidates], truth: Sequence[Candidates], fold: int
) -> npt.NDArray[np.float64]:
    """Angles between poses, up to the symmetry and a rotation about the axis that all have in common."""
    between = [(rotation_of(t).inv() * rotation_of(f))[0] for f, t in zip(found, truth, strict=True)]
    matrices = np.array([one.as_matrix() for one in between])
    spin = np.arctan2(matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1])
    common = np.angle(np.exp(1j * fold * spin).mean()) / fold
    symmetric = Rotation.from_euler("Z", (-common + 2 * np.pi * np.arange(fold) / fold)[:, None])
    return np.array([np.degrees((one * symmetric).magnitude().min()) for one in between])


def true_density(simulated: Subtomograms) -> torch.Tensor:
    """(BOX, BOX, BOX) noise-free density."""
    start = simulated.density.shape[0] // 2 - BOX // 2
    return torch.from_numpy(simulated.density[(slice(start, start + BOX),) * 3].copy())


def voxel_grid(size: int) -> torch.Tensor:
    """(size, size, size, 3) positions of voxels from voxel size // 2."""
    axis = torch.arange(size) - size // 2
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).float()


def blobs(size: int, centres: Sequence[tuple[float, float, float]], sigma: float = 2.0) -> torch.Tensor:
    """(size, size, size) sum of Gaussians."""
    squares = torch.stack([((voxel_grid(size) - torch.tensor(c)) ** 2).sum(-1) for c in centres])
    return torch.exp(-0.5 * squares / sigma**2).sum(0)
