"""IMOD models (.mod), and text files of points for IMOD's point2model.

A model has one object of scattered points per kind, and one object "normals" with a two-point contour per
particle, from the centre along the normal. It holds neither scores nor rotations about the normal; the order
of the particles is that of the normals. A text file has lines "x y z", optionally after object and contour.
IMOD's coordinates of the centre of the first voxel are (0.5, 0.5, 0) in x, y, z.
File format: https://bio3d.colorado.edu/imod/doc/binspec.html
"""

from __future__ import annotations

import math
import struct
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from imodmodel import models

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile, printable

__all__ = ["read_imod", "write_imod"]

Points = npt.NDArray[np.float64]

FIRST_VOXEL_XYZ = np.array([0.5, 0.5, 0.0])
NORMALS = "normals"
MAGIC = b"IMODV1.2"
DEFAULT_NAME = "IMOD-NewModel"
NORMAL_LENGTH_ANGSTROM = 400.0  # for display: the length of a needle
SPHERE_RADIUS_ANGSTROM = 130.0  # for display: the radius of the basal body
NANOMETRES = -9
METRES_PER_UNIT = {1: 1.0, 3: 1e3, -2: 1e-2, -3: 1e-3, -6: 1e-6, -9: 1e-9, -10: 1e-10, -12: 1e-12}
COLOURS = [(0.0, 1.0, 0.0), (1.0, 0.5, 0.0), (0.0, 0.6, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)]


def write_imod(path: Path, candidates: Candidates) -> None:
    """Write a model, or text points unless the suffix is .mod; see `t3ssfast.io.particles.export`."""
    points = candidates.centre_zyx[:, ::-1].astype(np.float64) + FIRST_VOXEL_XYZ
    if path.suffix.lower() != ".mod":
        with atomic_path(path) as temporary:
            lines = [f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points.tolist()]
            temporary.write_text("".join(lines), encoding="utf-8")
        return
    voxel_size = candidates.voxel_size_angstrom
    radius = max(1, round(SPHERE_RADIUS_ANGSTROM / voxel_size))
    objects = []
    for index, kind in enumerate(dict.fromkeys(map(str, candidates.kind))):
        flags = models.ObjectFlags(scattered=True)
        header = models.ObjectHeader(name=kind[:63], flags=flags, pdrawsize=radius)
        contour = models.Contour(header=models.ContourHeader(), points=points[candidates.kind == kind])
        objects.append(models.Object(header=header, contours=[contour], color=COLOURS[index % len(COLOURS)]))
    if len(candidates):
        tips = points + candidates.normal_zyx[:, ::-1] * (NORMAL_LENGTH_ANGSTROM / voxel_size)
        header = models.ContourHeader(flags=models.ContourFlags(open=True))
        arrows = np.stack([points, tips], axis=1)
        contours = [models.Contour(header=header, points=arrow) for arrow in arrows]
        header = models.ObjectHeader(name=NORMALS, flags=models.ObjectFlags(open=True), pdrawsize=0)
        objects.append(models.Object(header=header, contours=contours, color=(1.0, 1.0, 1.0)))
    model_header = models.ModelHeader(
        name=candidates.tomogram_name.encode()[:127].decode(errors="ignore"),
        **dict(zip(("zmax", "ymax", "xmax"), candidates.tomogram_shape or (0, 0, 0), strict=True)),
        flags=models.ModelFlags(z_coordinates_start_from_negative_half=True),
        pixelsize=voxel_size / 10,
        units=NANOMETRES,
    )
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imodmodel calls deprecated functions of pydantic
        models.ImodModel(header=model_header, objects=objects).to_file(temporary)


