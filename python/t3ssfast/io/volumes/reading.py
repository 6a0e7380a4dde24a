"""Reading of tomograms of every format; the format is recognised by the content.

Plain MRC and EM files and uncompressed TIFF stacks are memory-mapped, others are read into memory.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path, read_error, stat_path, tomogram_name
from t3ssfast.io.volumes import hdf5, tiff
from t3ssfast.io.volumes.compressed import decompress, file_opener
from t3ssfast.io.volumes.em import is_em, read_em_array
from t3ssfast.io.volumes.header import HEADER_BYTES, SignSource, parse_header
from t3ssfast.io.volumes.ome_zarr import ZIP_MAGIC, read_ome_zarr
from t3ssfast.tomogram import StrPath, Tomogram, check_voxel_size, isotropic_voxel_size

__all__ = ["VolumeLayout", "looks_unsigned", "read", "release_pages", "volume_layout"]

MAP_STAMP = slice(208, 211)
# Bytes look unsigned if neighbours differ this many times more when they are read as signed.
WRONG_SIGN_RATIO = 2.0
SAMPLED_SLICES = 8


def read(path: StrPath, *, voxel_size_angstrom: float | None = None) -> Tomogram:
    """Read a tomogram: MRC (also .gz and .bz2), OME-Zarr (folder or zip), TIFF, EM or HDF5 (EMAN2).

    Plain MRC files, EM files and uncompressed TIFF stacks are memory-mapped; others are read into memory.
    Byte order, axis order and the sign of bytes follow the header; the data are always (z, y, x). Masks of
    bool become uint8.

    Parameters
    ----------
    path
        File or OME-Zarr folder. The format is detected from the content, not from the name.
    voxel_size_angstrom
        Overrides the voxel size of the header; required if that is 0, 1, invalid or anisotropic, and for EM
        files, which have none.

    Returns
    -------
    Tomogram

    Raises
    ------
    ReadError
        If the file is missing, unreadable, truncated, or not a single real-valued volume, or if nothing says
        whether its bytes are signed and they look unsigned.
    VoxelSizeError
        If the voxel size of the header is unusable and none is given.
    """
    if voxel_size_angstrom is not None:
        voxel_size_angstrom = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    status = stat_path(path)
    format, raw = _format_and_header(path, status)
    name = display_path(path)
    if format == "OME-Zarr":
        tomogram = read_ome_zarr(Path(path), voxel_size_angstrom)
        return replace(tomogram, data=_without_bool(tomogram.data))
    if format in _OTHER_READERS:
        data, sizes_xyz = _OTHER_READERS[format](Path(path))
        if data.dtype.kind not in "biuf":
            raise ReadError(f"{name}: the dtype is {data.dtype}; give real numbers.")
        voxel_size = voxel_size_angstrom or isotropic_voxel_size(sizes_xyz, source=name)
        return Tomogram(_without_bool(data), voxel_size, tomogram_name(path))
    try:
        opener = file_opener(path)
        if opener is open:
            header = parse_header(raw, status.st_size, path)
            mapped = np.memmap(path, header.dtype, "r", header.offset, header.stored_shape)
            data = mapped
        else:
            with opener(path, "rb") as file:
                header, data = decompress(path, file)
    except (OSError, ValueError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(f"{name}: memory mapping failed") from error
        raise read_error(path, error) from error
    voxel_size = voxel_size_angstrom or isotropic_voxel_size(header.voxel_sizes, source=name)
    if header.mode == 0 and header.sign_from is SignSource.STANDARD and looks_unsigned(data):
        raise ReadError(
            f"{name}: the bytes of mode 0 look unsigned, and neither IMOD's stamp nor a minimum and maximum "
            "in the header say so; convert the file to mode 6 (newstack -mode 6), or write the statistics."
        )
    return Tomogram(data.transpose(header.zyx_axes), voxel_size, tomogram_name(path))


def _format_and_header(path: StrPath, status: os.stat_result) -> tuple[str, bytes]:
    """Return the format of a file or folder by its content, and its first bytes."""
    if stat.S_ISDIR(status.st_mode):
        return "OME-Zarr", b""
    try:
        with open(path, "rb") as file:
            raw = file.read(HEADER_BYTES)
    except OSError as error:
        raise read_error(path, error) from error
    if raw.startswith(ZIP_MAGIC):
        return "OME-Zarr", raw
    if raw.startswith(tiff.MAGIC):
        return "TIFF", raw
    if raw.startswith(hdf5.MAGIC):
        return "HDF5", raw
    if raw[MAP_STAMP] != b"MAP" and is_em(raw, status.st_size):
        return "EM", raw
    return "MRC", raw


def _read_em(path: Path) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    return read_em_array(path), (math.nan,) * 3


_OTHER_READERS: dict[str, Callable[[Path], tuple[npt.NDArray[Any], tuple[float, ...]]]] = {
    "TIFF": tiff.read_tiff,
    "HDF5": hdf5.read_hdf5,
    "EM": _read_em,
}


def _without_bool(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def looks_unsigned(array: npt.NDArray[Any]) -> bool:
    """Return whether bytes read as signed jump between neighbours much more than read as unsigned."""
    if array.dtype != np.int8 or array.shape[-1] < 2:
        return False
    depth = len(array)
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, SAMPLED_SLICES)).astype(int))
    sample = np.stack([np.asarray(array[z]) for z in chosen])
    signed, unsigned = (
        np.abs(np.diff(sample.view(dtype).astype(np.int16), axis=-1)).mean() for dtype in (np.int8, np.uint8)
    )
    return bool(signed > WRONG_SIGN_RATIO * unsigned)


def release_pages(array: npt.NDArray[Any]) -> None:
    """Release the pages of a memory-mapped array, which count as the process's memory, until needed again."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class VolumeLayout:
    """Format and data layout of a tomogram file."""

    format: str  # "MRC", "MRC, compressed", "OME-Zarr", "TIFF", "HDF5" or "EM"
    mode: int | None = None  # of MRC
    axes: str = "xyz"  # of the stored columns, rows and sections
    sign_from: SignSource = SignSource.STANDARD  # what says whether the bytes of mode 0 are signed


def volume_layout(path: StrPath) -> VolumeLayout:
    """Return the layout of a tomogram file, reading only its header; raise ReadError as `read`."""
    format, _ = _format_and_header(path, stat_path(path))
    if format != "MRC":
        return VolumeLayout(format)
    try:
        opener = file_opener(path)
        with opener(path, "rb") as file:
            raw = file.read(HEADER_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise read_error(path, error) from error
    header = parse_header(raw, None, path)
    axes = "".join("zyx"[header.zyx_axes.index(stored)] for stored in (2, 1, 0))
    format = "MRC" if opener is open else "MRC, compressed"
    return VolumeLayout(format, header.mode, axes, header.sign_from)
