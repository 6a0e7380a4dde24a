"""Simulation of cryo-electron tomograms of minicells with T3SS, with their ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import FLAGELLAR_MOTOR, Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.simulation.imaging import reconstruct, tilt_series
from t3ssfast.simulation.parameters import Physics, random_physics
from t3ssfast.simulation.scene import LABELS, Scene
from t3ssfast.simulation.specimen import build_specimen
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["Physics", "Simulation", "random_physics", "simulate"]

MIN_VOXELS = 16


@dataclass(frozen=True)
class Simulation:
    """A simulated tomogram and its ground truth.

    Parameters
    ----------
    tomogram
        (z, y, x) float32, mean 0, standard deviation about 1; protein is dark.
    truth
        The T3SS: centre of the base half-way between the membranes, normal out of the cell.
    distractors
        All other particles, by `kind`.
    membrane
        (z, y, x) uint8, 1 in the bilayers of cells and vesicles.
    labels
        (z, y, x) uint8, indices into `label_names`.
    label_names
        Names of the labels; 0 is the background.
    parameters
        Parameters of the simulation.
    density
        (z, y, x) float32 specimen before imaging (protein 1, ice 0), if requested.
    """

    tomogram: Tomogram
    truth: Candidates
    distractors: Candidates
    membrane: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    label_names: tuple[str, ...]
    parameters: Physics
    density: npt.NDArray[np.float32] | None = None

    @property
    def motors(self) -> Candidates:
        """The flagellar motors: their centres half-way between the membranes, and normals out of the cell."""
        return self.distractors.of_kinds(FLAGELLAR_MOTOR)

    @property
    def particles(self) -> Candidates:
        """The particles of the kinds that models tell apart: T3SS and flagellar motors."""
        return self.truth.joined(self.motors)


def simulate(
    seed: int = 0,
    shape: Sequence[int] = (128, 512, 512),
    voxel_size_angstrom: float = 13.6,
    *,
    keep_density: bool = False,
    **physics: Any,
) -> Simulation:
    """Simulate a tomogram of minicells with T3SS.

    The same arguments give bit-identical results. The specimen and its imaging use separate random streams,
    so imaging parameters do not change the specimen.

    Parameters
    ----------
    seed
        Random seed, 0 or more.
    shape
        (z, y, x) voxels, each at least 16.
    voxel_size_angstrom
        Voxel size.
    keep_density
        Return the specimen before imaging, too.
    **physics
        Fields of `Physics`. ``**random_physics(seed).to_dict()`` draws all of them.

    Raises
    ------
    ConfigError
        If a parameter is unknown or invalid.
    VoxelSizeError
        If the voxel size is not between 0.5 and 200 A.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; give a whole number, 0 or more.")
    try:
        size = tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        size = ()
    if len(size) != 3 or min(size) < MIN_VOXELS:
        raise ConfigError(
            f"shape is {shape!r}; give three numbers of voxels (z, y, x), each at least {MIN_VOXELS}."
        )
    z, y, x = size
    voxel_size_angstrom = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    parameters = Physics.from_dict(physics)
    specimen_rng, imaging_rng, artefact_rng = np.random.default_rng(int(seed)).spawn(3)
    scene = build_specimen((z, y, x), voxel_size_angstrom / 10, parameters, specimen_rng)
    images, angles = tilt_series(scene.density, scene.voxel_nm, parameters, imaging_rng)
    volume = reconstruct(images, angles, z, parameters)
    _add_intensity_changes(volume, parameters, artefact_rng)
    tomogram = Tomogram(volume, voxel_size_angstrom, f"simulated_{int(seed)}")
    return Simulation(
        tomogram=tomogram,
        truth=_particles(scene, tomogram, t3ss=True),
        distractors=_particles(scene, tomogram, t3ss=False),
        membrane=scene.membrane,
        labels=scene.labels,
        label_names=LABELS,
        parameters=parameters,
        density=scene.density if keep_density else None,
    )


def _particles(scene: Scene, tomogram: Tomogram, *, t3ss: bool) -> Candidates:
    """Return the T3SS of a scene, or everything else."""
    chosen = [particle for particle in scene.placed if (particle[0] == "t3ss") == t3ss]
    if not chosen:
        return Candidates.empty(tomogram.voxel_size_angstrom, scene.shape, tomogram.name)
    kinds, centres, normals = zip(*chosen, strict=True)
    return Candidates(
        centre_zyx=np.array(centres, dtype=np.float32),
        score=np.ones(len(chosen), np.float32),
        normal_zyx=np.array(normals, dtype=np.float32),
        voxel_size_angstrom=tomogram.voxel_size_angstrom,
        tomogram_shape=scene.shape,
        tomogram_name=tomogram.name,
        kind=np.array(kinds, dtype="<U32"),
    )


def _add_intensity_changes(
    volume: npt.NDArray[np.float32], physics: Physics, rng: np.random.Generator
) -> None:
    """Add an intensity ramp and dark corners, in place."""
    _, height, width = volume.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = physics.intensity_ramp * (np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * x)
    corners = physics.corner_darkening * ((x * x + y * y) / 2) ** 2
    volume += (ramp - corners).astype(np.float32)
    volume -= volume.mean(dtype=np.float64)