def read_imod(file: ParticleFile) -> list[Candidates]:
    """Read a model or text points; see `t3ssfast.io.particles.load_candidates`."""
    raw = file.read_bytes()
    if file.path.suffix.lower() != ".mod" and not raw.startswith(MAGIC):
        return [_read_text_points(file)]
    name, shape, pixel_size, objects = _parse_model(file, raw)
    kinds: list[str] = []
    centres: list[Points] = [np.zeros((0, 3))]
    normals: list[Points] = []
    for object_name, contours in objects:
        if object_name == NORMALS:
            normals += [contour for contour in contours if len(contour) == 2]
        else:
            centres += contours
            kinds += [object_name or "t3ss"] * sum(map(len, contours))
    centre = file.parse_numbers(np.concatenate(centres))
    fields: dict[str, Any] = {}
    order = _order_of_normals(centre, normals)
    if order:
        centre, kinds = centre[order], [kinds[i] for i in order]
        fields["normal_zyx"] = np.array([tip - start for start, tip in normals])[:, ::-1].astype(np.float32)
    voxel_size, scale = file.voxel_size_and_scale(pixel_size)
    if abs(scale - 1) > 1e-3:
        shape = None  # the shape in the file is that of another binning
    found = file.candidates(
        ((centre - FIRST_VOXEL_XYZ) * scale)[:, ::-1],
        voxel_size_angstrom=voxel_size,
        tomogram_shape=file.tomogram_shape or shape,
        tomogram_name=file.path.stem if name in ("", DEFAULT_NAME) else name,
        kind=np.array(kinds, dtype=str),
        **fields,
    )
    return [found]


def _order_of_normals(centre: Points, normals: list[Points]) -> list[int]:
    """Return the indices of the centres at which the normals start; empty unless they match one to one."""
    # Objects sort the particles by kind; the normals are in the original order.
    if len(normals) != len(centre):
        return []
    indices = defaultdict(list)
    for index, point in enumerate(centre.tolist()):
        indices[tuple(point)].append(index)
    starts = [indices[tuple(normal[0].tolist())] for normal in normals]
    order = [matches.pop(0) for matches in starts if matches]
    return order if len(order) == len(centre) else []


def _read_text_points(file: ParticleFile) -> Candidates:
    lines = file.read_text().splitlines()
    widths = {len(line.split(maxsplit=6)) for line in lines} - {0}
    if not widths <= {3, 4, 5}:
        found = max(widths - {3, 4, 5})
        raise ReadError(f"{file}: a line has {found} values, not (object contour) x y z; give text points.")
    points = file.parse_columns(lines, (-3, -2, -1))
    voxel_size = file.resolve_voxel_size(None)
    return file.candidates((points - FIRST_VOXEL_XYZ)[:, ::-1], voxel_size_angstrom=voxel_size)


def _parse_model(
    file: ParticleFile, raw: bytes
) -> tuple[str, tuple[int, int, int] | None, float | None, list[tuple[str, list[Points]]]]:
    """Return the name, shape (zyx), pixel size in Angstrom and objects (name, contours) of a model."""
    # imodmodel reads truncated files forever. Here every step advances by at least 8 bytes.
    damaged = ReadError(f"{file}: the IMOD model is damaged, it ends within a chunk; save it again.")
    if not raw.startswith(MAGIC):
        raise ReadError(f"{file}: not an IMOD model ({MAGIC.decode()}); give a .mod file.")
    objects: list[tuple[str, list[Points]]] = []
    try:
        xmax, ymax, zmax = struct.unpack_from(">3i", raw, 136)
        size, units = struct.unpack_from(">fi", raw, 216)
        position = 240
        while (chunk := raw[position : position + 4]) != b"IEOF":
            position += 4
            if chunk == b"OBJT":
                objects.append((_decode(raw[position : position + 64]), []))
                position += 176
            elif chunk == b"CONT":
                (count,) = struct.unpack_from(">i", raw, position)
                position += 16
                if count < 0 or position + 12 * count > len(raw) or not objects:
                    raise damaged
                points = np.frombuffer(raw, ">f4", 3 * count, position).reshape(count, 3)
                objects[-1][1].append(points.astype(np.float64))
                position += 12 * count
            elif chunk == b"MESH":
                vertices, indices = struct.unpack_from(">2i", raw, position)
                if vertices < 0 or indices < 0:
                    raise damaged
                position += 16 + 12 * vertices + 4 * indices
            else:
                (length,) = struct.unpack_from(">I", raw, position)
                position += 4 + length
            if position > len(raw):
                raise damaged
    except struct.error as error:
        raise damaged from error
    shape = (zmax, ymax, xmax) if min(xmax, ymax, zmax) > 0 else None
    # The header holds a float32 in nm: 1.36000001 is 13.6 A.
    known = units in METRES_PER_UNIT and math.isfinite(size)
    pixel_size = float(f"{size * METRES_PER_UNIT[units] * 1e10:.7g}") if known else None
    return _decode(raw[8:136]), shape, pixel_size, objects


def _decode(raw: bytes) -> str:
    return printable(raw.split(b"\0")[0].decode("utf-8", "replace").strip())
