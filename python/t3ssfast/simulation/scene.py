"""Where everything is: cells, vesicles, machines and crowders in one volume, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from t3ssfast.simulation import particles
from t3ssfast.simulation.geometry import Surface, SurfacePoints, irregular_surface
from t3ssfast.simulation.parameters import Physics

__all__ = ["LABELS", "Scene", "build_scene"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

# Index = value in the label volume.
LABELS = (
    "background",
    "membrane",
    "t3ss",
    "flagellar_motor",
    "secretin",
    "chemoreceptor_array",
    "ribosome",
    "membrane_protein",
    "protein",
    "gold_bead",
    "carbon",
)
MEMBRANE = LABELS.index("membrane")
CARBON = LABELS.index("carbon")

# Compartments, for crowders.
OUTSIDE, ENVELOPE, CYTOPLASM, LUMEN = 0, 1, 2, 3

# Distances are looked up in tables of this step.
TABLE_STEP_NM = 0.05


@dataclass
class Scene:
    """A specimen under construction.

    Parameters
    ----------
    shape, voxel_nm
        Of the volume; voxel (0, 0, 0) is centred at 0 nm.
    density, membrane, labels, compartment
        (z, y, x) volumes.
    placed
        Kind, centre (voxels, zyx) and normal (zyx) of every particle put in.
    """

    shape: tuple[int, int, int]
    voxel_nm: float
    density: Float32 = field(init=False)
    membrane: UInt8 = field(init=False)
    labels: UInt8 = field(init=False)
    compartment: UInt8 = field(init=False)
    placed: list[tuple[str, Float64, Float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape, np.float32)
        self.membrane = np.zeros(self.shape, np.uint8)
        self.labels = np.zeros(self.shape, np.uint8)
        self.compartment = np.zeros(self.shape, np.uint8)

    @property
    def size_nm(self) -> Float64:
        """(3,) distance between the first and last voxel."""
        return (np.array(self.shape, dtype=np.float64) - 1) * self.voxel_nm

    def contains(self, position_nm: Float64, margin_nm: float) -> npt.NDArray[np.bool_]:
        """Which of (n, 3) positions are at least `margin_nm` from the faces."""
        return np.asarray(
            np.all((position_nm >= margin_nm) & (position_nm <= self.size_nm - margin_nm), axis=-1)
        )

    def put(
        self,
        particle: particles.Particle,
        centre_nm: Float64,
        axis_zyx: Float64,
        rot: float,
    ) -> None:
        """Add a particle with its origin at `centre_nm` and its axis along the unit vector `axis_zyx`."""
        low_s, high_s, reach = particle.reach_nm
        ends = np.stack([centre_nm + axis_zyx * low_s, centre_nm + axis_zyx * high_s])
        side = reach * np.sqrt(np.maximum(1 - axis_zyx**2, 0))
        low = np.clip(np.floor((ends.min(axis=0) - side) / self.voxel_nm).astype(int), 0, self.shape)
        high = np.clip(np.ceil((ends.max(axis=0) + side) / self.voxel_nm).astype(int) + 1, 0, self.shape)
        if np.all(high > low):
            box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
            s, r, phi = self._cylinder(box, centre_nm, axis_zyx, rot)
            density, filled = particle.shape(s, r, phi)
            target = self.density[box]
            target *= 1 - filled
            target += density
            solid = filled > 0.4
            self.labels[box][solid] = LABELS.index(particle.kind)
        self.placed.append((particle.kind, centre_nm / self.voxel_nm, axis_zyx))

    def _cylinder(
        self, box: tuple[slice, slice, slice], centre_nm: Float64, axis_zyx: Float64, rot: float
    ) -> tuple[Float32, Float32, Float32]:
        helper = np.eye(3)[np.argmin(np.abs(axis_zyx))]
        first = np.cross(axis_zyx, helper)
        first /= np.linalg.norm(first)
        second = np.cross(axis_zyx, first)
        first, second = (
            np.cos(rot) * first + np.sin(rot) * second,
            np.cos(rot) * second - np.sin(rot) * first,
        )
        steps = [
            (np.arange(cut.start, cut.stop) * self.voxel_nm - c).astype(np.float32)
            for cut, c in zip(box, centre_nm, strict=True)
        ]
        z, y, x = steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]

        def along(v: Float64) -> Float32:
            w = v.astype(np.float32)
            out: Float32 = w[0] * z + w[1] * y + w[2] * x
            return out

        a, b = along(first), along(second)
        return along(axis_zyx), np.hypot(a, b), np.arctan2(b, a)


def _bilayer(distance: Float64, physics: Physics, voxel_nm: float) -> Float64:
    """Density across one bilayer, its middle at 0; a voxel's average widens the Gaussians."""
    sigma = np.sqrt(physics.leaflet_sigma_nm**2 + voxel_nm**2 / 12)
    height = physics.head_density * physics.leaflet_sigma_nm / sigma
    half = physics.leaflet_distance_nm / 2
    heads = np.exp(-0.5 * ((distance - half) / sigma) ** 2) + np.exp(-0.5 * ((distance + half) / sigma) ** 2)
    tails = np.clip((half - np.abs(distance)) / sigma + 0.5, 0, 1)
    return np.asarray(height * heads + physics.tail_density * tails)


