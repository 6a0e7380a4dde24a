"""Reading of tomograms: plain MRC files are memory-mapped, others are read into memory."""

from __future__ import annotations

import errno
import mmap
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.io.files import display_path, read_error, stat_path, tomogram_name
from t3ssfast.io.volumes.compressed import decompress, file_opener
from t3ssfast.io.volumes.header import HEADER_BYTES, parse_header
from t3ssfast.io.volumes.ome_zarr import read_ome_zarr
from t3ssfast.tomogram import StrPath, Tomogram, check_voxel_size, isotropic_voxel_size

__all__ = ["VolumeLayout", "read", "release_pages", "volume_layout"]


def read(path: StrPath, *, voxel_size_angstrom: float | None = None) -> Tomogram:
    """Read a tomogram: an MRC file (.mrc, .rec, .map, .st; also .gz and .bz2) or an OME-Zarr folder.

    A plain MRC file is memory-mapped; a compressed one and OME-Zarr are read into memory. Byte order, axis
    order and the sign of bytes (IMOD) follow the header; the data are always (z, y, x).

    Parameters
    ----------
    path
        File or OME-Zarr folder. The format is detected from the content, not from the name.
    voxel_size_angstrom
        Overrides the voxel size of the header; required if that is 0, 1, invalid or anisotropic.

    Returns
    -------
    Tomogram

    Raises
    ------
    ReadError
        If the file is missing, unreadable, truncated, or not a single real-valued volume.
    VoxelSizeError
        If the voxel size of the header is unusable and none is given.
    """
    if voxel_size_angstrom is not None:
        voxel_size_angstrom = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    status = stat_path(path)
    if stat.S_ISDIR(status.st_mode):
        return read_ome_zarr(Path(path), voxel_size_angstrom)
    data: npt.NDArray[Any]
    try:
        opener = file_opener(path)
        with opener(path, "rb") as file:
            if opener is open:
                header = parse_header(file.read(HEADER_BYTES), status.st_size, path)
                data = np.memmap(file, header.dtype, "r", header.offset, header.stored_shape)
            else:
                header, data = decompress(path, file)
    except (OSError, ValueError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(f"{display_path(path)}: memory mapping failed") from error
        raise read_error(path, error) from error
    voxel_size = voxel_size_angstrom or isotropic_voxel_size(header.voxel_sizes, source=display_path(path))
    return Tomogram(data.transpose(header.zyx_axes), voxel_size, tomogram_name(path))


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

    format: str  # "MRC", "MRC, compressed" or "OME-Zarr"
    mode: int | None = None  # None for OME-Zarr
    axes: str = "xyz"  # of the stored columns, rows and sections
    imod_stamp: bool = False  # declares the sign of bytes


def volume_layout(path: StrPath) -> VolumeLayout:
    """Return the layout of a tomogram file, reading only its header; raise ReadError as `read`."""
    if stat.S_ISDIR(stat_path(path).st_mode):
        return VolumeLayout("OME-Zarr")
    try:
        opener = file_opener(path)
        with opener(path, "rb") as file:
            raw = file.read(HEADER_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise read_error(path, error) from error
    header = parse_header(raw, None, path)
    axes = "".join("zyx"[header.zyx_axes.index(stored)] for stored in (2, 1, 0))
    format = "MRC" if opener is open else "MRC, compressed"
    return VolumeLayout(format, header.mode, axes, header.imod_stamp)
