"""Small tomograms of one particle each, with every angle of its pose known: for averaging to be held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.io.particles.poses import normal_and_rot
from t3ssfast.simulation import particles
from t3ssfast.simulation.geometry import irregular_surface
from t3ssfast.simulation.imaging import reconstruct, tilt_series
from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.scene import Scene, _crowd, _enclose
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["Subtomograms", "simulate_subtomograms"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# What is mistaken for a T3SS on a membrane, and how often.
LOOK_ALIKES = {
    "membrane": 0.3,
    "membrane_protein": 0.25,
    "secretin": 0.2,
    "ribosome": 0.15,
    "flagellar_motor": 0.1,
}
# A tomogram's ice; the small volume loses as many electrons as one of this thickness.
ICE_NM = 175.0


@dataclass(frozen=True)
class Subtomograms:
    """Simulated particles, one small tomogram each.

    Parameters
    ----------
    tomograms
        Noisy, protein dark, size^3 voxels each.
    truth
        One entry for each: centre, axis and rotation about it; `kind` tells T3SS from look-alikes.
    density
        (size, size, size) float32: the T3SS on its membranes without noise, in its own frame (axis along
        +z, centre at voxel size // 2); protein 1, ice 0.
    """

    tomograms: list[Tomogram]
    truth: list[Candidates]
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
    """Image copies of one T3SS, each on a cell membrane of its own, in directions spread over the sphere.

    Every copy is the same machine (one draw of its sizes), turned about its axis at random; its axis leaves
    the membrane's normal by `Physics.t3ss_tilt_spread_degrees`. Imaging, noise and crowding are those of
    `t3ssfast.simulation.simulate.simulate`.

    Parameters
    ----------
    count
        Particles in all.
    seed
        Whole number, 0 or more.
    size, voxel_size_angstrom
        Edge of each volume, in voxels and of a voxel.
    false_fraction
        Part of `count` that are look-alikes: bare membranes, membrane proteins, secretins, docked
        ribosomes, flagellar motors. They come last.
    **physics
        Fields of `Physics`, in place of its defaults.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """
    if count < 1 or size < 16 or not 0 <= false_fraction < 1:
        raise ConfigError(
            f"count, size and false_fraction are {count}, {size} and {false_fraction}; give at least 1, at "
            "least 16, and a fraction below 1."
        )
    nm = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom") / 10
    parameters = Physics.from_dict({"t3ss_size_spread": 0.0} | physics)
    imaging = Physics.from_dict(
        parameters.to_dict()
        | {"mean_free_path_nm": max(parameters.mean_free_path_nm * size * nm / ICE_NM, 50.0)}
    )
    true = count - round(false_fraction * count)
    kinds = list(LOOK_ALIKES)
    tomograms, truth = [], []
    for index, rng in enumerate(np.random.default_rng(seed).spawn(count)):
        specimen_rng, imaging_rng = rng.spawn(2)
        kind = "t3ss" if index < true else str(specimen_rng.choice(kinds, p=list(LOOK_ALIKES.values())))
        scene = Scene((size, size, size), nm)
        direction = specimen_rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        axis = direction + np.tan(np.radians(parameters.t3ss_tilt_spread_degrees)) * (
            specimen_rng.standard_normal(3) if kind == "t3ss" else 0.0
        )
        axis /= np.linalg.norm(axis)
        centre = nm * (size // 2 + specimen_rng.uniform(-0.5, 0.5, 3))
        _membranes(scene, centre, direction, parameters)
        _crowd(scene, parameters, specimen_rng)
        rot = specimen_rng.uniform(0, 2 * np.pi)
        _put(scene, kind, centre, axis, rot, parameters, specimen_rng)
        images, angles = tilt_series(scene.density, nm, imaging, imaging_rng)
        name = f"particle_{index:04d}"
        tomograms.append(Tomogram(reconstruct(images, angles, size, imaging), voxel_size_angstrom, name))
        normal, spin = normal_and_rot(_frame(scene, centre, axis, rot))
        truth.append(
            Candidates(
                centre_zyx=(centre[None] / nm).astype(np.float32),
                score=np.ones(1, np.float32),
                normal_zyx=normal,
                voxel_size_angstrom=voxel_size_angstrom,
                tomogram_shape=(size, size, size),
                tomogram_name=name,
                kind=np.array([kind]),
                rot_degrees=spin.astype(np.float32),
            )
        )
    return Subtomograms(tomograms, truth, _own_frame(size, nm, parameters))


def _membranes(scene: Scene, centre_nm: Float64, normal_zyx: Float64, physics: Physics) -> None:
    """A round cell whose envelope has its middle at `centre_nm` and faces `normal_zyx` there."""
    radius = physics.cell_radius_nm
    cell_centre = centre_nm - normal_zyx * (radius + physics.membrane_gap_nm / 2)
    cell = irregular_surface(np.random.default_rng(0), cell_centre, [radius] * 3, 0.0)
    _enclose(scene, cell, physics, physics.membrane_gap_nm)


def _injectisome(physics: Physics) -> particles.Particle:
    rng = np.random.default_rng(0)
    return particles.t3ss(
        rng,
        physics.membrane_gap_nm,
        size_spread=physics.t3ss_size_spread,
        density_spread=physics.t3ss_density_spread,
        needle_length_nm=physics.needle_length_nm,
        with_platform=True,
        like=particles.Architecture.draw(rng.spawn(1)[0], physics.t3ss_variety),
    )


def _put(
    scene: Scene,
    kind: str,
    centre: Float64,
    axis: Float64,
    rot: float,
    physics: Physics,
    rng: np.random.Generator,
) -> None:
    gap = physics.membrane_gap_nm
    if kind == "t3ss":
        scene.put(_injectisome(physics), centre, axis, rot)
    elif kind == "secretin":
        scene.put(particles.secretin(rng, gap), centre, axis, rot)
    elif kind == "flagellar_motor":
        scene.put(particles.flagellar_motor(rng, gap), centre, axis, rot)
    elif kind == "ribosome":
        scene.put(particles.ribosome(rng), centre - axis * (gap / 2 + rng.uniform(13, 16)), axis, rot)
    elif kind == "membrane_protein":
        level = gap / 2 * (1 if rng.random() < 0.5 else -1)
        scene.put(particles.membrane_protein(rng, level, rng.random() < 0.5), centre, axis, rot)


def _frame(scene: Scene, centre: Float64, axis: Float64, rot: float) -> Rotation:
    """Object-to-tomogram rotation (x, y, z) of what `Scene.put` places with this axis and turn."""
    corner = (slice(0, 2), slice(0, 2), slice(0, 2))
    _, r, phi = scene._cylinder(corner, centre, axis, rot)
    # r cos(phi) is linear in the position: its slopes are the direction of phi = 0.
    along = (r * np.cos(phi)).astype(np.float64)
    first = np.array([along[1, 0, 0], along[0, 1, 0], along[0, 0, 1]]) - along[0, 0, 0]
    x, z = first[::-1], axis[::-1]
    x = x - z * (x @ z)
    x /= np.linalg.norm(x)
    return Rotation.from_matrix(np.stack([x, np.cross(z, x), z], axis=1)[None])


def _own_frame(size: int, nm: float, physics: Physics) -> Float32:
    """The noise-free T3SS on its membranes with the object's axes along those of the volume."""
    scene = Scene((size, size, size), nm)
    centre = np.full(3, nm * (size // 2))
    axis = np.array([1.0, 0.0, 0.0])
    _membranes(scene, centre, axis, physics)
    first = _frame(scene, centre, axis, 0.0).as_matrix()[0, :, 0]
    turn = float(np.arctan2(first[1], first[0]))
    # The turn of Scene.put runs one way or the other about the axis: the one that undoes it is taken.
    rot = min((turn, -turn), key=lambda r: float(np.max(_frame(scene, centre, axis, r).magnitude())))
    scene.put(_injectisome(physics), centre, axis, rot)
    return scene.density
