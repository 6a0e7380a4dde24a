"""Tomograms from the disk: mapped where the file is plain, unpacked where it is not."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError, T3Error
from t3ssfast.io.names import cannot_open, display_path, tomogram_name
from t3ssfast.io.volumes.header import HEADER_BYTES, parse_header
from t3ssfast.io.volumes.ome_zarr import read_ome_zarr
from t3ssfast.io.volumes.unpacking import opener_of, unpack
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["Layout", "layout", "read", "release_pages"]


def read(path: str | os.PathLike[str], *, voxel_size_angstrom: float | None = None) -> Tomogram:
    """Read a tomogram: an MRC file (.mrc, .rec, .map, .st; also .gz and .bz2) or an OME-Zarr folder.

    A plain MRC file is memory-mapped; a compressed one and OME-Zarr are unpacked into memory. Byte order,
    axis order and IMOD's unsigned bytes are taken from the header; the answer is always (z, y, x).

    Parameters
    ----------
    path
        File or OME-Zarr folder. What it is, is told by its content, not by its name.
    voxel_size_angstrom
        Overrides the header's voxel size; needed where that is 0, 1, nonsense, or differs between axes.

    Returns
    -------
    Tomogram

    Raises
    ------
    ReadError
        If the file is missing, unreadable, truncated, or not one real-valued volume.
    VoxelSizeError
        If the header's voxel size is unusable and none was given.
    """
    given = (
        None
        if voxel_size_angstrom is None
        else check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    )
    information = _look_at(path)
    if stat.S_ISDIR(information.st_mode):
        return read_ome_zarr(Path(path), given)
    try:
        with open(path, "rb") as file:
            unpacking = opener_of(file.read(4))
            if unpacking is not None:
                with unpacking(path, "rb") as unpacked:
                    header, data = unpack(path, unpacked)
            else:
                file.seek(0)
                header = parse_header(file.read(HEADER_BYTES), information.st_size, path)
                data = np.memmap(file, header.dtype, "r", header.offset, header.stored_shape)
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, T3Error):
            raise
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(f"{display_path(path)} cannot be mapped into memory") from error
        raise ReadError(cannot_open(path, error)) from error
    return Tomogram(
        data=data.transpose(header.order),
        voxel_size_angstrom=given if given is not None else header.voxel_size(path),
        name=tomogram_name(path),
    )


def release_pages(array: npt.NDArray[Any]) -> None:
    """Give back the memory of what was read of a memory-mapped array; it is read again where it is needed.

    Pages of a map count as the process's own once touched. Does nothing for an array that is not mapped, or
    where the system cannot be told.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Layout:
    """How a tomogram lies in its file.

    Parameters
    ----------
    format
        "MRC", "MRC, compressed" or "OME-Zarr".
    mode
        MRC data mode; None for OME-Zarr.
    dtype
        Of the values, as read.
    axes
        What the stored columns, rows and sections are: "xyz" is the usual order.
    imod_stamp
        Whether the header says, as IMOD does, if bytes are signed.
    """

    format: str
    mode: int | None = None
    dtype: str = ""
    axes: str = "xyz"
    imod_stamp: bool = False


def layout(path: str | os.PathLike[str]) -> Layout:
    """How a tomogram that `read` can read lies in its file; looks at the header only.

    Raises
    ------
    ReadError
        As `read`.
    """
    if stat.S_ISDIR(_look_at(path).st_mode):
        return Layout("OME-Zarr")
    try:
        with open(path, "rb") as file:
            unpacking = opener_of(file.read(4))
            file.seek(0)
            if unpacking is None:
                raw = file.read(HEADER_BYTES)
            else:
                with unpacking(path, "rb") as unpacked:
                    raw = unpacked.read(HEADER_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ReadError(cannot_open(path, error)) from error
    header = parse_header(raw, None, path)
    stored = "".join("zyx"[header.order.index(k)] for k in (2, 1, 0))
    format = "MRC" if unpacking is None else "MRC, compressed"
    return Layout(format, header.mode, header.dtype.name, stored, header.imod_stamp)


def _look_at(path: str | os.PathLike[str]) -> os.stat_result:
    """What a path leads to: a file or a folder, and not a pipe, which would be waited for, or a device."""
    try:
        information = os.stat(path)
    except (OSError, ValueError, TypeError) as error:
        raise ReadError(cannot_open(path, error)) from error
    if not stat.S_ISDIR(information.st_mode) and not stat.S_ISREG(information.st_mode):
        raise ReadError(
            f"{display_path(path)} is not a regular file; give an MRC file or an OME-Zarr folder."
        )
    return information
