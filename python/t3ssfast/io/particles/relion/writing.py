"""Writing of RELION 5 and RELION 4 particle files, and of RELION 5's companion files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, OutputError
from t3ssfast.io import display_path
from t3ssfast.io.particles.particle_file import sorted_kinds
from t3ssfast.io.particles.poses import normal_and_rot, rotation_from_relion, rotation_of, wrap_degrees
from t3ssfast.io.particles.relion import columns
from t3ssfast.io.particles.relion.star import star_name, write_star
from t3ssfast.tomogram import check_voxel_size

__all__ = ["relion_blocks", "write_companions", "write_picks", "write_relion"]

# RELION's convention for particles on surfaces and filaments: the particle's axis lies along x of the
# subtomogram, so the tilt prior is far from the poles, where psi is undefined.
MEMBRANE_FRAME_TILT = 90.0
PIXEL_SIZE_ARGUMENT = "tilt_series_pixel_size_angstrom"


def write_relion(
    path: Path,
    candidates: Sequence[Candidates],
    format: str,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> None:
    """Write a particle file in the format "relion5" or "relion4"; see `t3ssfast.io.particles.export`."""
    write_star(path, relion_blocks(candidates, format, tilt_series_pixel_size_angstrom, membrane_frame))


def write_picks(path: Path, candidates: Candidates) -> None:
    """Write picks as RELION 5's napari picker keeps them, which then opens them for correction.

    The picker reads and writes `annotations/{tomogram}_particles.star` in the folder of its job: one table
    without a name, with 0-based voxels of the tomogram that it shows.
    """
    xyz = candidates.centre_zyx[:, ::-1].astype(np.float64)
    table = {columns.TOMOGRAM_NAME: [star_name(candidates.tomogram_name)] * len(candidates)}
    block = pd.DataFrame(table | dict(zip(columns.COORDINATES, xyz.T, strict=True)))
    write_star(path, {"": block})


def relion_blocks(
    candidates: Sequence[Candidates],
    format: str,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> dict[str, pd.DataFrame]:
    """Return the blocks of a particle file by their names; parameters as for `write_relion`."""
    kinds = sorted_kinds(candidates) or ["t3ss"]
    tables, tomograms = [], []
    for of_tomogram in candidates:
        voxel_size = of_tomogram.voxel_size_angstrom
        if format == "relion5":
            coordinates = columns.CENTRED_COORDINATES
            middle = np.array(_require_shape(of_tomogram), dtype=np.float64) / 2
            position = (of_tomogram.centre_zyx - middle) * voxel_size
        else:
            coordinates = columns.COORDINATES
            pixel_size = _require_pixel_size(of_tomogram, tilt_series_pixel_size_angstrom)
            position = of_tomogram.centre_zyx.astype(np.float64) * voxel_size / pixel_size
        table = _particle_table(of_tomogram, coordinates, position, membrane_frame)
        table[columns.CLASS] = np.array([kinds.index(str(k)) + 1 for k in of_tomogram.kind], dtype=np.int64)
        tables.append(table)
        tomogram = {
            columns.TOMOGRAM_NAME: star_name(of_tomogram.tomogram_name),
            columns.VOXEL_SIZE: voxel_size,
        }
        shape_xyz = (of_tomogram.tomogram_shape or (0, 0, 0))[::-1]
        tomograms.append(tomogram | dict(zip(columns.TOMOGRAM_SIZE, shape_xyz, strict=True)))
    particles = pd.concat(tables, ignore_index=True)
    blocks: dict[str, pd.DataFrame] = {}
    if tilt_series_pixel_size_angstrom is not None:
        size = check_voxel_size(tilt_series_pixel_size_angstrom, source=PIXEL_SIZE_ARGUMENT)
        optics = {columns.OPTICS_GROUP: 1, "rlnOpticsGroupName": "opticsGroup1", columns.PIXEL_SIZE: size}
        blocks["optics"] = pd.DataFrame([optics])
        particles[columns.OPTICS_GROUP] = np.ones(len(particles), dtype=np.int64)
    blocks["particles"] = particles
    blocks["t3ssfast"] = pd.DataFrame(tomograms)
    labels = {columns.CLASS: range(1, len(kinds) + 1), columns.KIND: [star_name(kind) for kind in kinds]}
    blocks["t3ssfast_kinds"] = pd.DataFrame(labels)
    return blocks


def _require_shape(candidates: Candidates) -> tuple[int, int, int]:
    """Return the shape of the tomogram; raise ConfigError if it is unknown."""
    if candidates.tomogram_shape is None:
        raise ConfigError(
            f"tomogram_shape: RELION 5 requires the size of {candidates.tomogram_name!r}, which is unknown; "
            "give candidates with a tomogram_shape (--tomogram FILE)."
        )
    return candidates.tomogram_shape


def _require_pixel_size(candidates: Candidates, pixel_size_angstrom: float | None) -> float:
    """Return the pixel size of the unbinned tilt series; raise ConfigError if it is missing or too large."""
    if pixel_size_angstrom is None:
        raise ConfigError(
            f"{PIXEL_SIZE_ARGUMENT}: RELION 4 files and companions require the pixel size of the unbinned "
            "tilt series; give it (--tilt-series-pixel-size)."
        )
    pixel_size = check_voxel_size(pixel_size_angstrom, source=PIXEL_SIZE_ARGUMENT)
    voxel_size = candidates.voxel_size_angstrom
    if voxel_size / pixel_size < 0.99:
        raise ConfigError(
            f"{PIXEL_SIZE_ARGUMENT}: {pixel_size:g} A is larger than the voxels of "
            f"{candidates.tomogram_name!r} ({voxel_size:g} A); give the pixel size before binning."
        )
    return pixel_size


def _particle_table(
    candidates: Candidates, coordinates: list[str], position_zyx: npt.NDArray[Any], membrane_frame: bool
) -> pd.DataFrame:
    """Return one row per candidate, with the positions in the columns `coordinates` (x, y, z)."""
    name = star_name(candidates.tomogram_name)
    data: dict[str, Any] = {columns.TOMOGRAM_NAME: [name] * len(candidates)}
    data |= dict(zip(coordinates, np.asarray(position_zyx, dtype=np.float64).T[::-1], strict=True))
    euler = candidates.euler_zyz.astype(np.float64)
    if membrane_frame:
        euler = np.zeros_like(euler)
        euler[:, 1] = MEMBRANE_FRAME_TILT
        frame = _subtomogram_angles(candidates, euler)
        data |= dict(zip(columns.SUBTOMOGRAM_ANGLES, frame.T, strict=True))
    data |= dict(zip(columns.ANGLES, euler.T, strict=True))
    data |= {"rlnAngleTiltPrior": euler[:, 1], "rlnAnglePsiPrior": euler[:, 2]}
    data[columns.SCORES[0]] = candidates.score.astype(np.float64)
    table: pd.DataFrame = pd.DataFrame(data)
    return table


def _subtomogram_angles(candidates: Candidates, euler_in_frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the angles of the frames in which the particles have the given angles: R_frame R_local = R."""
    if len(candidates) == 0:
        return np.zeros((0, 3))
    frame = rotation_of(candidates) * rotation_from_relion(euler_in_frame).inv()
    normal, rot = normal_and_rot(frame)
    # RELION's files hold rot in float64, `Candidates` in float32.
    angles = replace(candidates, normal_zyx=normal).euler_zyz.astype(np.float64)
    angles[:, 0] = wrap_degrees(rot)
    return angles


