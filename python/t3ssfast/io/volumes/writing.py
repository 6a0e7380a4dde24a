"""Writing of volumes as MRC files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, OutputError
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.files import COMPRESSED_SUFFIXES, display_path
from t3ssfast.io.volumes.header import HEADER_BYTES, new_header
from t3ssfast.tomogram import StrPath, check_voxel_size

__all__ = ["write"]

# The largest integer up to which float32 is exact.
MAX_FLOAT32_INTEGER = 1 << 24
OTHER_SUFFIXES = {".zarr", ".zip", ".tif", ".tiff", ".em", ".hdf", ".hdf5", ".h5"}
MODES = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}


def write(path: StrPath, array: npt.ArrayLike, voxel_size_angstrom: float) -> None:
    """Write a volume as an MRC file, atomically.

    Parameters
    ----------
    path
        File to write (.mrc, .rec, .map ...); an existing file is replaced.
    array
        (z, y, x). int8 is written as mode 0, int16 as 1, uint16 as 6, float16 as 12, float32 and float64 as
        2. Other integers and bool use the first of modes 0, 1, 6, 2 that holds their values; masks of 0 and 1
        are therefore bytes that read the same as signed or unsigned.
    voxel_size_angstrom
        Voxel size in Angstrom.

    Raises
    ------
    InputError, VoxelSizeError
        If the array is not a volume of real numbers, or the voxel size is invalid.
    OutputError
        If the file cannot be written.
    """
    volume = np.asarray(array)
    name = display_path(path)
    if volume.ndim != 3 or volume.size == 0:
        raise InputError(f"{name}: the array has shape {volume.shape}; give a (z, y, x) volume.")
    voxel_size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    if Path(path).suffix.lower() in {*COMPRESSED_SUFFIXES, *OTHER_SUFFIXES}:
        raise OutputError(f"{name}: volumes are written as plain MRC; give a name that ends in .mrc.")
    mode, dtype = _mode_and_dtype(volume)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(bytes(HEADER_BYTES))
        low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
        for section in volume:
            stored = np.ascontiguousarray(section, dtype=dtype)
            file.write(stored.data)
            with np.errstate(all="ignore"):  # NaN and infinity only affect the header's statistics
                values = stored.astype(np.float64)
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                total, squares = total + float(values.sum()), squares + float(np.square(values).sum())
        mean = total / volume.size
        rms = math.sqrt(max(squares / volume.size - mean**2, 0.0)) if math.isfinite(squares) else math.nan
        file.seek(0)
        file.write(new_header(volume.shape, mode, voxel_size, (low, high, mean, rms)))


def _mode_and_dtype(volume: npt.NDArray[Any]) -> tuple[int, np.dtype[Any]]:
    """Return the MRC mode and the little-endian dtype that hold the values of an array."""
    if volume.dtype.kind not in "biuf":
        raise InputError(f"array: the dtype is {volume.dtype}; give real numbers.")
    code = volume.dtype.str[1:]  # without the byte order
    if volume.dtype.kind == "f":
        code = "f2" if code == "f2" else "f4"
    elif code not in MODES:
        low, high = int(volume.min()), int(volume.max())
        limits = {code: np.iinfo(code) for code in ("i1", "i2", "u2")}
        code = next((c for c, limit in limits.items() if limit.min <= low and high <= limit.max), "f4")
        if max(-low, high) > MAX_FLOAT32_INTEGER:
            integers = f"integers from {low} to {high}"
            raise InputError(f"array: {integers} fit no MRC mode; rescale or relabel the array.")
    return MODES[code], np.dtype(f"<{code}")
