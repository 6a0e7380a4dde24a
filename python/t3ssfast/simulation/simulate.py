"""Simulated cryo-electron tomograms of minicells with injectisomes, and the truth about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.simulation.imaging import reconstruct, tilt_series
from t3ssfast.simulation.parameters import Physics, random_physics
from t3ssfast.simulation.scene import LABELS, Scene, build_scene
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["Physics", "Simulation", "random_physics", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """A simulated tomogram and what is in it.

    Parameters
    ----------
    tomogram
        (z, y, x) float32, mean 0, standard deviation about 1; protein is dark.
    truth
        The T3SS: centre of the base half-way between the membranes, normal out of the cell.
    distractors
        Everything else that was put in, by `kind`.
    membrane
        (z, y, x) uint8, 1 in either bilayer of a cell and in the bilayer of a vesicle.
    labels
        (z, y, x) uint8, indices into `label_names`.
    label_names
        Names of the labels; 0 is the background.
    parameters
        What was simulated.
    density
        (z, y, x) float32 specimen (protein 1, ice 0) before imaging, where asked for.
    """

    tomogram: Tomogram
    truth: Candidates
    distractors: Candidates
    membrane: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    label_names: tuple[str, ...]
    parameters: Physics
    density: npt.NDArray[np.float32] | None = None


def _particles(scene: Scene, voxel_size_angstrom: float, name: str, wanted: bool) -> Candidates:
    chosen = [p for p in scene.placed if (p[0] == "t3ss") == wanted]
    if not chosen:
        return Candidates.empty(voxel_size_angstrom, scene.shape, name)
    kinds, centres, normals = zip(*chosen, strict=True)
    return Candidates(
        centre_zyx=np.array(centres, dtype=np.float32),
        score=np.ones(len(chosen), np.float32),
        normal_zyx=np.array(normals, dtype=np.float32),
        voxel_size_angstrom=voxel_size_angstrom,
        tomogram_shape=scene.shape,
        tomogram_name=name,
        kind=np.array(kinds, dtype="<U32"),
    )


def simulate(
    seed: int = 0,
    shape: Sequence[int] = (128, 512, 512),
    voxel_size_angstrom: float = 13.6,
    *,
    keep_density: bool = False,
    **physics: Any,
) -> Simulation:
    """Simulate a tomogram of minicells with T3SS.

    The same arguments give the same bits. The specimen and its imaging draw from separate streams: a change
    of the microscope leaves the specimen as it was.

    Parameters
    ----------
    seed
        Whole number, 0 or more.
    shape
        (z, y, x) voxels, each at least 16.
    voxel_size_angstrom
        Edge of a voxel.
    keep_density
        Whether to return the specimen before imaging too.
    **physics
        Fields of `Physics`, in place of its defaults. ``**random_physics(seed).to_dict()`` draws them all.

    Returns
    -------
    Simulation

    Raises
    ------
    ConfigError
        For an unknown parameter, or a value that cannot be used.
    VoxelSizeError
        If the voxel size is no length between 0.5 and 200 A.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; give a whole number, 0 or more.")
    try:
        size = tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        size = ()
    if len(size) != 3 or min(size) < 16:
        raise ConfigError(f"shape is {shape!r}; give three numbers of voxels (z, y, x), each at least 16.")
    z, y, x = size
    voxel_size_angstrom = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    parameters = Physics.from_dict(physics)
    scene_rng, imaging_rng, nuisance_rng = np.random.default_rng(int(seed)).spawn(3)
    name = f"simulated_{int(seed)}"

    scene = build_scene((z, y, x), voxel_size_angstrom / 10, parameters, scene_rng)
    images, angles = tilt_series(scene.density, scene.voxel_nm, parameters, imaging_rng)
    volume = reconstruct(images, angles, z, parameters)
    _shade(volume, parameters, nuisance_rng)
    return Simulation(
        tomogram=Tomogram(volume, voxel_size_angstrom, name),
        truth=_particles(scene, voxel_size_angstrom, name, True),
        distractors=_particles(scene, voxel_size_angstrom, name, False),
        membrane=scene.membrane,
        labels=scene.labels,
        label_names=LABELS,
        parameters=parameters,
        density=scene.density if keep_density else None,
    )


def _shade(volume: npt.NDArray[np.float32], physics: Physics, rng: np.random.Generator) -> None:
    """Add an intensity ramp and dark corners, in place."""
    _, height, width = volume.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = physics.intensity_ramp * (np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * x)
    corners = physics.corner_darkening * ((x * x + y * y) / 2) ** 2
    volume += (ramp - corners).astype(np.float32)
    volume -= volume.mean(dtype=np.float64)
