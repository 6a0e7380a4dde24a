"""IMOD models (.mod): one object of scattered points for each kind, and one of normals; and text points.

IMOD's coordinates put the centre of the first voxel at (0.5, 0.5, 0) in x, y, z. A model has no place for
scores or for the rotation about the normal: both are lost (scores read back as 1), the order is kept.
Each normal is a contour of two points, from the centre outwards, in an object called "normals".
A text file of points (any other suffix than .mod) is what point2model takes and model2point writes: x y z in
the same coordinates, after object and contour or not; it holds positions alone.
File layout: https://bio3d.colorado.edu/imod/doc/binspec.html
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from imodmodel.models import (
    Contour,
    ContourFlags,
    ContourHeader,
    ImodModel,
    ModelFlags,
    ModelHeader,
    Object,
    ObjectFlags,
    ObjectHeader,
)

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile, numbers

__all__ = ["read_imod", "write_imod"]

FIRST_VOXEL_XYZ = np.array([0.5, 0.5, 0.0])
NORMALS = "normals"
MAGIC = b"IMODV1.2"
UNNAMED = "IMOD-NewModel"
NORMAL_LENGTH_ANGSTROM = 400.0  # as drawn: about the length of a needle
SPHERE_RADIUS_ANGSTROM = 130.0  # as drawn: half the widest part of the base
NANOMETRES = -9
METRES_PER_UNIT = {1: 1.0, 3: 1e3, -2: 1e-2, -3: 1e-3, -6: 1e-6, -9: 1e-9, -10: 1e-10, -12: 1e-12}
COLOURS = [(0.0, 1.0, 0.0), (1.0, 0.5, 0.0), (0.0, 0.6, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)]


def write_imod(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write an IMOD model of one tomogram; see `t3ssfast.io.particles.export`."""
    if len(candidates) != 1:
        raise ConfigError(f"An IMOD model holds one tomogram and {len(candidates)} were given; write each.")
    some = candidates[0]
    points = some.centre_zyx[:, ::-1].astype(np.float64) + FIRST_VOXEL_XYZ
    if path.suffix.lower() != ".mod":
        with atomic_path(path) as temporary:
            lines = [f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points.tolist()]
            temporary.write_text("".join(lines), encoding="utf-8")
        return
    tips = points + some.normal_zyx[:, ::-1] * (NORMAL_LENGTH_ANGSTROM / some.voxel_size_angstrom)
    radius = max(1, round(SPHERE_RADIUS_ANGSTROM / some.voxel_size_angstrom))
    objects = []
    for index, kind in enumerate(dict.fromkeys(map(str, some.kind))):
        contour = Contour(header=ContourHeader(), points=points[some.kind == kind])
        header = ObjectHeader(name=kind[:63], flags=ObjectFlags(scattered=True), pdrawsize=radius)
        colour = COLOURS[index % len(COLOURS)]
        objects.append(Object(header=header, contours=[contour], color=colour))
    if len(some):
        contours = [
            Contour(header=ContourHeader(flags=ContourFlags(open=True)), points=np.stack(ends))
            for ends in zip(points, tips, strict=True)
        ]
        header = ObjectHeader(name=NORMALS, flags=ObjectFlags(open=True), pdrawsize=0)
        objects.append(Object(header=header, contours=contours, color=(1.0, 1.0, 1.0)))
    zmax, ymax, xmax = some.tomogram_shape or (0, 0, 0)
    model = ImodModel(
        header=ModelHeader(
            name=some.tomogram_name.encode()[:127].decode(errors="ignore"),
            xmax=xmax,
            ymax=ymax,
            zmax=zmax,
            flags=ModelFlags(z_coordinates_start_from_negative_half=True),
            pixelsize=some.voxel_size_angstrom / 10,
            units=NANOMETRES,
        ),
        objects=objects,
    )
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library calls deprecated parts of pydantic
        model.to_file(temporary)


@dataclass
class _Object:
    name: str
    contours: list[npt.NDArray[np.float64]] = field(default_factory=list)


