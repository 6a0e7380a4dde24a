"""Random specimens: minicells with T3SS and look-alikes, vesicles, free particles, carbon, gold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from t3ssfast.simulation import particles
from t3ssfast.simulation.geometry import Surface, irregular_surface
from t3ssfast.simulation.motor import MotorArchitecture, flagellar_motor, variety_stream
from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.particles import Particle
from t3ssfast.simulation.scene import (
    CYTOPLASM,
    LABELS,
    LUMEN,
    OUTSIDE,
    Scene,
    add_crowding,
    add_membranes,
    random_direction,
)
from t3ssfast.simulation.t3ss import Architecture, t3ss

__all__ = ["build_specimen"]

Float64 = npt.NDArray[np.float64]

# Attempts to place a cell or vesicle; from the fourth on, it is moved into view.
ATTEMPTS, ATTEMPTS_IN_PLACE = 8, 3
# Lateral space that a particle takes on a cell, nm.
CHEMORECEPTOR_SPACE_NM, SECRETIN_SPACE_NM, RIBOSOME_SPACE_NM, PROTEIN_SPACE_NM = 90.0, 28.0, 26.0, 12.0
MOTOR_MARGIN_NM = 6.0  # Around the C-ring of a motor.
FREE_SPACE_NM = 12  # Free particles are placed this far from membranes and other particles.
# Distance of docked ribosomes from the inner membrane.
DOCKED_RIBOSOME_NM = (13, 16)


def build_specimen(
    shape: tuple[int, int, int], voxel_nm: float, physics: Physics, rng: np.random.Generator
) -> Scene:
    """Draw a specimen with everything that `physics` asks for."""
    scene = Scene(shape, voxel_nm)
    cells = _add_cells(scene, physics, rng)
    _add_large_vesicles(scene, physics, rng)
    _add_small_vesicles(scene, cells, physics, rng)
    add_crowding(scene, physics, rng)
    if physics.carbon_film_nm > 0:
        _add_carbon(scene, physics.carbon_film_nm, rng)
    # One species per specimen, from a separate random stream: the architecture changes no other draw.
    architecture = Architecture.draw(rng.spawn(1)[0], physics.t3ss_variety)
    motors = MotorArchitecture.draw(variety_stream(rng), physics.motor_variety)
    for cell in cells:
        _populate(scene, cell, physics, architecture, motors, rng)

    def free_complex() -> Particle:
        return particles.ribosome(rng) if rng.random() < 0.3 else particles.globule(rng)

    _scatter(scene, CYTOPLASM, physics.ribosomes_per_cubic_um, lambda: particles.ribosome(rng), rng)
    for compartment in (OUTSIDE, LUMEN):
        _scatter(scene, compartment, physics.outside_proteins_per_cubic_um, free_complex, rng)
    for _ in range(physics.gold_beads):
        centre = rng.uniform(0, 1, 3) * scene.size_nm
        if scene.compartment[tuple(np.round(centre / voxel_nm).astype(int))] == OUTSIDE:
            scene.put(particles.gold_bead(physics.gold_diameter_nm), centre, random_direction(rng), 0.0)
    return scene


def _add_cells(scene: Scene, physics: Physics, rng: np.random.Generator) -> list[Surface]:
    cells: list[Surface] = []
    stretch = np.sqrt(physics.cell_elongation)
    for number in range(physics.cells):
        # The first cell is well in view; others may extend beyond the sides.
        spread = 0.22 if number == 0 else 0.6
        for attempt in range(ATTEMPTS):
            lateral = physics.cell_radius_nm * rng.uniform(0.85, 1.15)
            axes = np.array([lateral * physics.cell_flattening, lateral * stretch, lateral / stretch])
            offset = rng.uniform(-1, 1, 3) * np.array([0.2, spread, spread])
            cell = _irregular_surface(scene, offset, axes, physics.cell_roughness, attempt, rng)
            if add_membranes(scene, cell, physics, physics.membrane_gap_nm):
                cells.append(cell)
                break
    return cells


def _add_large_vesicles(scene: Scene, physics: Physics, rng: np.random.Generator) -> None:
    for _ in range(physics.large_vesicles):
        for attempt in range(ATTEMPTS):
            radius = physics.large_vesicle_radius_nm * rng.uniform(0.5, 1.2)
            axes = radius * np.array([rng.uniform(0.6, 1.1), rng.uniform(0.85, 1.2), 1.0])
            vesicle = _irregular_surface(scene, rng.uniform(-0.6, 0.6, 3), axes, 0.03, attempt, rng)
            if add_membranes(scene, vesicle, physics, None):
                break


def _add_small_vesicles(
    scene: Scene, cells: list[Surface], physics: Physics, rng: np.random.Generator
) -> None:
    for _ in range(physics.small_vesicles):
        for _attempt in range(ATTEMPTS):
            radius = max(physics.small_vesicle_radius_nm * rng.uniform(0.6, 1.4), 8.0)
            if cells and rng.random() < 0.6:
                points = cells[rng.integers(len(cells))].points(10.0)
                visible = np.flatnonzero(scene.contains(points.position_zyx, 0.0))
                if not len(visible):
                    continue
                spot = visible[rng.integers(len(visible))]
                distance = physics.membrane_gap_nm + 11 + radius + rng.exponential(8)
                centre = points.position_zyx[spot] + distance * points.normal_zyx[spot]
            else:
                centre = rng.uniform(0, 1, 3) * scene.size_nm
            axes = radius * rng.uniform(0.85, 1.15, 3)
            if add_membranes(scene, irregular_surface(rng, centre, axes, 0.02), physics, None):
                break


def _irregular_surface(
    scene: Scene, offset: Float64, axes_zyx: Float64, roughness: float, attempt: int, rng: np.random.Generator
) -> Surface:
    """Draw a surface at an offset from the middle, in units of the volume; move it into view if need be."""
    centre = scene.size_nm / 2 + offset * scene.size_nm
    surface = irregular_surface(rng, centre, axes_zyx, roughness)
    if attempt < ATTEMPTS_IN_PLACE:
        return surface
    # A point of its flank comes to lie near the middle.
    points = surface.points(10.0)
    flank = np.flatnonzero(np.abs(points.normal_zyx[:, 0]) < 0.5)
    spot = points.position_zyx[flank[rng.integers(len(flank))]]
    target = scene.size_nm * rng.uniform(0.3, 0.7, 3)
    return replace(surface, centre_zyx=surface.centre_zyx + target - spot)


class _FreeSites:
    """Free positions on the visible part of a cell: middle of the envelope, outward normal."""

    def __init__(self, scene: Scene, surface: Surface, physics: Physics, rng: np.random.Generator) -> None:
        points = surface.points(6.0)
        middle = points.position_zyx + points.normal_zyx * (physics.membrane_gap_nm / 2)
        visible = scene.contains(middle, physics.edge_margin_nm)
        self._middle, self._normal = middle[visible], points.normal_zyx[visible]
        self._area, self._rng = points.area[visible], rng
        self._taken: list[tuple[Float64, float]] = []

    def take(self, space_nm: float) -> tuple[Float64, Float64] | None:
        """Draw a position and its normal with `space_nm` around it; None if there is none."""
        free = self._area.copy()
        for position, space in self._taken:
            free[np.sum((self._middle - position) ** 2, axis=1) < ((space + space_nm) / 2) ** 2] = 0
        total = free.sum()
        if total <= 0:
            return None
        index = self._rng.choice(len(free), p=free / total)
        self._taken.append((self._middle[index], space_nm))
        return self._middle[index], self._normal[index]


def _populate(
    scene: Scene,
    surface: Surface,
    physics: Physics,
    architecture: Architecture,
    motors: MotorArchitecture,
    rng: np.random.Generator,
) -> None:
    """Put T3SS and look-alikes on a cell."""
    gap = physics.membrane_gap_nm
    sites = _FreeSites(scene, surface, physics, rng)

    def put(count: int, space_nm: float, tilt_spread_degrees: float, draw: Callable[[], Particle]) -> None:
        for _ in range(count):
            site = sites.take(space_nm)
            if site is None:
                return
            particle = draw()
            axis = site[1] + np.tan(np.radians(tilt_spread_degrees)) * rng.standard_normal(3)
            scene.put(particle, site[0], axis / np.linalg.norm(axis), rng.uniform(0, 2 * np.pi))

    def draw_t3ss() -> Particle:
        length = physics.needle_length_nm + physics.needle_length_spread_nm * rng.standard_normal()
        without_needle = rng.random() < physics.needle_missing_fraction
        with_platform = rng.random() >= physics.platform_missing_fraction
        length = 0.0 if without_needle else max(length, 10.0)
        return t3ss(rng, physics, architecture, needle_length_nm=length, with_platform=with_platform)

    space = physics.spacing_nm
    put(physics.t3ss_per_cell, space, physics.t3ss_tilt_spread_degrees, draw_t3ss)
    motor_space = max(space + 5, motors.diameter_nm + MOTOR_MARGIN_NM)
    put(physics.flagellar_motors_per_cell, motor_space, 3.0, lambda: flagellar_motor(rng, gap, motors))
    if rng.random() < 0.3:
        put(1, CHEMORECEPTOR_SPACE_NM, 1.0, lambda: particles.chemoreceptor_patch(rng, gap))
    put(physics.secretins_per_cell, SECRETIN_SPACE_NM, 4.0, lambda: particles.secretin(rng, gap))
    for _ in range(physics.docked_ribosomes_per_cell):
        site = sites.take(RIBOSOME_SPACE_NM)
        if site is not None:
            below = site[0] - site[1] * (gap / 2 + rng.uniform(*DOCKED_RIBOSOME_NM))
            scene.put(particles.ribosome(rng), below, random_direction(rng), 0.0)

    def draw_protein(height: float) -> Particle:
        return particles.membrane_protein(rng, height, rng.random() < 0.5)

    inner, outer = physics.inner_membrane_proteins_per_cell, physics.outer_membrane_proteins_per_cell
    put(inner, PROTEIN_SPACE_NM, 6.0, lambda: draw_protein(-gap / 2))
    put(outer, PROTEIN_SPACE_NM, 6.0, lambda: draw_protein(gap / 2))


def _scatter(
    scene: Scene, compartment: int, per_um3: float, draw: Callable[[], Particle], rng: np.random.Generator
) -> None:
    """Put free particles at random positions of a compartment."""
    volume = float(np.count_nonzero(scene.compartment == compartment)) * (scene.voxel_nm / 1000) ** 3
    space = round(FREE_SPACE_NM / scene.voxel_nm)
    for _ in range(rng.poisson(per_um3 * volume)):
        for _attempt in range(20):
            position = rng.uniform(0, 1, 3) * scene.size_nm
            voxel = np.round(position / scene.voxel_nm).astype(int)
            box = tuple(slice(max(i - space, 0), i + space + 1) for i in voxel)
            if (scene.compartment[box] == compartment).all() and not scene.labels[box].any():
                scene.put(draw(), position, random_direction(rng), 0.0)
                break


def _add_carbon(scene: Scene, thickness_nm: float, rng: np.random.Generator) -> None:
    """Add an amorphous carbon film at one z face, with the edge of a hole across the volume."""
    radius = rng.uniform(600, 1200)
    azimuth = rng.uniform(0, 2 * np.pi)
    lateral = scene.size_nm[1:]
    distance = radius - rng.uniform(0.1, 0.45) * float(lateral.min())
    hole = lateral / 2 - distance * np.array([np.sin(azimuth), np.cos(azimuth)])
    y = np.arange(scene.shape[1])[:, None] * scene.voxel_nm - hole[0]
    x = np.arange(scene.shape[2])[None, :] * scene.voxel_nm - hole[1]
    film = np.clip(np.hypot(y, x) - radius + 0.5, 0, 1).astype(np.float32)
    slices = min(max(1, round(thickness_nm / scene.voxel_nm)), scene.shape[0])
    start = 0 if rng.random() < 0.5 else scene.shape[0] - slices
    part = slice(start, start + slices)
    grain = rng.normal(1.1, 0.5, (slices, *scene.shape[1:])).astype(np.float32)
    free = scene.compartment[part] == OUTSIDE
    scene.density[part] += np.where(free, film * grain, 0)
    scene.labels[part][free & (film > 0.5)] = LABELS.index("carbon")
