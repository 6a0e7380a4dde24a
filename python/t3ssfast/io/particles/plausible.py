"""Whether the positions of a particle file can be what they were read as.

Every reader and every command that knows the tomogram asks here: a wrong unit, binning or axis order is
refused with its likely reason, instead of giving particles at wrong places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError

__all__ = [
    "are_fractions",
    "check_plausible",
    "check_position",
    "check_sizes_of_pixels",
    "share_outside",
]

# Particles refined across the face of a tomogram may lie this far outside, as a share of the axis; a wrong
# unit moves them much farther.
MARGIN = 0.05
MIN_MARGIN_VOXELS = 1.0
# All particles this close to the first voxel are read in a wrong unit: no tomogram has any there.
CORNER_VOXELS = 1.0
BINNINGS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
# Chance that particles placed anywhere would all lie in a corner, below which the pixel size is doubted.
CHANCE = 1e-5


def are_fractions(values: npt.NDArray[Any]) -> bool:
    """Return whether (n, 3) coordinates are fractions of the tomogram, as Warp's template matching writes."""
    return bool(len(values) and np.all(values >= 0) and np.all(values <= 1) and np.any(values % 1 != 0))


def check_plausible(found: Sequence[Candidates], source: object) -> None:
    """Raise ReadError where the particles of a file cannot be at the positions that were read.

    Parameters
    ----------
    found
        Particles of each tomogram. Where `tomogram_shape` is known they must lie inside.
    source
        File that they come from, for the message.
    """
    for some in found:
        check_position(some.centre_zyx, some.tomogram_shape, some.voxel_size_angstrom, source)


def check_position(
    centre_zyx: npt.NDArray[Any],
    shape_zyx: tuple[int, ...] | None,
    voxel_size_angstrom: float,
    source: object,
    tomogram: str = "",
) -> None:
    """Raise ReadError where positions lie outside of a (z, y, x) shape, or all in the tomogram's corner.

    Parameters
    ----------
    centre_zyx
        (n, 3) positions, in voxels of the shape.
    shape_zyx
        Shape of the tomogram; None where it is unknown.
    voxel_size_angstrom
        Voxel size of the shape.
    source, tomogram
        File of the particles, and name of the tomogram, for the message.
    """
    centre = np.asarray(centre_zyx, np.float64).reshape(-1, 3)
    if not len(centre) or shape_zyx is None:
        return
    if np.all(np.abs(centre) <= CORNER_VOXELS):
        raise ReadError(
            f"{source}: all {len(centre)} particles lie within one voxel of the corner of the tomogram; "
            "the coordinates may be fractions of its size or micrometres, or their pixel size may be wrong; "
            "convert them to voxels."
        )
    shape = np.array(shape_zyx, np.float64)
    outside = ~_inside(centre, shape)
    if not outside.any():
        return
    worst = ", ".join(f"{value:.1f}" for value in centre[int(np.argmax(outside))])
    size = " x ".join(map(str, shape_zyx))
    of = f" of {tomogram}" if tomogram else ""
    raise ReadError(
        f"{source}: {int(outside.sum())} of {len(centre)} particles lie outside of the tomogram{of} "
        f"({size} voxels, z y x), the first at ({worst}); {_reason(centre, shape, voxel_size_angstrom)}."
    )


def share_outside(centre_zyx: npt.NDArray[Any], shape_zyx: tuple[int, ...]) -> float:
    """Return the share of positions that lie outside of a (z, y, x) shape; 0 without positions."""
    inside = _inside(np.asarray(centre_zyx, np.float64), np.array(shape_zyx, np.float64))
    return float(np.mean(~inside)) if len(inside) else 0.0


def _inside(centre: npt.NDArray[Any], shape: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    margin = np.maximum(MIN_MARGIN_VOXELS, MARGIN * shape)
    low, high = -0.5 - margin, shape - 0.5 + margin
    return np.asarray(np.all((centre >= low) & (centre <= high), axis=1))


def _reason(centre: npt.NDArray[Any], shape: npt.NDArray[Any], voxel_size_angstrom: float) -> str:
    """Return the likely reason why positions lie outside, and what to do."""

    def fits(values: npt.NDArray[Any]) -> bool:
        return bool(_inside(values, shape).all())

    if fits(centre + (shape - 1) / 2) and (centre < 0).any():
        return "they look like positions from the middle of the tomogram; add half of its size"
    for order, name in (((2, 1, 0), "x and z"), ((0, 2, 1), "x and y"), ((1, 0, 2), "y and z")):
        if fits(centre[:, order]):
            return f"{name} look exchanged; check the order of the axes"
    in_angstrom = centre / voxel_size_angstrom
    # Read as pixels of a small size, coordinates in Angstrom would all lie near the corner.
    angstrom = fits(in_angstrom) and np.max(in_angstrom / shape) > 1 / 3
    binned = any(fits(centre / binning) for binning in BINNINGS)
    pixels = "pixels of another binning or of the tilt series"
    if angstrom and binned:
        return (
            f"they look like Angstrom, to be read as such (--angstrom), or like {pixels}, which need their "
            "pixel size, or the tomograms.star (--tomograms)"
        )
    if angstrom:
        return "they look like Angstrom; read them as such (--angstrom), or convert them to voxels"
    if binned:
        return f"they look like {pixels}; give their pixel size, or the tomograms.star (--tomograms)"
    return "check that they belong to this tomogram, and their voxel size"


def check_sizes_of_pixels(
    values: npt.NDArray[Any],
    pixel_size_angstrom: float,
    shape_zyx: tuple[int, ...] | None,
    voxel_size_angstrom: float,
    source: object,
) -> None:
    """Raise ReadError where a pixel size puts all particles into a corner that they fill as plain voxels.

    The pixel size of extracted 2D stacks is no unit of coordinates in the tomogram, but some files have no
    other.

    Parameters
    ----------
    values
        (n, 3) coordinates x, y, z of one tomogram, as in the file.
    pixel_size_angstrom
        Pixel size of the file, by which they were multiplied.
    shape_zyx, voxel_size_angstrom
        Of the tomogram; nothing is checked where the shape is unknown.
    """
    if shape_zyx is None or not len(values) or not math.isfinite(pixel_size_angstrom):
        return
    factor, shape = pixel_size_angstrom / voxel_size_angstrom, np.array(shape_zyx, np.float64)
    raw = np.asarray(values, np.float64)[:, ::-1]
    if factor > 0.55 or 3 * len(raw) * math.log(factor) > math.log(CHANCE):
        return
    # As voxels they fit, and reach across most of the tomogram along y and x.
    if _inside(raw, shape).all() and np.all(raw.max(axis=0)[1:] > 0.5 * shape[1:]):
        raise ReadError(
            f"{source}: with its pixel size of {pixel_size_angstrom:g} A all {len(raw)} particles lie in the "
            f"corner of the tomogram ({factor:.2g} of each axis), and they fill it as voxels of "
            f"{voxel_size_angstrom:g} A; the pixel size looks like that of a 2D stack: if the coordinates "
            f"are voxels of this tomogram, write {voxel_size_angstrom:g} as the pixel size into the file."
        )
