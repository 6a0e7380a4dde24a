"""Reading of particle files of RELION 3 to 5, Warp and M, and of the star files that list them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import display_path
from t3ssfast.io.particles.particle_file import ParticleFile, merge_candidates
from t3ssfast.io.particles.plausible import are_fractions, check_plausible, check_sizes_of_pixels
from t3ssfast.io.particles.poses import rotation_from_relion
from t3ssfast.io.particles.relion import columns
from t3ssfast.io.particles.relion.star import read_star
from t3ssfast.io.particles.stopgap import is_motive_list, read_stopgap
from t3ssfast.io.tomogram_names import match_names, require_common_names, same_name
from t3ssfast.tomogram import check_voxel_size

__all__ = ["read_relion"]

Shape = tuple[int, int, int]
TOMOGRAM_COLUMNS = (columns.TOMOGRAM_NAME, *columns.TOMOGRAM_SIZE)


def read_relion(file: ParticleFile) -> list[Candidates]:
    """Read a RELION 3-5, Warp, M, PyTom or STOPGAP star file; see `t3ssfast.io.particles.load_candidates`."""
    blocks = {name: _with_relion_names(block) for name, block in read_star(file.path).items()}
    for block in blocks.values():
        if columns.PARTICLES_FILE in block:
            return _read_optimisation_set(file, block)
        if {columns.TOMOGRAM_NAME, columns.IMPORT_FILE} <= set(block):
            return _read_import_star(file, block)
        if is_motive_list(block):
            return read_stopgap(file, block)
    tables = [blocks["particles"]] if "particles" in blocks else []
    particles = next((table for table in [*tables, *blocks.values()] if _has_coordinates(table)), None)
    if particles is None:
        raise ReadError(
            f"{file}: no rlnCenteredCoordinateX/Y/ZAngst or rlnCoordinateX/Y/Z; give a file of particles."
        )
    name_column = next((name for name in columns.NAMES if name in particles), None)
    names = [file.path.stem] * len(particles)
    if name_column is not None:
        names = [str(name) for name in particles[name_column]]
    coordinates = _Coordinates(file, blocks, particles, names, named=name_column is not None)
    rotation, shift = _rotation_and_shift(file, particles, coordinates.pixel_sizes)
    fields: dict[str, Any] = {"kind": _kinds(blocks, particles)}
    score_column = next((name for name in columns.SCORES if name in particles), None)
    if score_column is not None:
        fields["score"] = file.parse_numbers(particles[score_column])
    # Positions and voxel sizes are set below.
    whole = file.candidates(np.zeros((len(particles), 3)), rotation, voxel_size_angstrom=1.0, **fields)
    found = []
    for name in dict.fromkeys([*names, *coordinates.written]):
        rows = np.flatnonzero(np.asarray(names, dtype=object) == name)
        voxel_size, shape = coordinates.voxel_size_and_shape(name)
        position = coordinates.position_angstrom(name, rows, voxel_size) + shift[rows]
        fields = {"voxel_size_angstrom": voxel_size, "tomogram_shape": shape, "tomogram_name": name}
        found.append(replace(whole[rows], centre_zyx=(position / voxel_size)[:, ::-1], **fields))
    return found


def _with_relion_names(block: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of an M table, with coordinates in Angstrom at the first time point, to RELION's."""
    for suffix in ("", "1"):  # M numbers time points, unless there is only one
        names = {f"wrpCoordinate{axis}{suffix}": f"rlnCoordinate{axis}" for axis in "XYZ"}
        if set(names) <= set(block):
            names |= {f"wrpAngle{angle}{suffix}": f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")}
            block = block.rename(columns=names).assign(**{columns.COORDINATES_IN_ANGSTROM: 1.0})
            break
    return block


def _has_coordinates(block: pd.DataFrame) -> bool:
    return set(columns.CENTRED_COORDINATES) <= set(block) or set(columns.COORDINATES) <= set(block)


def _kinds(blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> npt.NDArray[np.str_] | None:
    """Return the kinds by class number, as t3ssfast writes them; None if the file does not list kinds."""
    table = blocks.get("t3ssfast_kinds")
    if table is None or not {columns.CLASS, columns.KIND} <= set(table) or columns.CLASS not in particles:
        return None
    kinds = dict(zip(table[columns.CLASS], table[columns.KIND], strict=True))
    return np.array([str(kinds.get(n, f"class_{n}")) for n in particles[columns.CLASS]], dtype=str)


def _rotation_and_shift(
    file: ParticleFile, particles: pd.DataFrame, pixel_sizes: npt.NDArray[Any]
) -> tuple[Any, npt.NDArray[Any]]:
    """Return object-to-tomogram rotations (None without particles) and shifts x, y, z in Angstrom.

    RELION: R = R_subtomogram R_particle; the origin offset is subtracted in the frame of the subtomogram.
    """
    shift = np.zeros((len(particles), 3))
    if len(particles) == 0:
        return None, shift
    if _has_any(particles, columns.ORIGIN_ANGSTROM):
        shift = -_values_or_zero(file, particles, columns.ORIGIN_ANGSTROM)
    elif _has_any(particles, columns.ORIGIN_PIXELS):
        sizes = _sizes_of_origins(file, particles, pixel_sizes)
        shift = -_values_or_zero(file, particles, columns.ORIGIN_PIXELS) * sizes[:, None]
    rotation = rotation_from_relion(_values_or_zero(file, particles, columns.ANGLES))
    if _has_any(particles, columns.SUBTOMOGRAM_ANGLES):
        frame = rotation_from_relion(_values_or_zero(file, particles, columns.SUBTOMOGRAM_ANGLES))
        rotation, shift = frame * rotation, frame.apply(shift)
    return rotation, shift


def _has_any(table: pd.DataFrame, names: list[str]) -> bool:
    return any(name in table for name in names)


def _values_or_zero(file: ParticleFile, table: pd.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Return the given columns, with 0 for missing ones as in RELION."""
    zero = np.zeros(len(table))
    return np.stack([file.parse_numbers(table[name]) if name in table else zero for name in names], axis=1)


def _sizes_of_origins(
    file: ParticleFile, particles: pd.DataFrame, pixel_sizes: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return the (n,) size in Angstrom of one unit of rlnOriginX/Y/Z.

    Without a pixel size in the file, origins are in the voxels of the coordinates.
    """
    in_angstrom = columns.COORDINATES_IN_ANGSTROM in particles or file.angstrom
    known = np.isfinite(pixel_sizes) & (not in_angstrom)
    if known.all():
        return pixel_sizes
    if in_angstrom or set(columns.CENTRED_COORDINATES) <= set(particles) or file.voxel_size_angstrom is None:
        raise ReadError(
            f"{file}: rlnOriginX/Y/Z are in pixels of unknown size; add rlnImagePixelSize, or convert them "
            "to rlnOriginX/Y/ZAngst."
        )
    return np.asarray(np.where(known, pixel_sizes, file.voxel_size_angstrom))


def _read_optimisation_set(file: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read the particles of an optimisation set, with its tomograms."""
    if len(block) == 0:
        raise ReadError(f"{file}: the optimisation set names no particles; give the particle file.")
    particles = _resolve_particles(file, block[columns.PARTICLES_FILE].iloc[0])
    tomograms_star = file.tomograms_star
    if tomograms_star is None and columns.TOMOGRAMS_FILE in block:
        tomograms_star = _resolve(file, block[columns.TOMOGRAMS_FILE].iloc[0])
    found = read_relion(replace(file, path=particles, tomograms_star=tomograms_star))
    if tomograms_star is not None:
        check_plausible(found, file)
    return found


def _read_import_star(file: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read the files of each tomogram in a list for RELION's import of coordinates."""
    found: dict[str, Candidates] = {}
    for name, named in zip(map(str, block[columns.TOMOGRAM_NAME]), block[columns.IMPORT_FILE], strict=True):
        path = _resolve_particles(file, named)
        for of_tomogram in read_relion(replace(file, path=path)):
            if of_tomogram.tomogram_name != path.stem and not same_name(of_tomogram.tomogram_name, name):
                raise ReadError(
                    f"{display_path(path)}: the particles are of tomogram {of_tomogram.tomogram_name!r}, and "
                    f"{file} says {name!r}; repair one of them."
                )
            of_tomogram = replace(of_tomogram, tomogram_name=name)
            found[name] = merge_candidates([found[name], of_tomogram]) if name in found else of_tomogram
    return list(found.values())


def _resolve(file: ParticleFile, named: object) -> Path:
    """Find a file named in a star file: relative to its folder or one above (RELION: the project folder)."""
    folders = [file.path.parent, *file.path.resolve().parents[:4]]
    match = next((folder / str(named) for folder in folders if (folder / str(named)).is_file()), None)
    if match is None:
        raise ReadError(f"{file}: {named!r} is neither in its folder nor above; give the particle file.")
    return match


def _resolve_particles(file: ParticleFile, named: object) -> Path:
    """Find a file of particles named in a star file; refuse lists, which could be circular."""
    path = _resolve(file, named)
    if any({columns.PARTICLES_FILE, columns.IMPORT_FILE} & set(block) for block in read_star(path).values()):
        raise ReadError(f"{file}: {display_path(path)} is another list of files; give the particle file.")
    return path


class _Tomogram(NamedTuple):
    """Size (x, y, z) of a tomogram in Angstrom, its voxel size, its shape (zyx) in these voxels.

    `pixel_size` is that of the tilt series.
    """

    extent_angstrom: npt.NDArray[Any]
    voxel_size: float
    shape: Shape | None
    pixel_size: float


class _Coordinates:
    """The coordinates of a table of particles, and the tomograms that they refer to."""

    def __init__(
        self,
        file: ParticleFile,
        blocks: dict[str, pd.DataFrame],
        particles: pd.DataFrame,
        names: Sequence[str],
        *,
        named: bool,
    ) -> None:
        self._file = file
        self.written = {}  # tomograms in the block that t3ssfast writes, by name
        table = blocks.get("t3ssfast")
        if table is not None and {*TOMOGRAM_COLUMNS, columns.VOXEL_SIZE} <= set(table):
            self.written = _read_tomograms(file, table, columns.VOXEL_SIZE)
        self._tomograms = {}
        if (path := file.tomograms_star) is not None:
            required = (*TOMOGRAM_COLUMNS, columns.PIXEL_SIZE)
            tables = (block for block in read_star(path).values() if set(required) <= set(block))
            if (table := next(tables, None)) is None:
                listed = ", ".join(required)
                raise ReadError(f"{display_path(path)}: no block has {listed}; give a RELION tomograms.star.")
            listed_tomograms = _read_tomograms(ParticleFile(path), table, columns.PIXEL_SIZE)
            matched = match_names([*names, *self.written], listed_tomograms)
            if not named and len(listed_tomograms) == 1:
                matched = dict.fromkeys(names, next(iter(listed_tomograms)))
            elif not matched:
                require_common_names({display_path(path): listed_tomograms, str(file): names})
            self._tomograms = {name: listed_tomograms[other] for name, other in matched.items()}
        self.pixel_sizes = _pixel_sizes(file, blocks, particles)
        self._centred = set(columns.CENTRED_COORDINATES) <= set(particles)
        self._in_angstrom = self._centred or columns.COORDINATES_IN_ANGSTROM in particles or file.angstrom
        coordinate_columns = columns.CENTRED_COORDINATES if self._centred else columns.COORDINATES
        self._values = file.parse_numbers(particles[coordinate_columns])
        # Warp's template matching writes no pixel size beside them.
        sizes_known = bool(np.isfinite(self.pixel_sizes).any())
        self._fractions = not (self._in_angstrom or sizes_known) and are_fractions(self._values)
        if not self._centred and not np.isfinite(self.pixel_sizes).all():
            # RELION counts in pixels of the tilt series, whose size the tomograms.star has.
            listed_sizes = [
                self._tomograms[n].pixel_size if n in self._tomograms else math.nan for n in names
            ]
            unknown = ~np.isfinite(self.pixel_sizes)
            self.pixel_sizes = np.where(unknown, np.array(listed_sizes, float), self.pixel_sizes)

    def voxel_size_and_shape(self, name: str) -> tuple[float, Shape | None]:
        """Return the voxel size of the positions to return for a tomogram, and its shape in these voxels."""
        tomograms = [t[name] for t in (self.written, self._tomograms) if name in t]
        size_in_file = tomograms[0].voxel_size if tomograms else None
        shape = next((t.shape for t in tomograms if t.shape is not None), None)
        if size_in_file is None and not self._in_angstrom and len(self.pixel_sizes):
            size_in_file = float(self.pixel_sizes[0])
        voxel_size = self._file.resolve_voxel_size(size_in_file)
        if self._file.tomogram_shape is not None:
            return voxel_size, self._file.tomogram_shape
        if size_in_file is not None and not math.isclose(voxel_size, size_in_file, rel_tol=1e-3):
            shape = None  # the shape in the file is that of another binning
        return voxel_size, shape

    def position_angstrom(
        self, name: str, rows: npt.NDArray[Any], voxel_size: float
    ) -> npt.NDArray[np.float64]:
        """Return (k, 3) positions x, y, z of the given rows, which are in the tomogram `name`."""
        values = self._values[rows]
        if self._fractions:
            shape = self.voxel_size_and_shape(name)[1]
            if shape is None:
                raise ReadError(
                    f"{self._file}: all coordinates are within 0 and 1, fractions of the tomogram as Warp "
                    "writes them; give the tomogram (--tomogram FILE, tomogram_shape) for its size."
                )
            return np.asarray(values * np.array(shape[::-1]) * voxel_size)
        if not self._centred:
            scale = self.pixel_sizes[rows]
            if not self._in_angstrom and len(rows) and np.ptp(scale) == 0:
                shape = self.voxel_size_and_shape(name)[1]
                check_sizes_of_pixels(values, float(scale[0]), shape, voxel_size, self._file)
            # Without a pixel size, coordinates are in voxels of the caller's size.
            return np.asarray(values * np.where(np.isfinite(scale), scale, voxel_size)[:, None])
        if self._file.tomogram_shape is not None:
            extent = np.array(self._file.tomogram_shape[::-1]) * voxel_size
        elif name in self._tomograms:
            extent = self._tomograms[name].extent_angstrom
        elif name in self.written and self.written[name].shape is not None:
            extent = self.written[name].extent_angstrom
        else:
            raise ReadError(
                f"{self._file}: positions are from the middle of {name!r}, whose size is unknown; give "
                "tomograms (--tomograms), the tomograms.star, or tomogram_shape (--tomogram FILE)."
            )
        return np.asarray(values + extent / 2)


def _read_tomograms(file: ParticleFile, table: pd.DataFrame, pixel_size_column: str) -> dict[str, _Tomogram]:
    """Read the tomograms of a table with their sizes in pixels, by name."""
    if columns.BINNING not in table:
        table = table.assign(**{columns.BINNING: 1.0})
    values = file.parse_numbers(table[[*columns.TOMOGRAM_SIZE, pixel_size_column, columns.BINNING]])
    tomograms = {}
    for name, (*size_xyz, pixel_size, binning) in zip(table[columns.TOMOGRAM_NAME], values, strict=True):
        voxel_size = check_voxel_size(pixel_size * binning, source=str(file))
        x, y, z = (round(size / binning) for size in size_xyz)
        shape = (z, y, x) if min(x, y, z) > 0 else None
        extent = np.array(size_xyz) * pixel_size
        tomograms[str(name)] = _Tomogram(extent, voxel_size, shape, float(pixel_size))
    return tomograms


def _pixel_sizes(
    file: ParticleFile, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame
) -> npt.NDArray[Any]:
    """Return the (n,) size in Angstrom of one unit of rlnCoordinateX/Y/Z, NaN if the file has none."""
    n = len(particles)
    if columns.COORDINATES_IN_ANGSTROM in particles or file.angstrom:
        return np.ones(n)
    if "rlnDetectorPixelSize" in particles:
        detector = file.parse_numbers(particles["rlnDetectorPixelSize"])
        if "rlnMagnification" not in particles:  # PyTom's template matching, in Angstrom
            return detector
        with np.errstate(divide="ignore", invalid="ignore"):  # RELION 3.0, in micrometres
            return np.asarray(detector * 1e4 / file.parse_numbers(particles["rlnMagnification"]))
    tables = [particles, *(block for block in blocks.values() if block is not particles)]
    for column in columns.PIXEL_SIZES:
        for table in tables:
            if column not in table or len(table) == 0:
                continue
            sizes = file.parse_numbers(table[column])
            if table is particles:
                return sizes
            if columns.OPTICS_GROUP in table and columns.OPTICS_GROUP in particles:
                groups = dict(zip(table[columns.OPTICS_GROUP], sizes, strict=True))
                of_particles = [groups.get(group, math.nan) for group in particles[columns.OPTICS_GROUP]]
                return np.array(of_particles, dtype=float)
            if len(set(sizes)) == 1:
                return np.full(n, sizes[0])
    return np.full(n, math.nan)