def _enclose(scene: Scene, surface: Surface, physics: Physics, outer_nm: float | None) -> bool:
    """Paint a cell (two membranes, the second at +outer_nm) or a vesicle (outer_nm None) into free space.

    Returns False, and paints nothing, where it would overlap what is there, or misses the volume.
    """
    last = 0.0 if outer_nm is None else outer_nm
    reach = last + 6
    rim = surface.points(10.0)
    hull = rim.position_zyx + 5 * rim.normal_zyx + last * rim.normal_zyx
    hull = hull[scene.contains(hull, 0.0)]
    index = np.round(hull / scene.voxel_nm).astype(int)
    if not len(index) or (scene.compartment[tuple(index.T)] != OUTSIDE).any():
        return False
    found = surface.signed_distance(scene.shape, scene.voxel_nm, pad_nm=reach, reach_nm=reach)
    if found is None:
        return False
    box, distance = found
    taken = distance < last + 5
    if not taken.any() or (scene.compartment[box][taken] != OUTSIDE).any():
        return False
    axis = np.arange(-reach, reach + TABLE_STEP_NM, TABLE_STEP_NM)
    profile = _bilayer(axis, physics, scene.voxel_nm)
    near = np.abs(axis)
    compartment = np.where(axis < -3, CYTOPLASM if outer_nm is not None else LUMEN, ENVELOPE)
    if outer_nm is not None:
        inside = np.clip(0.5 - axis / 2, 0, 1)
        between = np.clip(0.5 + axis / 2, 0, 1) * np.clip(0.5 + (outer_nm - axis) / 2, 0, 1)
        profile = profile + _bilayer(axis - outer_nm, physics, scene.voxel_nm)
        profile += physics.cytoplasm_density * inside + physics.periplasm_density * between
        # Peptidoglycan: a thin layer nearer to the outer membrane.
        profile += physics.peptidoglycan_density * np.exp(-0.5 * ((axis - 0.68 * outer_nm) / 1.8) ** 2)
        near = np.minimum(near, np.abs(axis - outer_nm))
    in_membrane = near <= physics.membrane_half_thickness_nm

    entry = (np.clip(distance + np.float32(reach), 0, 2 * reach) / TABLE_STEP_NM + 0.5).astype(np.int32)
    np.copyto(scene.density[box], profile.astype(np.float32)[entry], where=taken)
    np.copyto(scene.compartment[box], compartment.astype(np.uint8)[entry], where=taken)
    mask = in_membrane[entry]
    scene.membrane[box][mask] = 1
    scene.labels[box][mask] = MEMBRANE
    return True


