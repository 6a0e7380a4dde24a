"""Particles of RELION 3 to 5, Warp and M as candidates, and the lists that name files of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import display_path
from t3ssfast.io.particles.particle_file import ParticleFile, numbers, split_by_tomogram
from t3ssfast.io.particles.poses import normal_and_rot, rotation_from_relion
from t3ssfast.io.particles.relion.columns import (
    ANGLES,
    ANGSTROM,
    CENTRED,
    COORDINATE,
    IMPORT_FILE,
    M_ANGLES,
    M_COORDINATES,
    NAMES,
    ORIGIN,
    ORIGIN_ANGST,
    SCORES,
    SUBTOMOGRAM,
)
from t3ssfast.io.particles.relion.geometry import Geometry
from t3ssfast.io.particles.relion.tables import read_star
from t3ssfast.io.particles.stopgap import is_motive_list, read_stopgap

__all__ = ["read_relion"]


def read_relion(source: ParticleFile) -> list[Candidates]:
    """Read the particles of a RELION 3-5 or Warp star file; see `t3ssfast.io.particles.load_candidates`."""
    blocks = {name: _from_m(block) for name, block in read_star(source.path).items()}
    for block in blocks.values():
        if "rlnTomoParticlesFile" in block:
            return _read_optimisation_set(source, block)
        if {"rlnTomoName", IMPORT_FILE} <= set(block):
            return _read_import(source, block)
        if is_motive_list(block):
            return read_stopgap(source, block)
    particles = blocks.get("particles")
    if particles is None or not _has_coordinates(particles):
        particles = next((block for block in blocks.values() if _has_coordinates(block)), None)
    if particles is None:
        raise ReadError(
            f"{source.name} holds no particles: none of its blocks has rlnCenteredCoordinateX/Y/ZAngst or "
            "rlnCoordinateX/Y/Z; give a particles file."
        )
    names = _names(source, particles)
    geometry = Geometry(source, blocks, particles)
    centre = np.zeros((len(particles), 3), np.float32)
    others: dict[str, dict[str, Any]] = {}
    rotation, shift = _rotations_and_shifts(source, particles, geometry)
    for name in dict.fromkeys([*names, *geometry.own]):
        rows = np.flatnonzero(np.asarray(names, dtype=object) == name)
        fields = geometry.fields(name)
        voxel_size = fields["voxel_size_angstrom"]
        position = geometry.position_angstrom(name, rows, voxel_size) + shift[rows]
        centre[rows] = (position / voxel_size)[:, ::-1]
        others[name] = fields
    normal, rot = normal_and_rot(rotation) if rotation is not None else (np.zeros((0, 3)), np.zeros(0))
    whole = Candidates(
        centre_zyx=centre,
        score=_scores(source, particles),
        normal_zyx=normal.astype(np.float32),
        voxel_size_angstrom=next(iter(others.values()))["voxel_size_angstrom"] if others else 10.0,
        kind=_kinds(blocks, particles),
        rot_degrees=rot.astype(np.float32),
    )
    return split_by_tomogram(names, whole, others)


def _from_m(block: pd.DataFrame) -> pd.DataFrame:
    """A table of M (Warp) with RELION's columns: positions in Angstrom, the first sample in time."""
    for coordinates, angles in zip(M_COORDINATES, M_ANGLES, strict=True):
        if set(coordinates) <= set(block):
            renamed = dict(zip(coordinates, COORDINATE, strict=True))
            renamed |= {angles.format(name): f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")}
            angstrom: pd.DataFrame = block.rename(columns=renamed).assign(**{ANGSTROM: 1.0})
            return angstrom
    return block


def _named_file(source: ParticleFile, named: str) -> Path:
    """A file that a star file names: relative to its folder, or to one above (RELION: to the project's)."""
    folders = [source.path.parent, *source.path.resolve().parents[:4]]
    match = next((folder / named for folder in folders if (folder / named).is_file()), None)
    if match is None:
        raise ReadError(
            f"{source.name} names {display_path(named)}, which is neither in its folder nor in one above it; "
            "give the particles file itself."
        )
    return match


def _read_optimisation_set(source: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Follow an optimisation set to its particles and tomograms."""
    if len(block) == 0:
        raise ReadError(f"{source.name} names no particles file; give the particles file itself.")
    particles = _named_file(source, str(block["rlnTomoParticlesFile"].iloc[0]))
    _refuse_index(source, particles)
    tomograms = source.tomograms
    if tomograms is None and "rlnTomoTomogramsFile" in block:
        tomograms = _named_file(source, str(block["rlnTomoTomogramsFile"].iloc[0]))
    return read_relion(replace(source, path=particles, tomograms=tomograms))


def _read_import(source: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read each tomogram's file that the two columns of an import star name; several are put together."""
    found: dict[str, Candidates] = {}
    for name, named in zip(block["rlnTomoName"], block[IMPORT_FILE], strict=True):
        path = _named_file(source, str(named))
        _refuse_index(source, path)
        for some in read_relion(replace(source, path=path)):
            if some.tomogram_name not in (str(name), path.stem):
                raise ReadError(
                    f"{display_path(path)} holds particles of {some.tomogram_name!r} where "
                    f"{source.name} says "
                    f"{str(name)!r}; repair one of them."
                )
            some = replace(some, tomogram_name=str(name))
            found[str(name)] = _joined(found[str(name)], some) if str(name) in found else some
    return list(found.values())


def _refuse_index(source: ParticleFile, path: Path) -> None:
    """ReadError if a file that should hold particles names other files in its turn."""
    blocks = read_star(path).values()
    if any("rlnTomoParticlesFile" in block or IMPORT_FILE in block for block in blocks):
        raise ReadError(
            f"{source.name} names another list of files ({display_path(path)}); give the "
            "particles file itself."
        )


def _joined(one: Candidates, other: Candidates) -> Candidates:
    """Candidates of one tomogram from two files."""
    scale = other.voxel_size_angstrom / one.voxel_size_angstrom
    names = ("score", "normal_zyx", "kind", "rot_degrees")
    fields: dict[str, Any] = {n: np.concatenate([getattr(one, n), getattr(other, n)]) for n in names}
    return replace(one, centre_zyx=np.concatenate([one.centre_zyx, other.centre_zyx * scale]), **fields)


def _has_coordinates(block: pd.DataFrame) -> bool:
    return set(CENTRED) <= set(block) or set(COORDINATE) <= set(block)


def _names(source: ParticleFile, particles: pd.DataFrame) -> list[str]:
    column = next((name for name in NAMES if name in particles), None)
    if column is None:
        return [source.path.stem] * len(particles)
    return [str(name) for name in particles[column]]


def _scores(source: ParticleFile, particles: pd.DataFrame) -> npt.NDArray[Any]:
    column = next((name for name in SCORES if name in particles), None)
    if column is None:
        return np.ones(len(particles), np.float32)
    return numbers(source, [particles[column]])[:, 0].astype(np.float32)


def _kinds(blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> npt.NDArray[np.str_]:
    table = blocks.get("t3ssfast_kinds")
    if table is None or "rlnClassNumber" not in particles or "t3ssKind" not in table:
        return np.full(len(particles), "t3ss")
    kinds = dict(zip(table["rlnClassNumber"], table["t3ssKind"], strict=True))
    labels = [str(kinds.get(n, f"class_{n}")) for n in particles["rlnClassNumber"]]
    return np.array(labels, dtype=str)


def _rotations_and_shifts(
    source: ParticleFile, particles: pd.DataFrame, geometry: Geometry
) -> tuple[Any, npt.NDArray[Any]]:
    """Object-to-tomogram rotations (None without particles) and shifts of the centres, x, y, z in Angstrom.

    RELION: R = R_subtomogram R_particle; the origin offset is subtracted, in the subtomogram's frame.
    """
    shift = np.zeros((len(particles), 3))
    if len(particles) == 0:
        return None, shift
    if set(ORIGIN_ANGST) <= set(particles):
        shift = -numbers(source, [particles[c] for c in ORIGIN_ANGST])
    elif set(ORIGIN) <= set(particles):
        shift = -numbers(source, [particles[c] for c in ORIGIN]) * geometry.pixel_sizes[:, None]
    angles = np.zeros((len(particles), 3))
    if set(ANGLES) <= set(particles):
        angles = numbers(source, [particles[c] for c in ANGLES])
    rotation = rotation_from_relion(angles)
    if set(SUBTOMOGRAM) <= set(particles):
        frame = rotation_from_relion(numbers(source, [particles[c] for c in SUBTOMOGRAM]))
        rotation, shift = frame * rotation, frame.apply(shift)
    return rotation, shift