def read_imod(source: ParticleFile) -> list[Candidates]:
    """Read the points of an IMOD model; see `t3ssfast.io.particles.load_candidates`."""
    raw = source.read_bytes()
    if source.path.suffix.lower() != ".mod" and not raw.startswith(MAGIC):
        return [_read_points(source)]
    name, shape, pixel_size, objects = _parse(source, raw)
    picked = [item for item in objects if item.name != NORMALS]
    points = [np.concatenate([np.zeros((0, 3)), *item.contours]) for item in picked]
    kinds = [item.name or "t3ss" for item, p in zip(picked, points, strict=True) for _ in range(len(p))]
    centre = np.concatenate([np.zeros((0, 3)), *points])
    numbers(source, list(centre.T))
    normal = np.tile([0.0, 0.0, 1.0], (len(centre), 1))  # x, y, z
    arrows = [c for item in objects if item.name == NORMALS for c in item.contours if len(c) == 2]
    if len(arrows) == len(centre) > 0:
        # The order of detection, best first, is that of the normals; the objects sort it by kind.
        at: dict[tuple[float, ...], list[int]] = {}
        for index, point in enumerate(centre.tolist()):
            at.setdefault(tuple(point), []).append(index)
        starts = [at.get(tuple(arrow[0].tolist()), []) for arrow in arrows]
        order = [indices.pop(0) for indices in starts if indices]
        if len(order) == len(centre):
            centre, kinds = centre[order], [kinds[i] for i in order]
            normal = np.array([arrow[1] - arrow[0] for arrow in arrows])
    voxel_size, factor = source.grid(pixel_size)
    if abs(factor - 1) > 1e-3:
        shape = None  # that of another binning
    candidates = Candidates(
        centre_zyx=((centre - FIRST_VOXEL_XYZ) * factor)[:, ::-1].astype(np.float32),
        score=np.ones(len(centre), np.float32),
        normal_zyx=normal[:, ::-1].astype(np.float32),
        voxel_size_angstrom=voxel_size,
        tomogram_shape=source.tomogram_shape or shape,
        tomogram_name=source.path.stem if name in ("", UNNAMED) else name,
        kind=np.array(kinds, dtype=str),
    )
    return [candidates]


def _read_points(source: ParticleFile) -> Candidates:
    """Text points: the last three of three to five numbers on each line."""
    rows = []
    for number, line in enumerate(source.read_text().splitlines(), 1):
        parts = line.split(maxsplit=6)
        if not parts:
            continue
        if not 3 <= len(parts) <= 5:
            raise ReadError(
                f"{source.name}: line {number} has {len(parts)} values, not x y z after object and contour; "
                "it is no list of points."
            )
        rows.append(parts[-3:])
    points = numbers(source, list(zip(*rows, strict=True))) if rows else np.zeros((0, 3))
    return Candidates(
        centre_zyx=(points - FIRST_VOXEL_XYZ)[:, ::-1].astype(np.float32),
        score=np.ones(len(points), np.float32),
        normal_zyx=np.tile(np.array([1.0, 0.0, 0.0], np.float32), (len(points), 1)),
        voxel_size_angstrom=source.voxel_size(None),
        tomogram_shape=source.tomogram_shape,
        tomogram_name=source.path.stem,
    )


def _parse(source: ParticleFile, raw: bytes) -> tuple[str, Any, float | None, list[_Object]]:
    """Name, shape (zyx, or None), pixel size in Angstrom (or None) and objects of a model.

    Read here and not with imodmodel, which waits for the end mark for ever when a file is cut short.
    Every step moves forward by at least 8 bytes and never beyond the end, so the time is bounded.
    """
    damaged = ReadError(f"{source.name} is a damaged IMOD model: it ends inside a chunk; save it again.")
    if not raw.startswith(MAGIC):
        raise ReadError(f"{source.name} is no IMOD model (IMODV1.2); check what it is.")
    try:
        xmax, ymax, zmax = struct.unpack_from(">3i", raw, 136)
        size, units = struct.unpack_from(">fi", raw, 216)
        objects: list[_Object] = []
        at = 240
        while (mark := raw[at : at + 4]) != b"IEOF":
            at += 4
            if mark == b"OBJT":
                objects.append(_Object(_text(raw[at : at + 64])))
                at += 176
            elif mark == b"CONT":
                (count,) = struct.unpack_from(">i", raw, at)
                at += 16
                if count < 0 or at + 12 * count > len(raw) or not objects:
                    raise damaged
                xyz = np.frombuffer(raw, ">f4", 3 * count, at).reshape(count, 3)
                objects[-1].contours.append(xyz.astype(np.float64))
                at += 12 * count
            elif mark == b"MESH":
                vertices, indices = struct.unpack_from(">2i", raw, at)
                if vertices < 0 or indices < 0:
                    raise damaged
                at += 16 + 12 * vertices + 4 * indices
            else:
                (length,) = struct.unpack_from(">I", raw, at)
                at += 4 + length
            if at > len(raw):
                raise damaged
    except struct.error as error:
        raise damaged from error
    shape = (zmax, ymax, xmax) if min(xmax, ymax, zmax) > 0 else None
    # The header holds a float32 in nm: 1.36000001 is 13.6 A.
    known = units in METRES_PER_UNIT and math.isfinite(size)
    pixel_size = float(f"{size * METRES_PER_UNIT[units] * 1e10:.7g}") if known else None
    return _text(raw[8:136]), shape, pixel_size, objects


def _text(raw: bytes) -> str:
    text = raw.split(b"\0")[0].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else "_" for c in text)
