"""The header of an MRC file: checked when read, made when written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode

from t3ssfast.errors import ReadError
from t3ssfast.io.names import display_path
from t3ssfast.io.volumes.voxel_size import isotropic_voxel_size

__all__ = ["HEADER_BYTES", "READABLE_MODES", "Header", "new_header", "parse_header"]

HEADER_BYTES = 1024
# Words 39 and 40 of the header, inside `extra2` (bytes 112-195): IMOD's stamp and flags.
# https://bio3d.colorado.edu/imod/doc/mrc_format.txt
IMOD_STAMP = 1146047817
IMOD_STAMP_OFFSET = 152 - 112
IMOD_SIGNED_BYTES = 1
IMOD_PACKED_NIBBLES = 16
READABLE_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
REFUSED_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit numbers",
    16: "RGB bytes",
    101: "4-bit integers",
}
VOLUME_STACK_SPACE_GROUPS = range(401, 631)


@dataclass(frozen=True)
class Header:
    """What of an MRC header is needed to map its data, already checked."""

    stored_shape: tuple[int, int, int]  # sections, rows, columns
    dtype: np.dtype[Any]
    offset: int
    order: tuple[int, int, int]  # transposition of the stored axes that gives z, y, x
    voxel_sizes: tuple[float, float, float]  # x, y, z; NaN where the header gives none
    mode: int
    imod_stamp: bool

    @property
    def data_bytes(self) -> int:
        return math.prod(self.stored_shape) * int(self.dtype.itemsize)

    def voxel_size(self, path: object) -> float:
        """The header's voxel size in Angstrom, or VoxelSizeError."""
        return isotropic_voxel_size(self.voxel_sizes, source=display_path(path))


def parse_header(raw: bytes, available: int | None, path: object) -> Header:
    """Check a header, against the file's size where that is known, and say what its data look like.

    Both byte orders are tried, the machine stamp's first: some files carry a wrong stamp.
    """
    if raw.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ReadError(
            f"{display_path(path)} is a web page, not a tomogram; read what it says, and "
            "download the file itself."
        )
    if len(raw) < HEADER_BYTES:
        size = "empty" if not raw else f"only {len(raw)} bytes long"
        raise ReadError(
            f"{display_path(path)} is {size}, shorter than an MRC header (1024 bytes); check the file."
        )
    stamp = np.frombuffer(raw, HEADER_DTYPE)[0]
    try:
        first = byte_order_from_machine_stamp(stamp["machst"])
    except ValueError:
        first = "<"
    first = ">" if first == ">" else "<"
    failure: ReadError | None = None
    for byte_order in (first, "<" if first == ">" else ">"):
        try:
            header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(byte_order))[0]
            return _check_header(header, byte_order, available, path)
        except ReadError as error:
            failure = failure or error
    assert failure is not None
    if bytes(stamp["map"])[:3] != b"MAP":
        raise ReadError(
            f"{display_path(path)} is not an MRC file: it has no MAP stamp and its first "
            "bytes are not a header; "
            "give an MRC file (.mrc, .rec, .map, also .gz or .bz2) or an OME-Zarr folder."
        )
    raise failure


def _check_header(header: Any, byte_order: str, available: int | None, path: object) -> Header:
    name = display_path(path)
    columns, rows, sections = (int(header[key]) for key in ("nx", "ny", "nz"))
    if min(columns, rows, sections) < 1:
        raise ReadError(
            f"{name}: the header gives {columns} x {rows} x {sections} voxels; the file is damaged."
        )
    mode = int(header["mode"])
    if mode not in READABLE_MODES:
        meaning = REFUSED_MODES.get(mode)
        if meaning is None:
            raise ReadError(f"{name}: the header gives data mode {mode}, which is no MRC mode.")
        raise ReadError(
            f"{name}: data mode {mode} ({meaning}) is not a real-valued tomogram; convert it to mode 2."
        )
    axes = tuple(int(header[key]) for key in ("maps", "mapr", "mapc"))
    if axes == (0, 0, 0):  # written by programs older than the field
        axes = (3, 2, 1)
    if sorted(axes) != [1, 2, 3]:
        raise ReadError(f"{name}: the axis order {axes[::-1]} in the header is no order of x, y, z.")
    if int(header["ispg"]) in VOLUME_STACK_SPACE_GROUPS and int(header["mz"]) != sections:
        raise ReadError(
            f"{name}: this is a stack of volumes (space group {int(header['ispg'])}, {sections} sections in "
            f"volumes of {int(header['mz'])}); give one volume a file."
        )
    extended = int(header["nsymbt"])
    if extended < 0:
        raise ReadError(f"{name}: the extended header is {extended} bytes long; the file is damaged.")
    parsed = Header(
        stored_shape=(sections, rows, columns),
        dtype=_data_dtype(header, mode, byte_order, name),
        offset=HEADER_BYTES + extended,
        order=(axes.index(3), axes.index(2), axes.index(1)),
        voxel_sizes=_voxel_sizes(header),
        mode=mode,
        imod_stamp=_imod_words(header, byte_order)[0] == IMOD_STAMP,
    )
    promised = parsed.offset + parsed.data_bytes
    if available is not None and promised > available:
        raise ReadError(
            f"{name} is truncated: its header promises {promised} bytes ({columns} x {rows} x {sections} "
            f"voxels of mode {mode}) and the file has {available}, so {promised - available} are missing; "
            "copy it again."
        )
    return parsed


def _data_dtype(header: Any, mode: int, byte_order: str, name: str) -> np.dtype[Any]:
    """The dtype of the data: mode 0 is signed by MRC2014, unsigned where IMOD's stamp says so."""
    if mode != 0:
        dtype: np.dtype[Any] = np.dtype(dtype_from_mode(mode)).newbyteorder(byte_order)
        return dtype
    stamp, flags = _imod_words(header, byte_order)
    if stamp != IMOD_STAMP:
        return np.dtype(np.int8)
    if flags & IMOD_PACKED_NIBBLES:
        raise ReadError(f"{name}: the data are packed 4-bit integers; convert them to bytes (IMOD newstack).")
    return np.dtype(np.int8 if flags & IMOD_SIGNED_BYTES else np.uint8)


def _imod_words(header: Any, byte_order: str) -> tuple[int, int]:
    """IMOD's stamp and flags."""
    stamp, flags = np.frombuffer(bytes(header["extra2"]), f"{byte_order}i4", 2, IMOD_STAMP_OFFSET)
    return int(stamp), int(flags)


def _voxel_sizes(header: Any) -> tuple[float, float, float]:
    """Cell length over grid intervals along x, y, z; NaN where the grid is not positive."""
    sizes = []
    for axis in "xyz":
        intervals = int(header["m" + axis])
        sizes.append(float(header["cella"][axis]) / intervals if intervals > 0 else math.nan)
    return sizes[0], sizes[1], sizes[2]


def new_header(
    shape: tuple[int, ...], mode: int, voxel_size: float, statistics: tuple[float, float, float, float]
) -> bytes:
    """An MRC2014 header (version 20141, little-endian, no extended header)."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, nz
    header["mode"] = mode
    header["cella"] = tuple(np.float32(n * voxel_size) for n in (nx, ny, nz))
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    with np.errstate(over="ignore"):
        header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics
    header["ispg"] = 1
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    header["nlabl"] = 1
    header["label"][0] = b"Written by t3ssfast"
    return header.tobytes()
