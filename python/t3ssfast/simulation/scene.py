"""The volumes of a specimen, and the operations that add cells, vesicles, particles and crowding to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from t3ssfast.simulation.geometry import Surface
from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.particles import Particle

__all__ = [
    "CYTOPLASM",
    "LABELS",
    "LUMEN",
    "OUTSIDE",
    "Scene",
    "add_crowding",
    "add_membranes",
    "random_direction",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

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
# Values in the compartment volume.
OUTSIDE, ENVELOPE, CYTOPLASM, LUMEN = 0, 1, 2, 3

TABLE_STEP_NM = 0.05  # Densities across a membrane are tabulated in steps of this distance.
# Extent of a bilayer from its middle, and free space around it.
BILAYER_NM, MARGIN_NM = 5.0, 1.0
# Peptidoglycan: position as a fraction of the periplasm from the inner membrane, and Gaussian width.
PEPTIDOGLYCAN_POSITION, PEPTIDOGLYCAN_SIGMA_NM = 0.68, 1.8
LABEL_FILL = 0.4  # A particle labels the voxels that it fills by more than this fraction.
# Diameters of the proteins that crowd a compartment, half of the volume fraction each.
CROWDER_DIAMETERS_NM = (4.0, 7.0)


class Scene:
    """A specimen under construction. Voxel (0, 0, 0) is centred at 0 nm."""

    def __init__(self, shape: tuple[int, int, int], voxel_nm: float) -> None:
        self.shape, self.voxel_nm = shape, voxel_nm
        self.density = np.zeros(shape, np.float32)
        self.membrane, self.labels, self.compartment = (np.zeros(shape, np.uint8) for _ in range(3))
        # Kind, centre (voxels, zyx) and axis (zyx) of every particle.
        self.placed: list[tuple[str, Float64, Float64]] = []

    @property
    def size_nm(self) -> Float64:
        """(3,) distance between the first and last voxel."""
        return (np.array(self.shape, dtype=np.float64) - 1) * self.voxel_nm

    def contains(self, position_nm: Float64, margin_nm: float) -> npt.NDArray[np.bool_]:
        """Return which of (n, 3) positions are at least `margin_nm` from the faces."""
        inside = (position_nm >= margin_nm) & (position_nm <= self.size_nm - margin_nm)
        return np.asarray(np.all(inside, axis=-1))

    def put(self, particle: Particle, centre_nm: Float64, axis_zyx: Float64, rot: float) -> None:
        """Add a particle with its origin at `centre_nm`, its axis along a unit vector, rotated by `rot`."""
        low_s, high_s, radius = particle.extent_nm
        ends = np.stack([centre_nm + axis_zyx * low_s, centre_nm + axis_zyx * high_s])
        side = radius * np.sqrt(np.maximum(1 - axis_zyx**2, 0))
        low = np.clip(np.floor((ends.min(axis=0) - side) / self.voxel_nm).astype(int), 0, self.shape)
        high = np.clip(np.ceil((ends.max(axis=0) + side) / self.voxel_nm).astype(int) + 1, 0, self.shape)
        if np.all(high > low):
            box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
            density, filled = particle.density(*self.cylinder_coordinates(box, centre_nm, axis_zyx, rot))
            target = self.density[box]
            target *= 1 - filled
            target += density
            self.labels[box][filled > LABEL_FILL] = LABELS.index(particle.kind)
        self.placed.append((particle.kind, centre_nm / self.voxel_nm, axis_zyx))

    def cylinder_coordinates(
        self, box: tuple[slice, slice, slice], centre_nm: Float64, axis_zyx: Float64, rot: float
    ) -> tuple[Float32, Float32, Float32]:
        """Return s, r (nm) and phi (radians) of the voxels of a box, about an axis through `centre_nm`."""
        helper = np.eye(3)[np.argmin(np.abs(axis_zyx))]
        first = np.cross(axis_zyx, helper)
        first /= np.linalg.norm(first)
        second = np.cross(axis_zyx, first)
        cos, sin = np.cos(rot), np.sin(rot)
        first, second = cos * first + sin * second, cos * second - sin * first
        offsets = (
            (np.arange(cut.start, cut.stop) * self.voxel_nm - c).astype(np.float32)
            for cut, c in zip(box, centre_nm, strict=True)
        )
        z, y, x = np.ix_(*offsets)

        def along(vector: Float64) -> Float32:
            w = vector.astype(np.float32)
            return np.asarray(w[0] * z + w[1] * y + w[2] * x)

        a, b = along(first), along(second)
        return along(axis_zyx), np.hypot(a, b), np.arctan2(b, a)


def random_direction(rng: np.random.Generator) -> Float64:
    """Draw a unit vector, (3,)."""
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _bilayer(distance: Float64, physics: Physics, voxel_nm: float) -> Float64:
    """Return the density of a bilayer at distances from its middle; voxels widen the Gaussians."""
    sigma = np.sqrt(physics.leaflet_sigma_nm**2 + voxel_nm**2 / 12)
    height = physics.head_density * physics.leaflet_sigma_nm / sigma
    half = physics.leaflet_distance_nm / 2
    heads = np.exp(-0.5 * ((distance - half) / sigma) ** 2) + np.exp(-0.5 * ((distance + half) / sigma) ** 2)
    tails = np.clip((half - np.abs(distance)) / sigma + 0.5, 0, 1)
    return np.asarray(height * heads + physics.tail_density * tails)


def add_membranes(scene: Scene, surface: Surface, physics: Physics, outer_nm: float | None) -> bool:
    """Add a cell (outer membrane at +outer_nm from the inner) or a vesicle (outer_nm None) to free space.

    Return False, without any change, if it would overlap something or lies outside the volume.
    """
    last = 0.0 if outer_nm is None else outer_nm
    reach = last + (BILAYER_NM + MARGIN_NM)
    hull = surface.points(10.0)
    rim = hull.position_zyx + BILAYER_NM * hull.normal_zyx + last * hull.normal_zyx
    index = np.round(rim[scene.contains(rim, 0.0)] / scene.voxel_nm).astype(int)
    # Cheap test before the distances are computed.
    if not len(index) or (scene.compartment[tuple(index.T)] != OUTSIDE).any():
        return False
    found = surface.signed_distance(scene.shape, scene.voxel_nm, pad_nm=reach, reach_nm=reach)
    if found is None:
        return False
    box, distance = found
    enclosed = distance < last + BILAYER_NM
    if not enclosed.any() or (scene.compartment[box][enclosed] != OUTSIDE).any():
        return False
    axis = np.arange(-reach, reach + TABLE_STEP_NM, TABLE_STEP_NM)
    profile = _bilayer(axis, physics, scene.voxel_nm)
    near = np.abs(axis)
    compartment = np.where(axis < -3, CYTOPLASM if outer_nm is not None else LUMEN, ENVELOPE)
    if outer_nm is not None:
        inside = np.clip(0.5 - axis / 2, 0, 1)
        periplasm = np.clip(0.5 + axis / 2, 0, 1) * np.clip(0.5 + (outer_nm - axis) / 2, 0, 1)
        peptidoglycan = (axis - PEPTIDOGLYCAN_POSITION * outer_nm) / PEPTIDOGLYCAN_SIGMA_NM
        profile = profile + _bilayer(axis - outer_nm, physics, scene.voxel_nm)
        profile += physics.cytoplasm_density * inside + physics.periplasm_density * periplasm
        profile += physics.peptidoglycan_density * np.exp(-0.5 * peptidoglycan**2)
        near = np.minimum(near, np.abs(axis - outer_nm))
    in_membrane = near <= physics.membrane_half_thickness_nm

    entry = (np.clip(distance + np.float32(reach), 0, 2 * reach) / TABLE_STEP_NM + 0.5).astype(np.int32)
    np.copyto(scene.density[box], profile.astype(np.float32)[entry], where=enclosed)
    np.copyto(scene.compartment[box], compartment.astype(np.uint8)[entry], where=enclosed)
    mask = in_membrane[entry]
    scene.membrane[box][mask] = 1
    scene.labels[box][mask] = LABELS.index("membrane")
    return True


def add_crowding(scene: Scene, physics: Physics, rng: np.random.Generator) -> None:
    """Fill the compartments with small globular proteins, as blurred points."""
    fraction = np.zeros(4)
    fraction[OUTSIDE] = fraction[LUMEN] = physics.outside_crowding_fraction
    fraction[CYTOPLASM] = physics.crowding_fraction
    voxel = scene.voxel_nm**3
    for diameter in CROWDER_DIAMETERS_NM:
        protein = np.pi / 6 * diameter**3
        count = rng.poisson(scene.density.size * voxel * (fraction.max() / 2) / protein)
        if count == 0:
            continue
        index = rng.integers(0, scene.density.size, count)
        kept = index[rng.random(count) * fraction.max() < fraction[scene.compartment.reshape(-1)[index]]]
        points = np.bincount(kept, minlength=scene.density.size).astype(np.float32)
        # The Gaussian with the volume and the peak density of a ball.
        sigma = diameter / 2 * (np.pi * 4 / 3 / (2 * np.pi) ** 1.5) ** (1 / 3) / scene.voxel_nm
        blurred = scipy.ndimage.gaussian_filter(points.reshape(scene.shape), sigma, truncate=3.0)
        blurred *= np.float32(protein / voxel)
        scene.density += blurred
