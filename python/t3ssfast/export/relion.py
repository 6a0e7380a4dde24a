"""RELION star files: 5 (positions from the middle, in Angstrom), 4 and 3 (unbinned voxels), Warp.

Positions. A voxel centre x (0-based) of a tomogram of size N and voxel size v is at x * v from the centre
of the first voxel; RELION 5 writes (x - N / 2) * v, RELION 4 writes x * v / p with p the pixel size of the
unbinned tilt series. Neither depends on how the tomogram was binned.

Besides RELION's own blocks a file carries `data_t3ssfast` (size and voxel size of each tomogram) and
`data_t3ssfast_kinds`, which RELION ignores; with them a file can be read back on its own.
"""

from __future__ import annotations

import linecache
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile

from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.export.poses import normal_and_rot, rotation_from_relion, rotation_of, wrap_degrees
from t3ssfast.export.source import Source, check_readable, numbers, split_by_tomogram
from t3ssfast.io import atomic_path, shown
from t3ssfast.types import Candidates, check_voxel_size

__all__ = ["read_relion", "write_relion4", "write_relion5"]

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
COORDINATE = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ORIGIN_ANGST = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN = [f"rlnOrigin{axis}" for axis in "XYZ"]
SIZE = [f"rlnTomoSize{axis}" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
NAMES = ("rlnTomoName", "rlnMicrographName", "rlnTomogramName", "wrpSourceName")
SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "rlnMaxValueProbDistribution")
PIXEL_SIZES = ("rlnTomoTiltSeriesPixelSize", "rlnPixelSize", "rlnImagePixelSize", "rlnMicrographPixelSize")
TEXT = [*NAMES, "rlnTomoParticleName", "rlnImageName", "rlnCtfImage", "rlnOpticsGroupName", "t3ssKind"]
VOXEL_SIZE = "t3ssVoxelSizeAngstrom"
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


def write_relion4(
    path: Path,
    candidates: Sequence[Candidates],
    *,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> None:
    """Write a RELION 4 particles file; see `t3ssfast.export.export`."""
    if tilt_series_pixel_size_angstrom is None:
        raise ConfigError(
            "RELION 4 tells positions in voxels of the unbinned tilt series; give its pixel size as "
            "tilt_series_pixel_size_angstrom (--tilt-series-pixel-size)."
        )
    unbinned = check_voxel_size(tilt_series_pixel_size_angstrom, source="tilt_series_pixel_size_angstrom")
    frames = [
        _particles(
            some,
            COORDINATE,
            some.centre_zyx.astype(np.float64) * some.voxel_size_angstrom / unbinned,
            membrane_frame,
        )
        for some in candidates
    ]
    _write(path, candidates, frames, unbinned)


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
    texts = [*(star_name(some.tomogram_name) for some in candidates), *kinds]
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
    blocks = read_star(source.path)
    for block in blocks.values():
        if "rlnTomoParticlesFile" in block:
            return _read_optimisation_set(source, block)
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
    check_readable(path)
    # The library reads lines through this cache and does not notice a file that was replaced.
    linecache.checkcache(str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = starfile.read(path, always_dict=True, parse_as_string=TEXT)
    except Exception as error:  # the library passes on pandas', shlex's and its own errors
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ReadError(f"{shown(path)} cannot be read as a star file ({reason}); check the file.") from error
    finally:
        linecache.clearcache()
    if not blocks:
        raise ReadError(f"{shown(path)} is not a star file: it has no data_ block; check what it is.")
    return {
        str(name): block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])
        for name, block in blocks.items()
    }


def _read_optimisation_set(source: Source, block: pd.DataFrame) -> list[Candidates]:
    """Follow an optimisation set to its particles and tomograms, relative to its folder or one above."""
    found: dict[str, Path] = {}
    for column in ("rlnTomoParticlesFile", "rlnTomoTomogramsFile"):
        if column not in block:
            continue
        named = Path(str(block[column].iloc[0]))
        folders = [source.path.parent, *source.path.resolve().parents[:4]]
        match = next((folder / named for folder in folders if (folder / named).is_file()), None)
        if match is None:
            raise ReadError(
                f"{source.name} names {shown(named)}, which is neither in its folder nor in one above it; "
                "give the particles file itself."
            )
        found[column] = match
    particles = found["rlnTomoParticlesFile"]
    if any("rlnTomoParticlesFile" in inner for inner in read_star(particles).values()):
        raise ReadError(f"{source.name} names another optimisation set; give the particles file itself.")
    tomograms = source.tomograms or found.get("rlnTomoTomogramsFile")
    return read_relion(replace(source, path=particles, tomograms=tomograms))


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
        table = table.assign(rlnTomoTomogramBinning=table.get("rlnTomoTomogramBinning", 1.0))
        columns = [table[c] for c in (*SIZE, "rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning")]
        values = numbers(Source(path), columns)
        return {
            str(n): (row[:3], row[3], row[4]) for n, row in zip(table["rlnTomoName"], values, strict=True)
        }

    def _pixel_sizes(self, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> npt.NDArray[Any]:
        """(n,) Angstrom for one unit of rlnCoordinateX/Y/Z; NaN where the file does not say."""
        n = len(particles)
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
        if in_file is None and not self.centred and len(self.pixel_sizes):
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
