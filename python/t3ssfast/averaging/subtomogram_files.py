"""Subtomograms as files: an MRC stack, or one file a particle as RELION has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pandas as pd
import starfile
import torch

from t3ssfast.averaging.extract import Placement, check_tilt_range, wedge_weight
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import atomic_path, results_folder, write
from t3ssfast.io.particles.relion import ANGLES, star_name

__all__ = ["save_subtomograms"]

Float32 = npt.NDArray[np.float32]


def save_subtomograms(
    folder: str | os.PathLike[str],
    boxes: Sequence[Float32],
    candidates: Sequence[Candidates],
    placements: Sequence[Placement],
    voxel_size_angstrom: float,
    *,
    format: str = "stack",
    tilt_range_degrees: tuple[float, float] = (-60.0, 60.0),
) -> list[Path]:
    """Write boxes as one MRC stack, or one file a particle as RELION has them; with particles.star.

    particles.star gives each box's file, tomogram, position, residual shift, angles, and the wedge. Files
    are written one by one, each atomically, the star file last.

    Parameters
    ----------
    folder
        Made where missing.
    boxes, candidates, placements
        One entry a tomogram: what `extract` and `place` gave.
    voxel_size_angstrom
        Of the boxes.
    format
        "stack": subtomograms.mrcs, all boxes along z (n * box sections); "relion": a folder for each
        tomogram with ``{name}_{number}.mrc``, and missing_wedge.mrc, the (0 to 1) weights of the transform
        (kz, ky, kx from 0), which rlnCtfImage names.
    tilt_range_degrees
        Of the tilt series, for the wedge.

    Returns
    -------
    The files written.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    if format not in ("stack", "relion"):
        raise ConfigError(f'format is {format!r}; give "stack" or "relion".')
    tilts = check_tilt_range(tilt_range_degrees)
    out = Path(folder)
    names = [star_name(some.tomogram_name).replace("/", "_") for some in candidates]
    if len(set(names)) != len(names):
        raise InputError(f"Several tomograms have the same name ({names}); give them different names.")
    for each in [out, *(out / name for name in names if format == "relion")]:
        results_folder(each)
    written: list[Path] = []
    frames = []
    number = 0
    for name, cut, some, placement in zip(names, boxes, candidates, placements, strict=True):
        images = []
        for row, volume in enumerate(cut):
            number += 1
            images.append(f"{number:06d}@subtomograms.mrcs")
            if format == "relion":
                images[-1] = f"{name}/{name}_{row + 1:06d}.mrc"
                write(out / images[-1], volume, voxel_size_angstrom)
                written.append(out / images[-1])
        frames.append(_rows(some, placement, images, voxel_size_angstrom))
    n = next((cut.shape[-1] for cut in boxes if len(cut)), 0)
    table = pd.concat(frames, ignore_index=True)
    if format == "stack" and n:
        _write_stack(out / "subtomograms.mrcs", boxes, voxel_size_angstrom)
        written.append(out / "subtomograms.mrcs")
    elif n:
        write(out / "missing_wedge.mrc", _wedge_volume(n, tilts), voxel_size_angstrom)
        written.append(out / "missing_wedge.mrc")
        table["rlnCtfImage"] = "missing_wedge.mrc"
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnImagePixelSize": [voxel_size_angstrom],
            "rlnImageSize": [n],
            "rlnImageDimensionality": [3],
            "t3ssTiltLowest": [tilts[0]],
            "t3ssTiltHighest": [tilts[1]],
        }
    )
    with atomic_path(out / "particles.star") as temporary:
        starfile.write({"optics": optics, "particles": table}, temporary, overwrite=True)
    return [*written, out / "particles.star"]


def _rows(some: Candidates, placement: Placement, images: list[str], voxel_size: float) -> pd.DataFrame:
    """Position of voxel box // 2 and how far the particle is from it, as RELION's coordinate and origin."""
    chosen = some[placement.index]
    offset = placement.offset_zyx * voxel_size
    position = chosen.centre_zyx.astype(np.float64) * some.voxel_size_angstrom - offset
    data: dict[str, Any] = {"rlnTomoName": [star_name(some.tomogram_name)] * len(chosen)}
    for axis, column in enumerate("ZYX"):
        data[f"rlnCoordinate{column}"] = position[:, axis] / voxel_size
        # RELION subtracts the origin.
        data[f"rlnOrigin{column}Angst"] = -offset[:, axis]
    data |= dict(zip(ANGLES, chosen.euler_zyz.astype(np.float64).T, strict=True))
    data |= {"rlnImageName": images, "rlnOpticsGroup": np.ones(len(chosen), np.int64)}
    data["rlnPixelSize"] = np.full(len(chosen), voxel_size)
    frame: pd.DataFrame = pd.DataFrame(data)
    return frame


def _wedge_volume(n: int, tilt_range_degrees: tuple[float, float]) -> Float32:
    """(n, n, n // 2 + 1) weights of the transform, kz and ky in FFT order."""
    whole = torch.fft.fftfreq(n, 1 / n)
    half = torch.arange(n // 2 + 1, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(whole, whole, half, indexing="ij"), dim=-1)
    weights: Float32 = wedge_weight(grid, tilt_range_degrees).numpy()
    return weights


def _write_stack(path: Path, boxes: Sequence[Float32], voxel_size_angstrom: float) -> None:
    """All boxes in one file, an MRC volume stack (space group 401)."""
    count, n = sum(map(len, boxes)), boxes[0].shape[-1]
    shape = (count, n, n, n)
    with atomic_path(path) as temporary, mrcfile.new_mmap(temporary, shape=shape, mrc_mode=2) as file:
        first = 0
        for some in boxes:
            file.data[first : first + len(some)] = some
            first += len(some)
        file.voxel_size = voxel_size_angstrom
        file.update_header_stats()
