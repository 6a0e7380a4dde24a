"""MRC headers: parsing with checks, and writing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path
from t3ssfast.tomogram import StrPath

__all__ = ["HEADER_BYTES", "READABLE_MODES", "Header", "SignSource", "new_header", "parse_header"]

HEADER_BYTES = 1024
# IMOD's stamp and flags, words 39 and 40 of the header, in the field `extra2` (bytes 112-195):
# https://bio3d.colorado.edu/imod/doc/mrc_format.txt
IMOD_STAMP = 1146047817
IMOD_STAMP_OFFSET = 152 - 112
IMOD_SIGNED_BYTES = 1
IMOD_PACKED_NIBBLES = 16
READABLE_MODES = (0, 1, 2, 6, 12)
UNSUPPORTED_MODES = {3: "complex integers", 4: "complex numbers", 16: "RGB bytes", 101: "4-bit integers"}
VOLUME_STACK_SPACE_GROUPS = range(401, 631)
MAX_SIGNED_BYTE, MAX_BYTE = 127, 255


class SignSource(Enum):
    """What says whether the bytes of mode 0 are signed."""

    IMOD_STAMP = "IMOD's stamp"
    STATISTICS = "minimum and maximum in the header"
    STANDARD = "MRC2014"


@dataclass(frozen=True)
class Header:
    """The checked fields of an MRC header that are needed to read the data."""

    stored_shape: tuple[int, int, int]  # sections, rows, columns
    dtype: np.dtype[Any]
    offset: int
    zyx_axes: tuple[int, int, int]  # stored axes of z, y, x
    voxel_sizes: tuple[float, ...]  # x, y, z in Angstrom, NaN if undefined
    mode: int
    sign_from: SignSource  # what says whether the bytes of mode 0 are signed

    @property
    def data_bytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.stored_shape) * int(self.dtype.itemsize)


def parse_header(raw: bytes, file_bytes: int | None, path: StrPath) -> Header:
    """Parse and check a header, also against the size of the file if `file_bytes` is not None.

    Both byte orders are tried, that of the machine stamp first, because some files have a wrong stamp.
    """
    name = display_path(path)
    if raw.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ReadError(f"{name}: this is a web page, not a tomogram; download the file itself.")
    if len(raw) < HEADER_BYTES:
        size = "empty" if not raw else f"only {len(raw)} bytes long"
        raise ReadError(f"{name}: the file is {size}, shorter than an MRC header; check the file.")
    fields = np.frombuffer(raw, HEADER_DTYPE)[0]
    try:
        swapped = byte_order_from_machine_stamp(fields["machst"]) == ">"
    except ValueError:
        swapped = False
    errors = []
    for byte_order in "><" if swapped else "<>":
        try:
            return _parse_fields(raw, byte_order, file_bytes, name)
        except ReadError as error:
            errors.append(error)
    if bytes(fields["map"])[:3] != b"MAP":
        raise ReadError(f"{name}: not an MRC file (no MAP stamp); give an MRC file or OME-Zarr folder.")
    raise errors[0]


def _parse_fields(raw: bytes, byte_order: str, file_bytes: int | None, name: str) -> Header:
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(byte_order))[0]
    columns, rows, sections = (int(header[key]) for key in ("nx", "ny", "nz"))
    if min(columns, rows, sections) < 1:
        raise ReadError(f"{name}: the size is {columns} x {rows} x {sections} voxels; the file is damaged.")
    mode = int(header["mode"])
    if mode not in READABLE_MODES:
        meaning = UNSUPPORTED_MODES.get(mode, "unknown")
        raise ReadError(f"{name}: the data have mode {mode} ({meaning}); convert them to mode 2 (float32).")
    axes = tuple(int(header[key]) for key in ("maps", "mapr", "mapc"))
    if axes == (0, 0, 0):  # written by programs older than these fields
        axes = (3, 2, 1)
    if sorted(axes) != [1, 2, 3]:
        raise ReadError(f"{name}: the axis order is {axes[::-1]}, not a permutation of 1, 2, 3; repair it.")
    space_group, volume_sections = int(header["ispg"]), int(header["mz"])
    if space_group in VOLUME_STACK_SPACE_GROUPS and volume_sections != sections:
        layout = f"space group {space_group}, {sections} sections, volumes of {volume_sections}"
        raise ReadError(f"{name}: this is a stack of volumes ({layout}); give one volume per file.")
    extended = int(header["nsymbt"])
    if extended < 0:
        raise ReadError(f"{name}: the extended header has {extended} bytes; the file is damaged.")
    imod_words = np.frombuffer(bytes(header["extra2"]), f"{byte_order}i4", 2, IMOD_STAMP_OFFSET)
    imod_stamp, imod_flags = imod_words.tolist()
    dtype: np.dtype[Any] = np.dtype(dtype_from_mode(mode)).newbyteorder(byte_order)
    sign_from = SignSource.STANDARD
    if mode == 0 and imod_stamp == IMOD_STAMP:
        sign_from = SignSource.IMOD_STAMP
        if imod_flags & IMOD_PACKED_NIBBLES:
            raise ReadError(f"{name}: the data are packed 4-bit integers; convert them with IMOD's newstack.")
        dtype = np.dtype(np.int8 if imod_flags & IMOD_SIGNED_BYTES else np.uint8)
    elif mode == 0 and float(header["dmin"]) < float(header["dmax"]):
        # Signed, as MRC2014 defines, unless no signed byte could be the maximum in the header: FEI, EMAN and
        # IMOD before 4.2.23 write unsigned bytes without a stamp.
        sign_from = SignSource.STATISTICS
        if float(header["dmin"]) >= 0 and MAX_SIGNED_BYTE < float(header["dmax"]) <= MAX_BYTE:
            dtype = np.dtype(np.uint8)
    lengths = [(float(header["cella"][axis]), int(header["m" + axis])) for axis in "xyz"]
    parsed = Header(
        stored_shape=(sections, rows, columns),
        dtype=dtype,
        offset=HEADER_BYTES + extended,
        zyx_axes=(axes.index(3), axes.index(2), axes.index(1)),
        voxel_sizes=tuple(length / n if n > 0 else math.nan for length, n in lengths),
        mode=mode,
        sign_from=sign_from,
    )
    declared = parsed.offset + parsed.data_bytes
    if file_bytes is not None and declared > file_bytes:
        raise ReadError(
            f"{name}: truncated: the header declares {columns} x {rows} x {sections} voxels of mode {mode}, "
            f"and {declared - file_bytes} are missing of its {declared} bytes; copy the file again."
        )
    return parsed


def new_header(
    shape: tuple[int, ...], mode: int, voxel_size: float, statistics: tuple[float, float, float, float]
) -> bytes:
    """Return a little-endian MRC2014 header; `statistics` are minimum, maximum, mean, standard deviation."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    header["nz"], header["ny"], header["nx"] = header["mz"], header["my"], header["mx"] = shape
    header["mode"] = mode
    header["cella"] = tuple(np.float32(n * voxel_size) for n in shape[::-1])
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