def _into_view(scene: Scene, surface: Surface, rng: np.random.Generator) -> Surface:
    """The same surface, moved so that some point of its flank lies in the middle of the volume."""
    points = surface.points(10.0)
    flank = np.flatnonzero(np.abs(points.normal_zyx[:, 0]) < 0.5)
    spot = points.position_zyx[flank[rng.integers(len(flank))]]
    goal = scene.size_nm * rng.uniform(0.3, 0.7, 3)
    return replace(surface, centre_zyx=surface.centre_zyx + goal - spot)


def _crowd(scene: Scene, physics: Physics, rng: np.random.Generator) -> None:
    """Fill compartments with small globular proteins, as points blurred to 4 and 7 nm."""
    fraction = np.zeros(4)
    fraction[OUTSIDE] = fraction[LUMEN] = physics.outside_crowding_fraction
    fraction[CYTOPLASM] = physics.crowding_fraction
    voxel = scene.voxel_nm**3
    for diameter in (4.0, 7.0):
        each = np.pi / 6 * diameter**3
        highest = fraction.max() / 2
        count = rng.poisson(scene.density.size * voxel * highest / each)
        if count == 0:
            continue
        index = rng.integers(0, scene.density.size, count)
        kept = index[rng.random(count) * fraction.max() < fraction[scene.compartment.reshape(-1)[index]]]
        points = np.bincount(kept, minlength=scene.density.size).astype(np.float32)
        # The Gaussian of a ball's volume whose peak is the ball's density.
        sigma = diameter / 2 * (np.pi * 4 / 3 / (2 * np.pi) ** 1.5) ** (1 / 3) / scene.voxel_nm
        blobs = scipy.ndimage.gaussian_filter(points.reshape(scene.shape), sigma, truncate=3.0)
        blobs *= np.float32(each / voxel)
        scene.density += blobs


class _Sites:
    """Places on a cell's surface that are still free."""

    def __init__(
        self, scene: Scene, points: SurfacePoints, gap_nm: float, margin_nm: float, rng: np.random.Generator
    ):
        middle = points.position_zyx + points.normal_zyx * (gap_nm / 2)
        seen = scene.contains(middle, margin_nm)
        self.middle, self.normal, self.area = middle[seen], points.normal_zyx[seen], points.area[seen]
        self.rng = rng
        self.taken: list[tuple[Float64, float]] = []

    def take(self, room_nm: float) -> tuple[Float64, Float64] | None:
        """A random free place (middle of the envelope, outward normal) with `room_nm` about it, or None."""
        free = self.area.copy()
        for position, room in self.taken:
            free[np.sum((self.middle - position) ** 2, axis=1) < ((room + room_nm) / 2) ** 2] = 0
        total = free.sum()
        if total <= 0:
            return None
        index = self.rng.choice(len(free), p=free / total)
        self.taken.append((self.middle[index], room_nm))
        return self.middle[index], self.normal[index]


def _tilted(axis: Float64, spread_degrees: float, rng: np.random.Generator) -> Float64:
    moved = axis + np.tan(np.radians(spread_degrees)) * rng.standard_normal(3)
    return np.asarray(moved / np.linalg.norm(moved))


