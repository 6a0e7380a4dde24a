"""Subtomograms as files: one MRC stack, or one file per particle for RELION."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile
import torch

from t3ssfast.averaging.extract import BoxPositions
from t3ssfast.averaging.missing_wedge import check_tilt_range, missing_wedge_weights
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import atomic_path, results_folder, write
from t3ssfast.io.particles.relion import ANGLES, star_name
from t3ssfast.tomogram import StrPath

__all__ = ["save_subtomograms"]

Float32 = npt.NDArray[np.float32]


def save_subtomograms(
    folder: StrPath,
    boxes: Sequence[Float32],
    candidates: Sequence[Candidates],
    positions: Sequence[BoxPositions],
    voxel_size_angstrom: float,
    *,
    format: str = "stack",
    tilt_range_degrees: tuple[float, float] = (-60.0, 60.0),
) -> list[Path]:
    """Write subtomograms, each file atomically, and last a particles.star with positions and angles.

    `boxes` and `positions` are those of `extract` and `box_positions`, one of each per tomogram. Formats are
    "stack": subtomograms.mrcs, all boxes along z (n * box sections); "relion": a folder per tomogram with
    ``{name}_{number}.mrc``, and missing_wedge.mrc, the weights of the transform, with kz, ky, kx from 0.
    """
    if format not in ("stack", "relion"):
        raise ConfigError(f'format is {format!r}; give "stack" or "relion".')
    tilts = check_tilt_range(tilt_range_degrees)
    names = [star_name(some.tomogram_name).replace("/", "_") for some in candidates]
    if len(set(names)) != len(names):
        raise InputError(f"Several tomograms have the same name ({names}); give them different names.")
    out = results_folder(folder)
    written: list[Path] = []
    tables = []
    numbers = count(1)
    for name, cut, some, position in zip(names, boxes, candidates, positions, strict=True):
        images = [f"{next(numbers):06d}@subtomograms.mrcs" for _ in cut]
        if format == "relion":
            results_folder(out / name)
            images = [f"{name}/{name}_{row + 1:06d}.mrc" for row in range(len(cut))]
            for image, volume in zip(images, cut, strict=True):
                write(out / image, volume, voxel_size_angstrom)
                written.append(out / image)
        tables.append(_particle_table(some, position, images, voxel_size_angstrom))
    particles = pd.concat(tables, ignore_index=True)
    n = next((cut.shape[-1] for cut in boxes if len(cut)), 0)
    if n and format == "stack":
        written.append(out / "subtomograms.mrcs")
        shape = (len(particles), n, n, n)
        with atomic_path(written[-1]) as temporary, mrcfile.new_mmap(temporary, shape, mrc_mode=2) as file:
            np.concatenate(boxes, out=file.data)
            file.voxel_size = voxel_size_angstrom
            file.update_header_stats()
    elif n:
        written.append(out / "missing_wedge.mrc")
        write(written[-1], _missing_wedge_volume(n, tilts), voxel_size_angstrom)
        particles["rlnCtfImage"] = "missing_wedge.mrc"
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnImagePixelSize": voxel_size_angstrom,
        "rlnImageSize": n,
        "rlnImageDimensionality": 3,
        "t3ssTiltLowest": tilts[0],
        "t3ssTiltHighest": tilts[1],
    }
    with atomic_path(out / "particles.star") as temporary:
        blocks = {"optics": pd.DataFrame([optics]), "particles": particles}
        starfile.write(blocks, temporary, overwrite=True)
    return [*written, out / "particles.star"]


def _particle_table(
    candidates: Candidates, positions: BoxPositions, images: list[str], voxel_size: float
) -> pd.DataFrame:
    """Make RELION's table: the coordinate is voxel box // 2, the origin the offset from there."""
    chosen = candidates[positions.index]
    offset = positions.offset_zyx * voxel_size
    coordinate = chosen.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom - offset
    columns: dict[str, Any] = {"rlnTomoName": [star_name(candidates.tomogram_name)] * len(chosen)}
    for axis, name in enumerate("ZYX"):
        columns[f"rlnCoordinate{name}"] = coordinate[:, axis] / voxel_size
        # RELION subtracts the origin.
        columns[f"rlnOrigin{name}Angst"] = -offset[:, axis]
    columns |= dict(zip(ANGLES, chosen.euler_zyz.astype(np.float64).T, strict=True))
    columns |= {"rlnImageName": images, "rlnOpticsGroup": np.ones(len(chosen), np.int64)}
    table: pd.DataFrame = pd.DataFrame(columns | {"rlnPixelSize": np.full(len(chosen), voxel_size)})
    return table


def _missing_wedge_volume(n: int, tilt_range_degrees: tuple[float, float]) -> Float32:
    """Make (n, n, n // 2 + 1) weights of the transform, kz and ky in FFT order."""
    whole = torch.fft.fftfreq(n, 1 / n)
    half = torch.arange(n // 2 + 1, dtype=torch.float32)
    frequency = torch.stack(torch.meshgrid(whole, whole, half, indexing="ij"), dim=-1)
    return np.asarray(missing_wedge_weights(frequency, tilt_range_degrees))
