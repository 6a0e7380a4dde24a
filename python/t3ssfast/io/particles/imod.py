"""IMOD models (.mod), and text files of points for IMOD's point2model.

A model has one object of scattered points per kind, with a contour for each particle whose value is the
score, and one object "normals" with a two-point contour per particle, from the centre along the normal. 3dmod
colours particles by the values and hides those below a threshold. It holds no rotations about the normal; the
order of the particles is that of the normals. A text file has lines "x y z", optionally after object and
contour.
Models of other programs may have objects of two-point contours, as for PEET's stalkInit: each contour is one
particle at the first point, with its normal towards the second.
IMOD's coordinates of the centre of the first voxel are (0.5, 0.5, 0) in x, y, z.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from imodmodel import models

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.imod_model import (
    MAGIC,
    STORE_FLOAT,
    STORE_MIN_MAX,
    STORE_VALUE,
    VALUE_IS_FLOAT,
    ModelObject,
    parse_model,
)
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.text import FIRST_VOXEL_XYZ, read_imod_points

__all__ = ["read_imod", "write_imod"]

Points = npt.NDArray[np.float64]

NORMALS = "normals"
DEFAULT_NAME = "IMOD-NewModel"
NORMAL_LENGTH_ANGSTROM = 400.0  # for display: the length of a needle
SPHERE_RADIUS_ANGSTROM = 130.0  # for display: the radius of the basal body
NANOMETRES = -9
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
        chosen = candidates.kind == kind
        flags = models.ObjectFlags(scattered=True)
        header = models.ObjectHeader(name=kind[:63], flags=flags, pdrawsize=radius)
        single = [models.Contour(header=models.ContourHeader(), points=p[None]) for p in points[chosen]]
        values = _stored_values(candidates.score[chosen].tolist())
        colour = COLOURS[index % len(COLOURS)]
        objects.append(models.Object(header=header, contours=single, extra=values, color=colour))
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


def _stored_values(scores: list[float]) -> list[models.GeneralStorage]:
    """Return the values of contours, and their range, as items stored with an object."""
    if not scores:
        return []
    items = [
        models.GeneralStorage(type=STORE_VALUE, flags=VALUE_IS_FLOAT, index=contour, value=score)
        for contour, score in enumerate(scores)
    ]
    flags = STORE_FLOAT | VALUE_IS_FLOAT
    low, high = min(scores), max(scores)
    return [*items, models.GeneralStorage(type=STORE_MIN_MAX, flags=flags, index=low, value=high)]


def read_imod(file: ParticleFile) -> list[Candidates]:
    """Read a model or text points; see `t3ssfast.io.particles.load_candidates`."""
    raw = file.read_bytes()
    if file.path.suffix.lower() != ".mod" and not raw.startswith(MAGIC):
        return [read_imod_points(file)]
    model = parse_model(file, raw)
    centre, normal, kinds, scores = _particles(model.objects)
    file.parse_numbers(centre)
    voxel_size, scale = file.voxel_size_and_scale(model.pixel_size)
    # The shape in the file is that of another binning if the voxel size differs.
    shape = model.shape if abs(scale - 1) <= 1e-3 else None
    fields: dict[str, Any] = {}
    if normal is not None:
        if not np.isfinite(normal).all() or (np.abs(normal).max(axis=1, initial=0.0) == 0).any():
            raise ReadError(f"{file}: the two points of a contour are the same; move one of them.")
        fields["normal_zyx"] = normal[:, ::-1].astype(np.float32)
    if np.isfinite(scores).any():
        # Points added by hand have no value.
        fields["score"] = np.where(np.isfinite(scores), scores, 1.0)
    found = file.candidates(
        (centre * scale)[:, ::-1],
        voxel_size_angstrom=voxel_size,
        tomogram_shape=file.tomogram_shape or shape,
        tomogram_name=file.path.stem if model.name in ("", DEFAULT_NAME) else model.name,
        kind=np.array(kinds, dtype=str),
        **fields,
    )
    return [found]


def _particles(
    objects: list[ModelObject],
) -> tuple[Points, Points | None, list[str], npt.NDArray[np.float64]]:
    """Return centres, vectors along the normals (None if there are none), kinds and scores (NaN: none)."""
    normals = [c for item in objects if item.name == NORMALS for c in item.contours if len(c) == 2]
    others = [item for item in objects if item.name != NORMALS and any(map(len, item.contours))]
    if not others:
        # What is left of a model whose points were deleted.
        others = [replace(item, name="") for item in objects if item.contours]
    kinds: list[str] = []
    scores: list[float] = []
    starts: list[Points] = [np.zeros((0, 3))]
    tips: list[Points] = [np.zeros((0, 3))]
    for item in others:
        start = np.concatenate([c[:1] if item.has_vectors else c for c in item.contours])
        starts.append(start)
        # Single points have no direction, and get the default, along z.
        single = start + np.array([0.0, 0.0, 1.0])
        tips.append(np.concatenate([c[1:] for c in item.contours]) if item.has_vectors else single)
        kinds += [item.name or "t3ss"] * len(start)
        for number, contour in enumerate(item.contours):
            scores += [item.values.get(number, np.nan)] * (1 if item.has_vectors else len(contour))
    centre = np.concatenate(starts)
    if any(item.has_vectors for item in others):
        return centre, np.concatenate(tips) - centre, kinds, np.array(scores)
    order = _order_of_normals(centre, normals)
    if not order:
        return centre, _normals_at(centre, normals), kinds, np.array(scores)
    along = np.array([tip - start for start, tip in normals])
    return centre[order], along, [kinds[i] for i in order], np.array(scores)[order]


def _normals_at(centre: Points, normals: list[Points]) -> Points | None:
    """Return the normals that start at the centres of an edited model; +z for others, None without any."""
    by_start = {tuple(start): tip - start for start, tip in normals}
    found = [by_start.get(tuple(point)) for point in centre.tolist()]
    if all(normal is None for normal in found):
        return None
    along_z = np.array([0.0, 0.0, 1.0])
    return np.array([along_z if normal is None else normal for normal in found])


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
