"""The surroundings of a cell's membrane, unrolled into a flat block around one point of it.

The membrane of a minicell is described by its distance from a centre in every direction. The directions
around a chosen one are laid out on a plane as geographers do with the azimuthal equidistant projection:
distances and directions from the point in the middle are true. Every pixel of the plane has a point of the
surface and a normal there, and the block holds the grey values along the normals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import RBFInterpolator, RectBivariateSpline
from scipy.spatial import KDTree

from t3ssfast.detection.connected_components import label_components
from t3ssfast.errors import InputError
from t3ssfast.tomogram import Tomogram

__all__ = ["Surface", "Unrolled", "fit_surface", "unroll"]

Float64Array = npt.NDArray[np.float64]

# Voxel size at which the membrane is searched for its parts; a bilayer is about 7 nm thick.
GRID_NM = 4.0
# A part of the membrane below this area is no cell; its voxels fill a layer of the bilayer's thickness.
MIN_AREA_NM2, BILAYER_NM = 6000.0, 7.0
# Minicells are up to a micrometre long; what is farther from the point belongs to other cells.
REACH_NM = 1000.0
# Voxels this far from the surface of a part belong to its other membrane: the two are 25-30 nm apart.
OTHER_MEMBRANE_NM = 38.0
# Directions are averaged over patches of about this many degrees.
PATCH_DEGREES = 6.0
# Smoothing of the spline of what differs from an ellipsoid; it follows dents but not the noise of the mask.
SMOOTHING = 0.3
# Weight of the sphere against the ellipsoid, which a thin slab of a cell determines badly.
RIDGE = 1e-4
# An axis of the ellipsoid differs from the mean radius by this factor at most.
MAX_RATIO = 3.0
# A T3SS reaches about 30 nm into the cell, and its needle 60 nm out of it.
INNER_NM, OUTER_NM = 45.0, 75.0
# Distance of the pixels at which the surface is computed; it is interpolated between them.
SPLINE_PIXELS = 6
# The projection shows directions up to this angle; beyond, it is stretched too far.
MAX_DEGREES = 150.0


@dataclass(frozen=True)
class Surface:
    """A closed surface as the distance from a centre in every direction.

    Parameters
    ----------
    centre_zyx
        (3,) in voxels.
    radius
        Function of (n, 3) unit vectors, zyx, that returns (n,) distances in voxels.
    mean_radius
        In voxels.
    """

    centre_zyx: Float64Array
    radius: Any
    mean_radius: float


@dataclass(frozen=True)
class Unrolled:
    """A flat block around a membrane.

    Parameters
    ----------
    values
        (height, v, u) float32, from the inside of the cell outwards; NaN outside of the tomogram.
    heights_nm
        (height,) distance of each layer from the surface, positive outside of the cell.
    step_nm
        Distance of the pixels in the middle of the plane, and of the layers.
    surface_zyx, normal_zyx
        (v, u, 3) point of the surface in voxels, and unit normal there out of the cell; NaN beyond the
        directions that are shown.
    voxel_size_angstrom
        Of the tomogram.
    """

    values: npt.NDArray[np.float32]
    heights_nm: Float64Array
    step_nm: float
    surface_zyx: Float64Array
    normal_zyx: Float64Array
    voxel_size_angstrom: float

    def to_map(self, centre_zyx: npt.ArrayLike) -> Float64Array:
        """Return the (n, 3) height in nm, row and column of positions in voxels; NaN for those not shown."""
        centre = np.asarray(centre_zyx, np.float64).reshape(-1, 3)
        nm = self.voxel_size_angstrom / 10
        flat = self.surface_zyx.reshape(-1, 3)
        known = np.flatnonzero(np.isfinite(flat[:, 0]))
        found = np.full((len(centre), 3), np.nan)
        if not len(known) or not len(centre):
            return found
        # The foot of the normal through a position: nearest of the surface at the height of the position.
        _, nearest = KDTree(flat[known]).query(centre)
        foot = known[nearest]
        height = ((centre - flat[foot]) * self.normal_zyx.reshape(-1, 3)[foot]).sum(axis=1) * nm
        row, column = np.divmod(foot, self.surface_zyx.shape[1])
        sideways = np.linalg.norm(
            centre - flat[foot] - height[:, None] / nm * self.normal_zyx.reshape(-1, 3)[foot], axis=1
        )
        shown = (height >= self.heights_nm[0]) & (height <= self.heights_nm[-1])
        # Farther from the normal than pixels lie apart, even where they are stretched: beyond the rim.
        shown &= sideways * nm < 4 * self.step_nm
        found[shown] = np.stack([height, row, column], axis=1)[shown]
        return found

    def to_tomogram(self, height_nm: float, row: float, column: float) -> Float64Array | None:
        """Return the (3,) position in voxels of a point of the block, or None where nothing is shown."""
        shape = self.surface_zyx.shape[:2]
        v, u = int(np.clip(round(row), 0, shape[0] - 1)), int(np.clip(round(column), 0, shape[1] - 1))
        point = self.surface_zyx[v, u] + height_nm * 10 / self.voxel_size_angstrom * self.normal_zyx[v, u]
        return point if np.isfinite(point).all() else None

    def mean_of_layers(self, height_nm: float, thickness_nm: float) -> npt.NDArray[np.float32]:
        """Return the (v, u) mean of the layers around a height; NaN where nothing is known."""
        chosen = np.abs(self.heights_nm - height_nm) <= thickness_nm / 2
        if not chosen.any():
            chosen = np.abs(self.heights_nm - height_nm) == np.abs(self.heights_nm - height_nm).min()
        layers = self.values[chosen]
        known = np.isfinite(layers)
        total = np.where(known, layers, 0).sum(axis=0, dtype=np.float64)
        count = known.sum(axis=0)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return np.asarray(mean, np.float32)


def unroll(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    point_zyx: npt.ArrayLike,
    *,
    width_nm: float = 500.0,
    step_nm: float = 2.0,
    inner_nm: float = INNER_NM,
    outer_nm: float = OUTER_NM,
) -> Unrolled:
    """Unroll the surroundings of the membrane nearest to a point.

    Parameters
    ----------
    tomogram
        The tomogram.
    membrane
        (z, y, x) mask of its shape.
    point_zyx
        (3,) in voxels: the middle of the plane. The nearest part of the membrane is unrolled.
    width_nm
        Side of the plane, along the membrane.
    step_nm
        Distance of pixels and layers.
    inner_nm, outer_nm
        Depth into the cell, and height out of it.

    Raises
    ------
    InputError
        If the membrane has another shape than the tomogram, or no part that could be a cell.
    """
    if membrane.shape != tomogram.shape:
        raise InputError(
            f"membrane: its shape is {membrane.shape}, and the tomogram's is {tomogram.shape}; give the mask "
            "of this tomogram."
        )
    nm = tomogram.voxel_size_angstrom / 10
    surface = fit_surface(membrane, point_zyx, voxel_size_angstrom=tomogram.voxel_size_angstrom)
    towards = np.asarray(point_zyx, np.float64) - surface.centre_zyx
    directions, angle = _directions(towards, surface, int(width_nm / step_nm), step_nm / nm)
    points, normals = _points_and_normals(surface, directions)
    hidden = angle > np.radians(MAX_DEGREES)
    points[hidden], normals[hidden] = np.nan, np.nan
    heights = np.arange(-inner_nm, outer_nm + step_nm / 2, step_nm)
    positions = points + heights[:, None, None, None] / nm * normals
    values = _sample(tomogram, positions, step_nm / nm)
    return Unrolled(values, heights, step_nm, points, normals, tomogram.voxel_size_angstrom)


def fit_surface(
    membrane: npt.NDArray[Any], point_zyx: npt.ArrayLike, *, voxel_size_angstrom: float
) -> Surface:
    """Fit a closed surface to the cell whose membrane is nearest to a point.

    Where both membranes of the envelope are in the mask, it lies half-way between them. Where the mask has
    gaps, as at the top and the bottom of a cell, an ellipsoid continues it.

    Parameters
    ----------
    membrane
        (z, y, x) mask; what is not 0 is membrane.
    point_zyx
        (3,) in voxels.

    Raises
    ------
    InputError
        If no part of the membrane could be a cell.
    """
    nm = voxel_size_angstrom / 10
    point = np.asarray(point_zyx, np.float64).reshape(3)
    # The rest of a large tomogram would only cost time.
    shape = np.array(membrane.shape)
    low = np.clip(np.floor(point - REACH_NM / nm).astype(int), 0, shape - 1)
    high = np.clip(np.ceil(point + REACH_NM / nm).astype(int) + 1, low + 1, shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    step = max(1, min(round(GRID_NM / nm), *(high - low).tolist()))
    offset = low + (step - 1) / 2
    coarse = _any_of_cubes(membrane[z, y, x], step)
    labels, _ = label_components(coarse)
    voxel_nm = step * nm
    sizes = np.bincount(labels.ravel())
    enough = MIN_AREA_NM2 * BILAYER_NM / voxel_nm**3
    large = np.flatnonzero(sizes >= enough)
    large = large[large > 0]
    if not len(large):
        raise InputError("membrane: no part of it is as large as that of a cell; give the mask of the cells.")
    voxels = np.argwhere(labels > 0)
    numbers = labels[labels > 0]
    positions = voxels * step + offset
    of_large = np.isin(numbers, large)
    _, nearest = KDTree(positions[of_large]).query(point)
    part = positions[numbers == numbers[of_large][nearest]].astype(np.float64)
    centre = _centre_of_sphere(part)
    # First the part alone, then with the membrane that lies parallel to it.
    inner = _radius_spline(part, centre)
    offset_of_all = positions - centre
    distance = np.linalg.norm(offset_of_all, axis=1)
    near = distance < 3 * np.linalg.norm(part - centre, axis=1).max()
    direction = offset_of_all[near] / np.maximum(distance[near], 1e-9)[:, None]
    close = np.abs(distance[near] - inner(direction)) * nm < OTHER_MEMBRANE_NM
    radius = _radius_spline(positions[near][close].astype(np.float64), centre, between=True)
    return Surface(centre, radius, float(np.mean(radius(_fibonacci(200)))))


def _any_of_cubes(mask: npt.NDArray[Any], step: int) -> npt.NDArray[np.bool_]:
    """Return whether any voxel of each cube is set; the rest of the last cubes is left out."""
    z, y, x = (n // step for n in mask.shape)
    cut = np.asarray(mask[: z * step, : y * step, : x * step]) != 0
    return np.asarray(cut.reshape(z, step, y, step, x, step).any(axis=(1, 3, 5)))


def _centre_of_sphere(points: Float64Array) -> Float64Array:
    """Fit a sphere by least squares in |p|^2 = 2 c.p + d; return its (3,) centre."""
    middle = points.mean(axis=0)
    shifted = points - middle
    design = np.column_stack([2 * shifted, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(design, (shifted**2).sum(axis=1), rcond=None)
    return np.asarray(middle + solution[:3])


def _radius_spline(points: Float64Array, centre: Float64Array, *, between: bool = False) -> Any:
    """Return a smooth function of direction through the distances of points from a centre.

    `between` takes the middle between the nearest and the farthest points of a direction, as of two
    membranes, instead of their mean.
    """
    offset = points - centre
    distance = np.linalg.norm(offset, axis=1)
    direction = offset / np.maximum(distance, 1e-9)[:, None]
    nodes = _fibonacci(int(4 * np.pi / np.radians(PATCH_DEGREES) ** 2))
    nearest = np.asarray(KDTree(nodes).query(direction)[1])
    order = np.argsort(nearest, kind="stable")
    patches, first = np.unique(nearest[order], return_index=True)
    groups = np.split(distance[order], first[1:])
    if between:
        values = np.array([(np.quantile(group, 0.05) + np.quantile(group, 0.95)) / 2 for group in groups])
    else:
        values = np.array([np.median(group) for group in groups])
    directions, scale = nodes[patches], float(np.median(values))
    # An ellipsoid first, 1/r^2 = u.A u + b.u, which continues the surface into the gaps of the mask.
    deviation = (scale / values) ** 2 - 1
    design = _quadratic(directions)
    normal_matrix = design.T @ design + RIDGE * len(design) * np.eye(design.shape[1])
    coefficients = np.linalg.solve(normal_matrix, design.T @ deviation)

    def ellipsoid(unit_zyx: Float64Array) -> Float64Array:
        inverse_square = 1 + _quadratic(unit_zyx) @ coefficients
        return np.asarray(scale / np.sqrt(np.clip(inverse_square, 1 / MAX_RATIO**2, MAX_RATIO**2)))

    spline = RBFInterpolator(
        directions, values / ellipsoid(directions) - 1, kernel="linear", degree=0, smoothing=SMOOTHING
    )

    def radius(unit_zyx: Float64Array) -> Float64Array:
        # A spline may swing far where there is no data.
        return np.asarray(ellipsoid(unit_zyx) * (1 + np.clip(spline(unit_zyx), -0.5, 0.5)))

    return radius


def _quadratic(unit_zyx: Float64Array) -> Float64Array:
    """Return (n, 9) monomials of second and first degree of (n, 3) unit vectors."""
    z, y, x = unit_zyx.T
    return np.stack([z * z, y * y, x * x, z * y, z * x, y * x, z, y, x], axis=1)


def _fibonacci(count: int) -> Float64Array:
    """Return (count, 3) unit vectors spread evenly (the Fibonacci lattice; Swinbank and Purser 2006)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + np.sqrt(5)) * k
    across = np.sqrt(1 - z**2)
    return np.stack([z, across * np.sin(angle), across * np.cos(angle)], axis=1)


