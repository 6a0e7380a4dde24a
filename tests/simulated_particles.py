"""Simulated particles with known poses, and how far averages of them are from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.average import AverageConfig
from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.simulation import particles
from t3ssfast.simulation.geometry import irregular_surface
from t3ssfast.simulation.imaging import reconstruct, tilt_series
from t3ssfast.simulation.motor import flagellar_motor
from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.particles import Particle
from t3ssfast.simulation.scene import Scene, add_crowding, add_membranes, random_direction
from t3ssfast.simulation.specimen import DOCKED_RIBOSOME_NM
from t3ssfast.simulation.t3ss import Architecture, t3ss
from t3ssfast.tomogram import Tomogram

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CPU = torch.device("cpu")
VOXEL_ANGSTROM = 20.0
BOX = 44
# The defaults are for boxes of more voxels.
CONFIG = AverageConfig(
    iterations=3,
    initial_resolution_angstrom=130.0,
    finest_alignment_voxels=3.0,
    reject_other_kinds=False,
    kind="all",
)
# What is mistaken for a T3SS on a membrane, with assumed frequencies.
LOOK_ALIKES = {
    "membrane": 0.3,
    "membrane_protein": 0.25,
    "secretin": 0.2,
    "ribosome": 0.15,
    "flagellar_motor": 0.1,
}
# Typical ice thickness. The mean free path is scaled so that a small volume loses as many electrons.
ICE_NM = 175.0


@dataclass(frozen=True)
class Subtomograms:
    """Simulated particles: one small tomogram each, protein dark, and their true poses."""

    tomograms: list[Tomogram]
    truth: list[Candidates]
    # (size, size, size) T3SS on its membranes without noise (protein 1, ice 0), axis along +z, centre at
    # voxel size // 2.
    density: Float32


def simulate_subtomograms(
    count: int = 200,
    seed: int = 0,
    *,
    size: int = 80,
    voxel_size_angstrom: float = 13.6,
    false_fraction: float = 0.0,
    **physics: Any,
) -> Subtomograms:
    """Simulate copies of one T3SS in random directions, each on a cell membrane of its own.

    All copies have the same sizes. They are rotated about their axis at random, and their axes deviate from
    the membrane normal by `Physics.t3ss_tilt_spread_degrees`. Imaging, noise and crowding are those of
    `t3ssfast.simulation.simulate.simulate`.

    `size` is the edge of each volume in voxels, `false_fraction` the fraction of look-alikes, which come
    last, and `physics` holds fields of `Physics`.
    """
    nm = voxel_size_angstrom / 10
    parameters = Physics.from_dict({"t3ss_size_spread": 0.0} | physics)
    mean_free_path = max(parameters.mean_free_path_nm * size * nm / ICE_NM, 50.0)
    imaging = Physics.from_dict(parameters.to_dict() | {"mean_free_path_nm": mean_free_path})
    n_true = count - round(false_fraction * count)
    kinds, probabilities = list(LOOK_ALIKES), list(LOOK_ALIKES.values())
    tomograms, truth = [], []
    for index, rng in enumerate(np.random.default_rng(seed).spawn(count)):
        specimen_rng, imaging_rng = rng.spawn(2)
        kind = "t3ss" if index < n_true else str(specimen_rng.choice(kinds, p=probabilities))
        scene = Scene((size, size, size), nm)
        normal = random_direction(specimen_rng)
        axis = normal
        if kind == "t3ss":
            spread = np.tan(np.radians(parameters.t3ss_tilt_spread_degrees))
            axis = normal + spread * specimen_rng.standard_normal(3)
        axis = axis / np.linalg.norm(axis)
        centre = nm * (size // 2 + specimen_rng.uniform(-0.5, 0.5, 3))
        _add_round_cell(scene, centre, normal, parameters)
        add_crowding(scene, parameters, specimen_rng)
        rot = specimen_rng.uniform(0, 2 * np.pi)
        particle, height = _draw(kind, parameters, specimen_rng)
        if particle is not None:
            scene.put(particle, centre + axis * height, axis, rot)
        images, angles = tilt_series(scene.density, nm, imaging, imaging_rng)
        name = f"particle_{index:04d}"
        tomograms.append(Tomogram(reconstruct(images, angles, size, imaging), voxel_size_angstrom, name))
        normal_of_pose, rot_of_pose = normal_and_rot(_rotation(scene, centre, axis, rot))
        truth.append(
            Candidates(
                centre_zyx=(centre[None] / nm).astype(np.float32),
                score=np.ones(1, np.float32),
                normal_zyx=normal_of_pose,
                voxel_size_angstrom=voxel_size_angstrom,
                tomogram_shape=scene.shape,
                tomogram_name=name,
                kind=np.array([kind]),
                rot_degrees=rot_of_pose.astype(np.float32),
            )
        )
    return Subtomograms(tomograms, truth, _noise_free_density(size, nm, parameters))


def _add_round_cell(scene: Scene, centre_nm: Float64, normal_zyx: Float64, physics: Physics) -> None:
    """Add a spherical cell; the middle of its envelope is at `centre_nm`, with a given normal there."""
    radius = physics.cell_radius_nm
    cell_centre = centre_nm - normal_zyx * (radius + physics.membrane_gap_nm / 2)
    cell = irregular_surface(np.random.default_rng(0), cell_centre, [radius] * 3, 0.0)
    add_membranes(scene, cell, physics, physics.membrane_gap_nm)


def _same_t3ss(physics: Physics) -> Particle:
    """Return the T3SS of all subtomograms, always the same."""
    rng = np.random.default_rng(0)
    architecture = Architecture.draw(rng.spawn(1)[0], physics.t3ss_variety)
    return t3ss(rng, physics, architecture, needle_length_nm=physics.needle_length_nm)


def _draw(kind: str, physics: Physics, rng: np.random.Generator) -> tuple[Particle | None, float]:
    """Draw a particle of a kind, and how far along its axis it lies from the middle of the envelope."""
    gap = physics.membrane_gap_nm
    if kind == "t3ss":
        return _same_t3ss(physics), 0.0
    if kind == "secretin":
        return particles.secretin(rng, gap), 0.0
    if kind == "flagellar_motor":
        return flagellar_motor(rng, gap), 0.0
    if kind == "ribosome":
        return particles.ribosome(rng), -(gap / 2 + rng.uniform(*DOCKED_RIBOSOME_NM))
    if kind == "membrane_protein":
        height = gap / 2 * (1 if rng.random() < 0.5 else -1)
        return particles.membrane_protein(rng, height, rng.random() < 0.5), 0.0
    return None, 0.0


def _rotation(scene: Scene, centre: Float64, axis: Float64, rot: float) -> Rotation:
    """Return the particle-to-tomogram rotation (x, y, z) of a particle that `Scene.put` places."""
    corner = (slice(0, 2), slice(0, 2), slice(0, 2))
    _, r, phi = scene.cylinder_coordinates(corner, centre, axis, rot)
    # r cos(phi) is linear in the position: its gradient is the direction of phi = 0.
    along = (r * np.cos(phi)).astype(np.float64)
    gradient = np.array([along[1, 0, 0], along[0, 1, 0], along[0, 0, 1]]) - along[0, 0, 0]
    x, z = gradient[::-1], axis[::-1]
    x = x - z * (x @ z)
    x /= np.linalg.norm(x)
    return Rotation.from_matrix(np.stack([x, np.cross(z, x), z], axis=1)[None])


def _noise_free_density(size: int, nm: float, physics: Physics) -> Float32:
    """Return the T3SS on its membranes with its axes along those of the volume."""
    scene = Scene((size, size, size), nm)
    centre = np.full(3, nm * (size // 2))
    axis = np.array([1.0, 0.0, 0.0])
    _add_round_cell(scene, centre, axis, physics)
    first = _rotation(scene, centre, axis, 0.0).as_matrix()[0, :, 0]
    angle = float(np.arctan2(first[1], first[0]))

    def deviation(rot: float) -> float:
        return float(np.max(_rotation(scene, centre, axis, rot).magnitude()))

    # The sense of rotation of `Scene.put` depends on the axis: the angle that undoes it is one of the two.
    scene.put(_same_t3ss(physics), centre, axis, min((angle, -angle), key=deviation))
    return scene.density


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
