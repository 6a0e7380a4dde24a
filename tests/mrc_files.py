"""MRC files with chosen header fields, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

SHAPE = (3, 4, 5)


def header_bytes(
    shape: tuple[int, int, int] = SHAPE,
    mode: int = 2,
    order: str = "<",
    voxel_size: float = 10.0,
    **fields: Any,
) -> bytearray:
    """Return a valid header, except for the given fields."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, nz
    header["cella"] = (nx * voxel_size, ny * voxel_size, nz * voxel_size)
    header["mode"] = mode
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = 1
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    for name, value in fields.items():
        header[name] = value
    return bytearray(header.tobytes())


def write_mrc(path: Path, array: Any, order: str = "<", extended: bytes = b"", **fields: Any) -> Path:
    """Write an array with a header in which the given fields are set."""
    fields.setdefault("nsymbt", len(extended))
    header = header_bytes(array.shape, order=order, **fields)
    path.write_bytes(bytes(header) + extended + array.astype(array.dtype.newbyteorder(order)).tobytes())
    return path


def ramp(dtype: str, shape: tuple[int, int, int] = SHAPE) -> Any:
    """Return a volume of different values."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)