def _directions(
    towards: Float64Array, surface: Surface, side: int, step: float
) -> tuple[Float64Array, Float64Array]:
    """Return (side, side, 3) unit vectors, and their angles in radians to a direction, as the middle.

    This is the azimuthal equidistant projection. The pixel distance is `step` voxels on the surface in the
    middle.
    """
    length = np.linalg.norm(towards)
    axis = towards / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    # Columns run along x where they can, rows along z; at the top and the bottom of a cell along y.
    towards_row = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
    down = towards_row - (towards_row @ axis) * axis
    down /= np.linalg.norm(down)
    right = np.cross(axis, down)
    there = float(surface.radius(axis[None])[0])
    across = (np.arange(side) - (side - 1) / 2) * step / there
    v, u = np.meshgrid(across, across, indexing="ij")
    angle = np.hypot(v, u)
    ratio = np.sinc(angle / np.pi)
    unit = np.cos(angle)[..., None] * axis + (ratio * v)[..., None] * down + (ratio * u)[..., None] * right
    return np.asarray(unit), np.asarray(angle)


def _points_and_normals(surface: Surface, directions: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the points of the surface in (v, u, 3) directions, and its unit normals out of the cell."""
    # The spline is smooth and slow: some pixels suffice.
    rows, columns = (np.append(np.arange(0, n - 1, SPLINE_PIXELS), n - 1) for n in directions.shape[:2])
    coarse = surface.radius(directions[np.ix_(rows, columns)].reshape(-1, 3))
    spline = RectBivariateSpline(rows, columns, coarse.reshape(len(rows), len(columns)))
    radius = spline(np.arange(directions.shape[0]), np.arange(directions.shape[1]))
    points = surface.centre_zyx + radius[..., None] * directions
    along_v, along_u = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normal = np.cross(along_v, along_u)
    with np.errstate(invalid="ignore"):
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        normal *= np.sign((normal * directions).sum(axis=-1, keepdims=True))
    missing = ~np.isfinite(normal).all(axis=-1)
    points[missing] = np.nan
    normal[missing] = np.nan
    return points, normal


def _sample(tomogram: Tomogram, positions: Float64Array, step: float) -> npt.NDArray[np.float32]:
    """Interpolate at (..., 3) positions in voxels, smoothed to the step; NaN outside of the tomogram."""
    shape = np.array(tomogram.shape)
    inside = np.isfinite(positions).all(axis=-1)
    inside &= ((positions >= -0.5) & (positions <= shape - 0.5)).all(axis=-1)
    values = np.full(positions.shape[:-1], np.nan, np.float32)
    if not inside.any():
        return values
    wanted = positions[inside]
    margin = int(np.ceil(step)) + 2
    low = np.maximum(np.floor(wanted.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(wanted.max(axis=0)).astype(int) + margin + 1, shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    box = np.nan_to_num(np.asarray(tomogram.data[z, y, x], np.float32), posinf=0.0, neginf=0.0)
    # Half a step: finer detail would alias.
    box = ndimage.gaussian_filter(box, 0.5 * step) if step > 1 else box
    values[inside] = ndimage.map_coordinates(box, (wanted - low).T, order=1, mode="nearest")
    return values
