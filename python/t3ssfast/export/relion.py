"""RELION star files: 5 (positions from the middle, in Angstrom), 4 and 3 (unbinned voxels); Warp's and M's.

Positions. A voxel centre x (0-based) of a tomogram of size N and voxel size v is at x * v from the centre
of the first voxel; RELION 5 writes (x - N / 2) * v, RELION 4 writes x * v / p with p the pixel size of the
unbinned tilt series. Neither depends on how the tomogram was binned.

Besides RELION's own blocks a file carries `data_t3ssfast` (size and voxel size of each tomogram) and
`data_t3ssfast_kinds`, which RELION ignores; with them a file can be read back on its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile

from t3ssfast.errors import ConfigError, OutputError, ReadError
from t3ssfast.export.poses import normal_and_rot, rotation_from_relion, rotation_of, wrap_degrees
from t3ssfast.export.source import Source, numbers, split_by_tomogram
from t3ssfast.export.star import read_star_blocks
from t3ssfast.export.stopgap import is_motive_list, read_stopgap
from t3ssfast.io import atomic_path, shown
from t3ssfast.types import Candidates, check_voxel_size

__all__ = ["read_relion", "write_companions", "write_relion4", "write_relion5"]

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
COORDINATE = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ORIGIN_ANGST = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN = [f"rlnOrigin{axis}" for axis in "XYZ"]
SIZE = [f"rlnTomoSize{axis}" for axis in "XYZ"]
BINNING = "rlnTomoTomogramBinning"
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
M_COORDINATES = (
    [f"wrpCoordinate{axis}" for axis in "XYZ"],
    [f"wrpCoordinate{axis}1" for axis in "XYZ"],
)
M_ANGLES = ("wrpAngle{}", "wrpAngle{}1")
IMPORT_FILE = "rlnTomoImportParticleFile"
SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
NAMES = ("rlnTomoName", "rlnMicrographName", "rlnTomogramName", "wrpSourceName")
SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "rlnMaxValueProbDistribution")
PIXEL_SIZES = ("rlnTomoTiltSeriesPixelSize", "rlnPixelSize", "rlnImagePixelSize", "rlnMicrographPixelSize")
TEXT = [
    *NAMES,
    "tomo_num",
    "halfset",
    IMPORT_FILE,
    "rlnTomoParticlesFile",
    "rlnTomoTomogramsFile",
    "rlnTomoParticleName",
    "rlnImageName",
    "rlnCtfImage",
    "rlnOpticsGroupName",
    "t3ssKind",
]
VOXEL_SIZE = "t3ssVoxelSizeAngstrom"
# Marks positions in Angstrom.
ANGSTROM = "t3ssAngstrom"
# RELION's own frame for particles on a surface or filament: the particle's axis lies along x of the
# subtomogram, so that the tilt prior is far from the poles, where psi would be undefined.
LOCAL_TILT = 90.0


def write_relion5(
    path: Path,
    candidates: Sequence[Candidates],
    *,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> None:
    """Write a RELION 5 particles file; see `t3ssfast.export.export`."""
    frames = []
    for some in candidates:
        if some.tomogram_shape is None:
            raise ConfigError(
                f"RELION 5 tells positions from the middle of the tomogram and the size of "
                f"{some.tomogram_name!r} is not known; give candidates with a tomogram_shape "
                "(--tomogram FILE)."
            )
        middle = np.array(some.tomogram_shape, dtype=np.float64) / 2
        position = (some.centre_zyx - middle) * some.voxel_size_angstrom
        frames.append(_particles(some, CENTRED, position, membrane_frame))
    _write(path, candidates, frames, tilt_series_pixel_size_angstrom)


def write_companions(
    path: Path, candidates: Sequence[Candidates], *, tilt_series_pixel_size_angstrom: float | None
) -> list[Path]:
    """Write what RELION 5 wants beside a particles file, in its folder.

    tomograms.star (sizes in pixels of the tilt series, binning), optimisation_set.star (the two files), and
    import.star: two columns, each tomogram's name and a star file of its own in coordinates/, with positions
    in unbinned voxels, for RELION's import of coordinates. File names are as `path` was given: RELION looks
    for them from the project's folder.

    Returns
    -------
    The files written.

    Raises
    ------
    ConfigError
        Without the pixel size of the tilt series or the size of a tomogram, or where `path` has the name of
        one of them.
    """
    folder = path.parent
    names = ("tomograms.star", "optimisation_set.star", "import.star")
    if path.name in names:
        raise ConfigError(f"{shown(path)} would be overwritten by RELION's own {path.name}; change the name.")
    rows = []
    for some in candidates:
        unbinned, binning = _binning(some, tilt_series_pixel_size_angstrom, "RELION 5's tomograms.star")
        if some.tomogram_shape is None:
            raise ConfigError(
                f"tomograms.star tells the size of {some.tomogram_name!r}, which is not known; give "
                "candidates with a tomogram_shape (--tomogram FILE)."
            )
        size = [round(n * binning) for n in some.tomogram_shape[::-1]]
        row: dict[str, Any] = {
            "rlnTomoName": star_name(some.tomogram_name),
            PIXEL_SIZES[0]: unbinned,
            BINNING: binning,
        }
        rows.append(row | dict(zip(SIZE, size, strict=True)))
    files = [
        f"{number:03d}_{_file_name(some.tomogram_name)}.star" for number, some in enumerate(candidates, 1)
    ]
    try:
        (folder / "coordinates").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{shown(folder / 'coordinates')} cannot be made a folder ({error.strerror}); choose another."
        ) from error
    imports = []
    for row, some, file in zip(rows, candidates, files, strict=True):
        target = folder / "coordinates" / file
        position = some.centre_zyx.astype(np.float64) * row[BINNING]
        table = _particles(some, COORDINATE, position, False).assign(**{PIXEL_SIZES[0]: row[PIXEL_SIZES[0]]})
        _write_star(target, {"particles": table})
        imports.append({"rlnTomoName": row["rlnTomoName"], IMPORT_FILE: str(target)})
    targets = [folder / name for name in names]
    _write_star(targets[0], {"global": pd.DataFrame(rows)})
    both = {"rlnTomoParticlesFile": [str(path)], "rlnTomoTomogramsFile": [str(targets[0])]}
    _write_star(targets[1], {"optimisation_set": pd.DataFrame(both)})
    _write_star(targets[2], {"particles": pd.DataFrame(imports)})
    return [*targets, *(folder / "coordinates" / file for file in files)]


def _binning(some: Candidates, pixel_size: float | None, what: str) -> tuple[float, float]:
    """Pixel size of the unbinned tilt series and the tomogram's binning; ConfigError where unusable."""
    if pixel_size is None:
        raise ConfigError(
            f"{what} tells positions in voxels of the unbinned tilt series; give its pixel size as "
            "tilt_series_pixel_size_angstrom (--tilt-series-pixel-size)."
        )
    unbinned = check_voxel_size(pixel_size, source="tilt_series_pixel_size_angstrom")
    binning = some.voxel_size_angstrom / unbinned
    if binning < 0.99:
        raise ConfigError(
            f"The tilt series' pixels of {unbinned:g} A are larger than the voxels of {some.tomogram_name!r} "
            f"({some.voxel_size_angstrom:g} A); give the pixel size before binning."
        )
    return unbinned, float(f"{binning:.6g}")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)[:80] or "tomogram"