def _direction(rng: np.random.Generator) -> Float64:
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _populate(
    scene: Scene,
    surface: Surface,
    physics: Physics,
    like: particles.Architecture,
    rng: np.random.Generator,
) -> None:
    """Put machines and look-alikes onto one cell."""
    gap = physics.membrane_gap_nm
    points = surface.points(6.0)
    sites = _Sites(scene, points, gap, physics.edge_margin_nm, rng)

    def each(
        count: int, room_nm: float, spread_degrees: float, make: Callable[[], particles.Particle]
    ) -> None:
        for _ in range(count):
            site = sites.take(room_nm)
            if site is None:
                return
            scene.put(make(), site[0], _tilted(site[1], spread_degrees, rng), rng.uniform(0, 2 * np.pi))

    def injectisome() -> particles.Particle:
        length = physics.needle_length_nm + physics.needle_length_spread_nm * rng.standard_normal()
        bare = rng.random() < physics.needle_missing_fraction
        return particles.t3ss(
            rng,
            gap,
            size_spread=physics.t3ss_size_spread,
            density_spread=physics.t3ss_density_spread,
            needle_length_nm=0.0 if bare else max(length, 10.0),
            with_platform=rng.random() >= physics.platform_missing_fraction,
            like=like,
        )

    room = physics.spacing_nm
    each(physics.t3ss_per_cell, room, physics.t3ss_tilt_spread_degrees, injectisome)
    each(physics.flagellar_motors_per_cell, room + 5, 3.0, lambda: particles.flagellar_motor(rng, gap))
    if rng.random() < 0.3:
        each(1, 90.0, 1.0, lambda: particles.chemoreceptor_patch(rng, gap))
    each(physics.secretins_per_cell, 28.0, 4.0, lambda: particles.secretin(rng, gap))
    for _ in range(physics.docked_ribosomes_per_cell):
        site = sites.take(26.0)
        if site is not None:
            below = site[0] - site[1] * (gap / 2 + rng.uniform(13, 16))
            scene.put(particles.ribosome(rng), below, _direction(rng), 0.0)
    inner, outer = -gap / 2, gap / 2
    for count, level in (
        (physics.inner_membrane_proteins_per_cell, inner),
        (physics.outer_membrane_proteins_per_cell, outer),
    ):
        each(count, 12.0, 6.0, lambda level=level: particles.membrane_protein(rng, level, rng.random() < 0.5))  # type: ignore[misc]


def _scatter(
    scene: Scene,
    compartment: int,
    per_cubic_um: float,
    make: Callable[[], particles.Particle],
    rng: np.random.Generator,
) -> None:
    """Free particles at random places of one compartment, off membranes and off each other."""
    volume = float(np.count_nonzero(scene.compartment == compartment)) * (scene.voxel_nm / 1000) ** 3
    for _ in range(rng.poisson(per_cubic_um * volume)):
        for _attempt in range(20):
            position = rng.uniform(0, 1, 3) * scene.size_nm
            middle = np.round(position / scene.voxel_nm).astype(int)
            low = np.maximum(middle - round(12 / scene.voxel_nm), 0)
            high = middle + round(12 / scene.voxel_nm) + 1
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            if (scene.compartment[box] == compartment).all() and not scene.labels[box].any():
                scene.put(make(), position, _direction(rng), 0.0)
                break


def _carbon(scene: Scene, thickness_nm: float, rng: np.random.Generator) -> None:
    """An amorphous film at one z face, with the edge of a hole across the volume."""
    radius = rng.uniform(600, 1200)
    side = rng.uniform(0, 2 * np.pi)
    centre = scene.size_nm[1:] / 2
    away = radius - rng.uniform(0.1, 0.45) * float(scene.size_nm[1:].min())
    hole = centre - away * np.array([np.sin(side), np.cos(side)])
    y = np.arange(scene.shape[1])[:, None] * scene.voxel_nm - hole[0]
    x = np.arange(scene.shape[2])[None, :] * scene.voxel_nm - hole[1]
    film = np.clip(np.hypot(y, x) - radius + 0.5, 0, 1).astype(np.float32)
    slices = min(max(1, round(thickness_nm / scene.voxel_nm)), scene.shape[0])
    start = 0 if rng.random() < 0.5 else scene.shape[0] - slices
    part = slice(start, start + slices)
    grain = rng.normal(1.1, 0.5, (slices, *scene.shape[1:])).astype(np.float32)
    free = scene.compartment[part] == OUTSIDE
    scene.density[part] += np.where(free, film * grain, 0)
    scene.labels[part][free & (film > 0.5)] = CARBON


