"""Candidates as particles of RELION 5 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.io.particles.poses import normal_and_rot, rotation_from_relion, rotation_of, wrap_degrees
from t3ssfast.io.particles.relion.columns import (
    ANGLES,
    CENTRED,
    COORDINATE,
    PIXEL_SIZES,
    SIZE,
    SUBTOMOGRAM,
    VOXEL_SIZE,
)
from t3ssfast.io.particles.relion.tables import star_name, write_star
from t3ssfast.tomogram import check_voxel_size

__all__ = ["binning_of", "particles_of", "write_relion4", "write_relion5"]

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
    """Write a RELION 5 particles file; see `t3ssfast.io.particles.export`."""
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
        frames.append(particles_of(some, CENTRED, position, membrane_frame))
    _write(path, candidates, frames, tilt_series_pixel_size_angstrom)


def write_relion4(
    path: Path,
    candidates: Sequence[Candidates],
    *,
    tilt_series_pixel_size_angstrom: float | None,
    membrane_frame: bool,
) -> None:
    """Write a RELION 4 particles file; see `t3ssfast.io.particles.export`."""
    frames = []
    for some in candidates:
        unbinned, _ = binning_of(some, tilt_series_pixel_size_angstrom, "RELION 4")
        position = some.centre_zyx.astype(np.float64) * some.voxel_size_angstrom / unbinned
        frames.append(particles_of(some, COORDINATE, position, membrane_frame))
    _write(path, candidates, frames, tilt_series_pixel_size_angstrom)


def binning_of(some: Candidates, pixel_size: float | None, what: str) -> tuple[float, float]:
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


def particles_of(
    some: Candidates, columns: list[str], position_zyx: npt.NDArray[Any], membrane_frame: bool
) -> pd.DataFrame:
    """A row for each candidate; positions go into the three columns in the order x, y, z."""
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
    write_star(path, blocks)