def write_relion4(
    path: Path,
    candidates: Sequence[Candidates],
    *,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> None:
    """Write a RELION 4 particles file; see `t3ssfast.export.export`."""
    frames = []
    for some in candidates:
        unbinned, _ = _binning(some, tilt_series_pixel_size_angstrom, "RELION 4")
        position = some.centre_zyx.astype(np.float64) * some.voxel_size_angstrom / unbinned
        frames.append(_particles(some, COORDINATE, position, membrane_frame))
    _write(path, candidates, frames, tilt_series_pixel_size_angstrom)


def star_name(name: str) -> str:
    """A name as it can stand in a star file: quotes and control characters become underscores."""
    return re.sub(r"[\"'\x00-\x1f\x7f-\x9f\u2028\u2029]", "_", name).strip() or "tomogram"


def _particles(
    some: Candidates, columns: list[str], position_zyx: npt.NDArray[Any], membrane_frame: bool
) -> pd.DataFrame:
    data: dict[str, Any] = {"rlnTomoName": [star_name(some.tomogram_name)] * len(some)}
    data |= dict(zip(columns, np.asarray(position_zyx, dtype=np.float64).T[::-1], strict=True))
    euler = some.euler_zyz.astype(np.float64)
    if membrane_frame:
        local = np.zeros_like(euler)
        local[:, 1] = LOCAL_TILT
        data |= dict(zip(SUBTOMOGRAM, _subtomogram_angles(some, local).T, strict=True))
        euler = local
    data |= dict(zip(ANGLES, euler.T, strict=True))
    data |= {"rlnAngleTiltPrior": euler[:, 1], "rlnAnglePsiPrior": euler[:, 2]}
    data["rlnAutopickFigureOfMerit"] = some.score.astype(np.float64)
    frame: pd.DataFrame = pd.DataFrame(data)
    return frame


def _subtomogram_angles(some: Candidates, local: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Angles of the frames in which the particles have the local angles: R_frame R_local = R."""
    if len(some) == 0:
        return np.zeros((0, 3))
    frame = rotation_of(some) * rotation_from_relion(local).inv()
    normal, rot = normal_and_rot(frame)
    tilt_psi = replace(some, normal_zyx=normal, rot_degrees=np.zeros(len(some), np.float32)).euler_zyz
    return np.stack([wrap_degrees(rot), tilt_psi[:, 1], tilt_psi[:, 2]], axis=1)


def _write(
    path: Path,
    candidates: Sequence[Candidates],
    frames: list[pd.DataFrame],
    tilt_series_pixel_size_angstrom: float | None,
) -> None:
    kinds = sorted({str(kind) for some in candidates for kind in some.kind}, key=lambda k: (k != "t3ss", k))
    kinds = kinds or ["t3ss"]
    for some, frame in zip(candidates, frames, strict=True):
        frame["rlnClassNumber"] = np.array([kinds.index(str(k)) + 1 for k in some.kind], dtype=np.int64)
    particles = pd.concat(frames, ignore_index=True)
    blocks: dict[str, pd.DataFrame] = {}
    if tilt_series_pixel_size_angstrom is not None:
        size = check_voxel_size(tilt_series_pixel_size_angstrom, source="tilt_series_pixel_size_angstrom")
        optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", PIXEL_SIZES[0]: size}
        blocks["optics"] = pd.DataFrame([optics])
        particles["rlnOpticsGroup"] = np.ones(len(particles), dtype=np.int64)
    blocks["particles"] = particles
    rows = [
        {"rlnTomoName": star_name(some.tomogram_name), VOXEL_SIZE: some.voxel_size_angstrom}
        | dict(zip(SIZE, (some.tomogram_shape or (0, 0, 0))[::-1], strict=True))
        for some in candidates
    ]
    blocks["t3ssfast"] = pd.DataFrame(rows)
    numbered = {"rlnClassNumber": range(1, len(kinds) + 1), "t3ssKind": [star_name(k) for k in kinds]}
    blocks["t3ssfast_kinds"] = pd.DataFrame(numbered)
    _write_star(path, blocks)


def _write_star(path: Path, blocks: dict[str, pd.DataFrame]) -> None:
    texts = {str(t) for block in blocks.values() for c in block for t in block[c] if isinstance(t, str)}
    # RELION takes quotes, but some of its neighbours do not: only where a name would be misread without.
    odd = any(re.search(r"[^\w.+:@/\\-]|^(data_|loop_|_)", text) for text in texts)
    text = starfile.to_string(blocks, float_format="%.9g", quote_all_strings=odd)
    # The library's first line holds the time; without it, the same candidates give the same bytes.
    body = text.split("\n", 1)[1].lstrip("\n")
    with atomic_path(path) as temporary:
        temporary.write_text("# Written by t3ssfast\n\n" + body, encoding="utf-8")


# --------------------------------------------------------------------------------------------------- reading


def read_relion(source: Source) -> list[Candidates]:
    """Read the particles of a RELION 3-5 or Warp star file; see `t3ssfast.export.load_candidates`."""
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
    geometry = _Geometry(source, blocks, particles)
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


def read_star(path: Path) -> dict[str, pd.DataFrame]:
    """Every block of a star file as a table, names as text; ReadError for what is no star file."""
    return read_star_blocks(Source(path), TEXT)


def _from_m(block: pd.DataFrame) -> pd.DataFrame:
    """A table of M (Warp) with RELION's columns: positions in Angstrom, the first sample in time."""
    for coordinates, angles in zip(M_COORDINATES, M_ANGLES, strict=True):
        if set(coordinates) <= set(block):
            renamed = dict(zip(coordinates, COORDINATE, strict=True))
            renamed |= {angles.format(name): f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")}
            angstrom: pd.DataFrame = block.rename(columns=renamed).assign(**{ANGSTROM: 1.0})
            return angstrom
    return block


def _named_file(source: Source, named: str) -> Path:
    """A file that a star file names: relative to its folder, or to one above (RELION: to the project's)."""
    folders = [source.path.parent, *source.path.resolve().parents[:4]]
    match = next((folder / named for folder in folders if (folder / named).is_file()), None)
    if match is None:
        raise ReadError(
            f"{source.name} names {shown(named)}, which is neither in its folder nor in one above it; "
            "give the particles file itself."
        )
    return match


def _read_optimisation_set(source: Source, block: pd.DataFrame) -> list[Candidates]:
    """Follow an optimisation set to its particles and tomograms."""
    if len(block) == 0:
        raise ReadError(f"{source.name} names no particles file; give the particles file itself.")
    particles = _named_file(source, str(block["rlnTomoParticlesFile"].iloc[0]))
    _refuse_index(source, particles)
    tomograms = source.tomograms
    if tomograms is None and "rlnTomoTomogramsFile" in block:
        tomograms = _named_file(source, str(block["rlnTomoTomogramsFile"].iloc[0]))
    return read_relion(replace(source, path=particles, tomograms=tomograms))


def _read_import(source: Source, block: pd.DataFrame) -> list[Candidates]:
    """Read each tomogram's file that the two columns of an import star name; several are put together."""
    found: dict[str, Candidates] = {}
    for name, named in zip(block["rlnTomoName"], block[IMPORT_FILE], strict=True):
        path = _named_file(source, str(named))
        _refuse_index(source, path)
        for some in read_relion(replace(source, path=path)):
            if some.tomogram_name not in (str(name), path.stem):
                raise ReadError(
                    f"{shown(path)} holds particles of {some.tomogram_name!r} where {source.name} says "
                    f"{str(name)!r}; repair one of them."
                )
            some = replace(some, tomogram_name=str(name))
            found[str(name)] = _joined(found[str(name)], some) if str(name) in found else some
    return list(found.values())


def _refuse_index(source: Source, path: Path) -> None:
    """ReadError if a file that should hold particles names other files in its turn."""
    blocks = read_star(path).values()
    if any("rlnTomoParticlesFile" in block or IMPORT_FILE in block for block in blocks):
        raise ReadError(
            f"{source.name} names another list of files ({shown(path)}); give the particles file itself."
        )


def _joined(one: Candidates, other: Candidates) -> Candidates:
    """Candidates of one tomogram from two files."""
    scale = other.voxel_size_angstrom / one.voxel_size_angstrom
    names = ("score", "normal_zyx", "kind", "rot_degrees")
    fields: dict[str, Any] = {n: np.concatenate([getattr(one, n), getattr(other, n)]) for n in names}
    return replace(one, centre_zyx=np.concatenate([one.centre_zyx, other.centre_zyx * scale]), **fields)


def _has_coordinates(block: pd.DataFrame) -> bool:
    return set(CENTRED) <= set(block) or set(COORDINATE) <= set(block)


def _names(source: Source, particles: pd.DataFrame) -> list[str]:
    column = next((name for name in NAMES if name in particles), None)
    if column is None:
        return [source.path.stem] * len(particles)
    return [str(name) for name in particles[column]]


def _scores(source: Source, particles: pd.DataFrame) -> npt.NDArray[Any]:
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
    source: Source, particles: pd.DataFrame, geometry: _Geometry
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


class _Geometry:
    """Where the particles of a star file are, in Angstrom from the centre of the tomogram's first voxel."""

    def __init__(self, source: Source, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> None:
        self.source = source
        self.own = self._own_tomograms(blocks)
        self.relion = {} if source.tomograms is None else self._relion_tomograms(source.tomograms)
        self.pixel_sizes = self._pixel_sizes(blocks, particles)
        self.centred = set(CENTRED) <= set(particles)
        self.in_angstrom = ANGSTROM in particles
        self.values = numbers(source, [particles[c] for c in (CENTRED if self.centred else COORDINATE)])

    def _own_tomograms(self, blocks: dict[str, pd.DataFrame]) -> dict[str, tuple[Any, float]]:
        """Shape (zyx, None where unknown) and voxel size of each tomogram, as t3ssfast wrote them."""
        table = blocks.get("t3ssfast")
        if table is None or not {"rlnTomoName", VOXEL_SIZE, *SIZE} <= set(table):
            return {}
        own: dict[str, tuple[Any, float]] = {}
        values = numbers(self.source, [table[c] for c in (VOXEL_SIZE, *SIZE)])
        for name, (voxel_size, x, y, z) in zip(table["rlnTomoName"], values, strict=True):
            shape = (int(z), int(y), int(x)) if min(x, y, z) > 0 else None
            own[str(name)] = (shape, check_voxel_size(voxel_size, source=self.source.name))
        return own

    def _relion_tomograms(self, path: Path) -> dict[str, tuple[npt.NDArray[Any], float, float]]:
        """Unbinned size (x, y, z), its pixel size, and the binning, from a tomograms.star."""
        needed = ["rlnTomoName", "rlnTomoTiltSeriesPixelSize", *SIZE]
        blocks = read_star(path)
        table = next((block for block in blocks.values() if set(needed) <= set(block)), None)
        if table is None:
            raise ReadError(
                f"{shown(path)} is no RELION tomograms.star: it has no block with {', '.join(needed)}."
            )
        table = table.assign(**{BINNING: table.get(BINNING, 1.0)})
        columns = [table[c] for c in (*SIZE, PIXEL_SIZES[0], BINNING)]
        values = numbers(Source(path), columns)
        return {
            str(n): (row[:3], row[3], row[4]) for n, row in zip(table["rlnTomoName"], values, strict=True)
        }

    def _pixel_sizes(self, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> npt.NDArray[Any]:
        """(n,) Angstrom for one unit of rlnCoordinateX/Y/Z; NaN where the file does not say."""
        n = len(particles)
        if ANGSTROM in particles:
            return np.ones(n)
        if "rlnDetectorPixelSize" in particles and "rlnMagnification" not in particles:
            # PyTom's template matching: Angstrom.
            return numbers(self.source, [particles["rlnDetectorPixelSize"]])[:, 0]
        if {"rlnMagnification", "rlnDetectorPixelSize"} <= set(particles):  # RELION 3.0, micrometres
            detector, magnification = numbers(
                self.source, [particles["rlnDetectorPixelSize"], particles["rlnMagnification"]]
            ).T
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(detector * 1e4 / magnification)
        tables = [particles, *(block for name, block in blocks.items() if block is not particles)]
        for column in PIXEL_SIZES:
            for table in tables:
                if column not in table or len(table) == 0:
                    continue
                sizes = numbers(self.source, [table[column]])[:, 0]
                if table is particles:
                    return sizes
                if "rlnOpticsGroup" in table and "rlnOpticsGroup" in particles:
                    groups = dict(zip(table["rlnOpticsGroup"], sizes, strict=True))
                    return np.array(
                        [groups.get(g, math.nan) for g in particles["rlnOpticsGroup"]], dtype=float
                    )
                if len(set(sizes)) == 1:
                    return np.full(n, sizes[0])
        return np.full(n, math.nan)

    def fields(self, name: str) -> dict[str, Any]:
        """Voxel size and shape of the tomogram that the centres will refer to."""
        shape, in_file = self.own.get(name, (None, None))
        if name in self.relion:
            size, pixel_size, binning = self.relion[name]
            in_file = pixel_size * binning if in_file is None else in_file
            shape = tuple(round(n / binning) for n in size[::-1]) if shape is None else shape
        in_angstrom = self.in_angstrom or self.centred
        if in_file is None and not in_angstrom and len(self.pixel_sizes):
            in_file = float(self.pixel_sizes[0])
        voxel_size = self.source.voxel_size(in_file)
        if self.source.tomogram_shape is not None:
            shape = self.source.tomogram_shape
        elif (
            shape is not None and in_file is not None and not math.isclose(voxel_size, in_file, rel_tol=1e-3)
        ):
            shape = None  # that of another binning
        return {"voxel_size_angstrom": voxel_size, "tomogram_shape": shape}

    def position_angstrom(
        self, name: str, rows: npt.NDArray[Any], voxel_size: float
    ) -> npt.NDArray[np.float64]:
        """(k, 3) x, y, z of the given rows."""
        values = self.values[rows]
        if not self.centred:
            scale = self.pixel_sizes[rows]
            # Without a pixel size the coordinates are taken as voxels of the size that was given.
            return np.asarray(values * np.where(np.isfinite(scale), scale, voxel_size)[:, None])
        if self.source.tomogram_shape is not None:
            extent = np.array(self.source.tomogram_shape[::-1]) * voxel_size
        elif name in self.relion:
            extent = self.relion[name][0] * self.relion[name][1]
        elif self.own.get(name, (None, 0.0))[0] is not None:
            shape, own_size = self.own[name]
            extent = np.array(shape[::-1]) * own_size
        else:
            raise ReadError(
                f"{self.source.name} tells positions from the middle of {name!r}, whose size is not known; "
                "give tomograms (--tomograms), the tomograms.star, or tomogram_shape (--tomogram FILE)."
            )
        return np.asarray(values + extent / 2)