def build_scene(
    shape: tuple[int, int, int], voxel_nm: float, physics: Physics, rng: np.random.Generator
) -> Scene:
    """A specimen: cells with their machines, vesicles, free particles, fiducials.

    Parameters
    ----------
    shape, voxel_nm
        Of the volume.
    physics
        What is in it.
    rng
        Source of every choice.
    """
    scene = Scene(shape, voxel_nm)
    size = scene.size_nm
    cells: list[Surface] = []
    for number in range(physics.cells):
        for attempt in range(8):
            shrink = rng.uniform(0.85, 1.15)
            lateral = physics.cell_radius_nm * shrink
            stretch = np.sqrt(physics.cell_elongation)
            axes = np.array([lateral * physics.cell_flattening, lateral * stretch, lateral / stretch])
            # The first cell is well in view; others may come in from the sides.
            spread = 0.22 if number == 0 else 0.6
            centre = size / 2 + rng.uniform(-1, 1, 3) * np.array([0.2, spread, spread]) * size
            cell = irregular_surface(rng, centre, axes, physics.cell_roughness)
            if attempt >= 3:
                cell = _into_view(scene, cell, rng)
            if _enclose(scene, cell, physics, physics.membrane_gap_nm):
                cells.append(cell)
                break
    for _ in range(physics.large_vesicles):
        for attempt in range(8):
            radius = physics.large_vesicle_radius_nm * rng.uniform(0.5, 1.2)
            axes = radius * np.array([rng.uniform(0.6, 1.1), rng.uniform(0.85, 1.2), 1.0])
            centre = size / 2 + rng.uniform(-0.6, 0.6, 3) * size
            vesicle = irregular_surface(rng, centre, axes, 0.03)
            if attempt >= 3:
                vesicle = _into_view(scene, vesicle, rng)
            if _enclose(scene, vesicle, physics, None):
                break
    for _ in range(physics.small_vesicles):
        for _attempt in range(8):
            radius = max(physics.small_vesicle_radius_nm * rng.uniform(0.6, 1.4), 8.0)
            if cells and rng.random() < 0.6:
                host = cells[rng.integers(len(cells))].points(10.0)
                visible = np.flatnonzero(scene.contains(host.position_zyx, 0.0))
                if not len(visible):
                    continue
                spot = visible[rng.integers(len(visible))]
                distance = physics.membrane_gap_nm + 11 + radius + rng.exponential(8)
                centre = host.position_zyx[spot] + distance * host.normal_zyx[spot]
            else:
                centre = rng.uniform(0, 1, 3) * size
            axes = radius * rng.uniform(0.85, 1.15, 3)
            if _enclose(scene, irregular_surface(rng, centre, axes, 0.02), physics, None):
                break
    _crowd(scene, physics, rng)
    if physics.carbon_film_nm > 0:
        _carbon(scene, physics.carbon_film_nm, rng)
    # One species a specimen. A generator of its own: nothing else depends on what it is like.
    like = particles.Architecture.draw(rng.spawn(1)[0], physics.t3ss_variety)
    for cell in cells:
        _populate(scene, cell, physics, like, rng)
    _scatter(scene, CYTOPLASM, physics.ribosomes_per_cubic_um, lambda: particles.ribosome(rng), rng)
    for compartment in (OUTSIDE, LUMEN):
        make = lambda: particles.ribosome(rng) if rng.random() < 0.3 else particles.globule(rng)  # noqa: E731
        _scatter(scene, compartment, physics.outside_proteins_per_cubic_um, make, rng)
    for _ in range(physics.gold_beads):
        centre = rng.uniform(0, 1, 3) * size
        if scene.compartment[tuple(np.round(centre / voxel_nm).astype(int))] == OUTSIDE:
            scene.put(particles.gold_bead(physics.gold_diameter_nm), centre, _direction(rng), 0.0)
    return scene