def write_companions(
    path: Path, candidates: Sequence[Candidates], tilt_series_pixel_size_angstrom: float | None
) -> list[Path]:
    """Write RELION's companion files into the folder of a particle file, and return their paths.

    import.star names one file per tomogram in coordinates/, with positions in unbinned voxels. Paths in the
    files are relative if `path` is, to the RELION project folder.
    """
    names = ("tomograms.star", "optimisation_set.star", "import.star")
    if path.name in names:
        raise ConfigError(f"{display_path(path)}: a companion file has the same name; change the name.")
    tomograms: list[dict[str, Any]] = []
    for of_tomogram in candidates:
        pixel_size = _require_pixel_size(of_tomogram, tilt_series_pixel_size_angstrom)
        binning = float(f"{of_tomogram.voxel_size_angstrom / pixel_size:.6g}")
        size_xyz = [round(n * binning) for n in _require_shape(of_tomogram)[::-1]]
        tomogram: dict[str, Any] = {columns.TOMOGRAM_NAME: star_name(of_tomogram.tomogram_name)}
        tomogram |= {columns.PIXEL_SIZE: pixel_size, columns.BINNING: binning}
        tomograms.append(tomogram | dict(zip(columns.TOMOGRAM_SIZE, size_xyz, strict=True)))
    folder = path.parent / "coordinates"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{display_path(folder)}: {error.strerror}; choose another folder.") from error
    coordinate_files = []
    for number, (tomogram, of_tomogram) in enumerate(zip(tomograms, candidates, strict=True), 1):
        file_name = re.sub(r"[^\w.+-]+", "_", of_tomogram.tomogram_name)[:80] or "tomogram"
        coordinate_files.append(folder / f"{number:03d}_{file_name}.star")
        position = of_tomogram.centre_zyx.astype(np.float64) * tomogram[columns.BINNING]
        table = _particle_table(of_tomogram, columns.COORDINATES, position, membrane_frame=False)
        table[columns.PIXEL_SIZE] = tomogram[columns.PIXEL_SIZE]
        write_star(coordinate_files[-1], {"particles": table})
    targets = [path.parent / name for name in names]
    table = pd.DataFrame(tomograms)
    write_star(targets[0], {"global": table})
    files = {columns.PARTICLES_FILE: [str(path)], columns.TOMOGRAMS_FILE: [str(targets[0])]}
    write_star(targets[1], {"optimisation_set": pd.DataFrame(files)})
    imports = table[[columns.TOMOGRAM_NAME]].assign(**{columns.IMPORT_FILE: list(map(str, coordinate_files))})
    write_star(targets[2], {"particles": imports})
    return [*targets, *coordinate_files]
