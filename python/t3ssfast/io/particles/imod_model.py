"""Parsing of IMOD model files, with everything in them that moves points.

- Bit 16 of the model's flags: the model was saved on a volume with y and z exchanged (3dmod's flipped view).
- Bit 17: it was saved on a volume rotated by -90 degrees about x.
- MINX: the model was saved on a part of a volume, if its current translation (ctrans) is not that of the
  whole volume (otrans, valid with bit 14): points are shifted by (otrans - ctrans) / cscale.

Tilt angles (crot), the scale of z for display, clipping planes and views do not move points.
File format: https://bio3d.colorado.edu/imod/doc/binspec.html; imodFlipYZ and imodRot90X in IMOD's imodel.c,
ivwSetModelTrans in 3dmod's imodview.cpp.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile, printable
from t3ssfast.io.particles.text import FIRST_VOXEL_XYZ

__all__ = [
    "MAGIC",
    "STORE_FLOAT",
    "STORE_MIN_MAX",
    "STORE_VALUE",
    "VALUE_IS_FLOAT",
    "ImodModel",
    "ModelObject",
    "parse_model",
]

Points = npt.NDArray[np.float64]

MAGIC = b"IMODV1.2"
METRES_PER_UNIT = {1: 1.0, 3: 1e3, -2: 1e-2, -3: 1e-3, -6: 1e-6, -9: 1e-9, -10: 1e-10, -12: 1e-12}
FLAG_OTRANS_IS_ORIGIN = 1 << 14
FLAG_FLIPPED_YZ = 1 << 16
FLAG_ROTATED_X = 1 << 17
# Types and flags of stored items (istore.h in IMOD): values of contours, as imodfindbeads writes scores.
STORE_VALUE, STORE_MIN_MAX = 10, 11
STORE_FLOAT = 1
VALUE_IS_FLOAT = STORE_FLOAT << 2
STORED_ITEM = struct.Struct(">hhif")
OBJECT_FLAG_OPEN = 1 << 3
OBJECT_FLAG_SCATTERED = 1 << 9


@dataclass
class ModelObject:
    """An object: its name, flags, and the points of its contours, (n, 3) as x, y, z."""

    name: str
    flags: int
    contours: list[Points] = field(default_factory=list)
    # Values by the number of the contour, from 0.
    values: dict[int, float] = field(default_factory=dict)

    @property
    def has_vectors(self) -> bool:
        """Whether each contour is a vector of two points: in open objects, or in several such contours."""
        if self.flags & OBJECT_FLAG_SCATTERED or not self.contours:
            return False
        if any(len(contour) != 2 for contour in self.contours):
            return False
        return bool(self.flags & OBJECT_FLAG_OPEN) or len(self.contours) > 1


@dataclass
class ImodModel:
    """A model; points are 0-based voxels of the whole volume, x, y, z.

    `shape` is that of the volume, (z, y, x), and `pixel_size` in Angstrom; None if unknown.
    """

    name: str
    shape: tuple[int, int, int] | None
    pixel_size: float | None
    objects: list[ModelObject]


def parse_model(file: ParticleFile, raw: bytes) -> ImodModel:
    """Parse a model; raise ReadError for damaged ones."""
    # imodmodel reads truncated files forever. Here every step advances by at least 8 bytes.
    damaged = ReadError(f"{file}: the IMOD model is damaged, it ends within a chunk; save it again.")
    if not raw.startswith(MAGIC):
        raise ReadError(f"{file}: not an IMOD model ({MAGIC.decode()}); give a .mod file.")
    objects: list[ModelObject] = []
    image_reference: tuple[float, ...] | None = None
    try:
        maxima = struct.unpack_from(">3i", raw, 136)
        (flags,) = struct.unpack_from(">I", raw, 152)
        size, units = struct.unpack_from(">fi", raw, 216)
        position = 240
        while (chunk := raw[position : position + 4]) != b"IEOF":
            position += 4
            if chunk == b"OBJT":
                (object_flags,) = struct.unpack_from(">I", raw, position + 132)
                objects.append(ModelObject(_decode(raw[position : position + 64]), object_flags))
                position += 176
            elif chunk == b"CONT":
                (count,) = struct.unpack_from(">i", raw, position)
                position += 16
                if count < 0 or position + 12 * count > len(raw) or not objects:
                    raise damaged
                points = np.frombuffer(raw, ">f4", 3 * count, position).reshape(count, 3)
                objects[-1].contours.append(points.astype(np.float64))
                position += 12 * count
            elif chunk == b"MESH":
                vertices, indices = struct.unpack_from(">2i", raw, position)
                if vertices < 0 or indices < 0:
                    raise damaged
                position += 16 + 12 * vertices + 4 * indices
            else:
                (length,) = struct.unpack_from(">I", raw, position)
                if chunk == b"OBST" and objects:
                    objects[-1].values = _values_of_contours(raw[position + 4 : position + 4 + length])
                if chunk == b"MINX":
                    image_reference = struct.unpack_from(">18f", raw, position + 4)
                position += 4 + length
            if position > len(raw):
                raise damaged
    except struct.error as error:
        raise damaged from error
    # The header holds a float32 in nm: 1.36000001 is 13.6 A.
    known = units in METRES_PER_UNIT and math.isfinite(size)
    pixel_size = float(f"{size * METRES_PER_UNIT[units] * 1e10:.7g}") if known else None
    shape_xyz = maxima if min(maxima) > 0 else None
    for item in objects:
        item.contours = [contour - FIRST_VOXEL_XYZ for contour in item.contours]
    shape_xyz = _undo_flip(file, flags, shape_xyz, objects)
    origin = _origin_of_part(file, flags, image_reference)
    if origin.any():
        shape_xyz = None  # that of the part
        for item in objects:
            item.contours = [contour + origin for contour in item.contours]
    shape = None if shape_xyz is None else (shape_xyz[2], shape_xyz[1], shape_xyz[0])
    return ImodModel(_decode(raw[8:136]), shape, pixel_size, objects)


def _undo_flip(
    file: ParticleFile, flags: int, shape_xyz: tuple[int, ...] | None, objects: list[ModelObject]
) -> tuple[int, ...] | None:
    """Exchange or rotate y and z back; return the size of the volume that is not flipped."""
    if not flags & (FLAG_FLIPPED_YZ | FLAG_ROTATED_X):
        return shape_xyz
    if flags & FLAG_ROTATED_X and shape_xyz is None:
        raise ReadError(
            f"{file}: the model is rotated about x in a volume of unknown size; save it unrotated."
        )
    for item in objects:
        item.contours = [contour[:, [0, 2, 1]] for contour in item.contours]
        if flags & FLAG_ROTATED_X and shape_xyz is not None:
            item.contours = [contour * [1, -1, 1] + [0, shape_xyz[2] - 1, 0] for contour in item.contours]
    return None if shape_xyz is None else (shape_xyz[0], shape_xyz[2], shape_xyz[1])


def _origin_of_part(file: ParticleFile, flags: int, image_reference: tuple[float, ...] | None) -> Points:
    """Return the first voxel x, y, z of the part of a volume on which the model was saved."""
    if image_reference is None or not flags & FLAG_OTRANS_IS_ORIGIN:
        return np.zeros(3)
    # Old scale, translation and rotation; then the current ones.
    reference = np.array(image_reference, dtype=np.float64).reshape(6, 3)
    whole, scale, part = reference[1], reference[3], reference[4]
    if not np.isfinite(reference).all() or (scale <= 0).any():
        raise ReadError(f"{file}: the MINX chunk has a scale of {scale.tolist()}; save the model again.")
    origin: Points = (whole - part) / scale
    # The fields are float32 in Angstrom; a part begins at a whole voxel.
    return np.where(np.abs(origin) < 0.01, 0.0, origin)


def _values_of_contours(stored: bytes) -> dict[int, float]:
    """Return the values of contours among the items stored with an object."""
    whole = stored[: len(stored) // STORED_ITEM.size * STORED_ITEM.size]
    return {
        contour: value
        for kind, flags, contour, value in STORED_ITEM.iter_unpack(whole)
        if kind == STORE_VALUE and flags == VALUE_IS_FLOAT and math.isfinite(value)
    }


def _decode(raw: bytes) -> str:
    return printable(raw.split(b"\0")[0].decode("utf-8", "replace").strip())
