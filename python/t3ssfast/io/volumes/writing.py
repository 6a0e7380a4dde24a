"""Volumes to the disk, as MRC files."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, OutputError
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.names import COMPRESSED_SUFFIXES, display_path
from t3ssfast.io.volumes.header import HEADER_BYTES, new_header
from t3ssfast.tomogram import check_voxel_size

__all__ = ["write"]


def write(path: str | os.PathLike[str], array: npt.ArrayLike, voxel_size_angstrom: float) -> None:
    """Write a volume as an MRC file, atomically, with its voxel size.

    Parameters
    ----------
    path
        Where to, an MRC name (.mrc, .rec, .map ...); an existing file is replaced.
    array
        (z, y, x). int8 becomes mode 0, int16 mode 1, uint16 mode 6, float16 mode 12, float32 and float64
        mode 2; bool, uint8 and other integers take the first of modes 0, 1, 6, 2 that holds their values, so
        that a mask of 0 and 1 is bytes on which signed and unsigned readers agree.
    voxel_size_angstrom
        Edge of a voxel.

    Raises
    ------
    InputError, VoxelSizeError
        If the array is not a volume of real numbers, or the voxel size is unusable.
    OutputError
        If it cannot be written.
    """
    volume = np.asarray(array)
    if volume.ndim != 3 or volume.size == 0:
        raise InputError(
            f"{display_path(path)}: an array of shape {volume.shape} was given to write; give "
            "a (z, y, x) volume."
        )
    voxel_size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    suffix = Path(path).suffix.lower()
    if suffix in COMPRESSED_SUFFIXES or suffix == ".zarr":
        raise OutputError(
            f"{display_path(path)}: volumes are written as plain MRC; give a name that ends in .mrc."
        )
    mode, dtype = _mode_for(volume)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(bytes(HEADER_BYTES))
        low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
        for section in volume:
            stored = np.ascontiguousarray(section, dtype=dtype)
            file.write(stored.data)
            with np.errstate(
                all="ignore"
            ):  # NaN and infinity are the caller's, and only the header's figures
                values = stored.astype(np.float64)
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                total, squares = total + float(values.sum()), squares + float(np.square(values).sum())
        mean = total / volume.size
        rms = math.sqrt(max(squares / volume.size - mean**2, 0.0)) if math.isfinite(squares) else math.nan
        file.seek(0)
        file.write(new_header(volume.shape, mode, voxel_size, (low, high, mean, rms)))


def _mode_for(volume: npt.NDArray[Any]) -> tuple[int, np.dtype[Any]]:
    """The MRC mode and little-endian dtype in which an array is written whole (float64: as float32)."""
    kind, size = volume.dtype.kind, volume.dtype.itemsize
    if kind == "f":
        return (12, np.dtype("<f2")) if size == 2 else (2, np.dtype("<f4"))
    if kind not in "biu":
        raise InputError(f"An array of {volume.dtype} was given to write; give real numbers.")
    if kind == "i" and size <= 2:
        return (0, np.dtype("i1")) if size == 1 else (1, np.dtype("<i2"))
    if kind == "u" and size == 2:
        return 6, np.dtype("<u2")
    low, high = int(volume.min()), int(volume.max())
    for mode, code in ((0, "i1"), (1, "<i2"), (6, "<u2")):
        limits = np.iinfo(np.dtype(code))
        if limits.min <= low and high <= limits.max:
            return mode, np.dtype(code)
    if max(-low, high) <= 1 << 24:  # the integers that float32 holds exactly
        return 2, np.dtype("<f4")
    raise InputError(f"Integers from {low} to {high} do not fit any MRC mode; rescale or relabel the array.")
