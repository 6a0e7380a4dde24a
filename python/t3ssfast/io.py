"""Tomograms from and to the disk: MRC (plain, .gz, .bz2) and OME-Zarr; atomic writing.

A header is checked against the size of its file before anything is mapped or allocated, so that a damaged
or hostile file costs one sentence instead of the machine's memory. A plain MRC file is memory-mapped and
never copied whole.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import importlib
import itertools
import math
import mmap
import os
import secrets
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode

from t3ssfast.errors import InputError, OutputError, ReadError, T3Error, VoxelSizeError
from t3ssfast.types import Tomogram, check_voxel_size

__all__ = [
    "Layout",
    "atomic_path",
    "file_sha256",
    "layout",
    "read",
    "release_pages",
    "remove_temporaries",
    "results_folder",
    "shown",
    "tomogram_name",
    "write",
]

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
# A larger difference between the axes would bend distances and angles visibly.
MAX_ANISOTROPY = 0.01
# MRC files of programs that know no voxel size carry 1 A; no tomogram is reconstructed at 1 A.
PLACEHOLDER_VOXEL_SIZE_ANGSTROM = 1.0
CHUNK_BYTES = 4 << 20
# How the names of temporary files begin; ".tmp" follows, and the suffix of the file they shall become.
TEMPORARY = ".t3ssfast-"
SUFFIXES = {".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".zarr", ".ome"}
COMPRESSED_SUFFIXES = {".gz", ".bz2"}


def shown(path: object) -> str:
    """A path as it appears in a message: on one line, whatever characters its name holds."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
    return text if text.isprintable() else repr(text)


def tomogram_name(path: str | os.PathLike[str]) -> str:
    """The name of a tomogram after its file: no folder and no format suffix ("TS_01.rec.gz" -> "TS_01")."""
    name = Path(path).name
    while Path(name).suffix.lower() in SUFFIXES | COMPRESSED_SUFFIXES and Path(name).stem:
        name = Path(name).stem
    # Of bytes that are not UTF-8, as Linux allows, Python makes lone surrogates, which no table can hold.
    name = "".join("_" if "\ud800" <= c <= "\udfff" else c for c in name)
    # "...mrc" would be "..", the folder above.
    return name if name.strip(".") else "tomogram"


# --------------------------------------------------------------------------------------------------- writing


def results_folder(folder: str | os.PathLike[str], mark: str | None = None) -> Path:
    """Make a folder for results, and take away the file whose presence there says that the rest is whole.

    Parameters
    ----------
    folder
        Made with its parents where missing.
    mark
        Name of that file, which is to be written last.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if mark is not None:
            (out / mark).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{shown(out)} cannot be used as a folder for results ({error.strerror}); choose another."
        ) from error
    return out


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of `path`; what is written there becomes `path` at once, or never.

    On leaving the block the file is flushed to the disk and renamed; after any exception it is removed and
    a file that was at `path` before is untouched.

    Raises
    ------
    OutputError
        If the folder is missing or cannot be written to, or the disk is full.
    """
    target = Path(path)
    if not target.name or target.is_dir():
        raise OutputError(f"{shown(path)} is a folder, not a file to write to; give a file name.")
    if not target.parent.is_dir():
        raise OutputError(f"{shown(path)} cannot be written: there is no folder {shown(target.parent)}.")
    # The suffix stays last, because some libraries choose what they write by it.
    temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp{target.suffix}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            f"{shown(path)} could not be written: {error.strerror or error}; free some space or give "
            "another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Makes the renaming durable where the platform can; a folder cannot be opened on Windows.
    with suppress(OSError):
        _sync(target.parent, os.O_RDONLY)


def remove_temporaries(folder: Path) -> None:
    """Remove what processes that were killed while writing left in a folder that no other process writes
    into."""
    for path in folder.glob(f"{TEMPORARY}*.tmp*"):
        with suppress(OSError):
            path.unlink()


def _sync(path: Path, access: int) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            f"{shown(path)}: an array of shape {volume.shape} was given to write; give a (z, y, x) volume."
        )
    voxel_size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
    suffix = Path(path).suffix.lower()
    if suffix in COMPRESSED_SUFFIXES or suffix == ".zarr":
        raise OutputError(f"{shown(path)}: volumes are written as plain MRC; give a name that ends in .mrc.")
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
        file.write(_new_header(volume.shape, mode, voxel_size, (low, high, mean, rms)))


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


def _new_header(
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


# --------------------------------------------------------------------------------------------------- reading


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
        return _read_zarr(Path(path), given)
    try:
        with open(path, "rb") as file:
            unpacking = _unpacking(file.read(4))
            if unpacking is not None:
                with unpacking(path, "rb") as unpacked:
                    header, data = _unpack(path, unpacked)
            else:
                file.seek(0)
                header = _parse_header(file.read(HEADER_BYTES), information.st_size, path)
                data = np.memmap(file, header.dtype, "r", header.offset, header.stored_shape)
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, T3Error):
            raise
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(f"{shown(path)} cannot be mapped into memory") from error
        raise ReadError(_cannot_open(path, error)) from error
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


def _unpacking(magic: bytes) -> Callable[..., Any] | None:
    """What opens a compressed file, told by its first bytes; None for a plain one."""
    if magic[:2] == b"\x1f\x8b":
        return gzip.open
    return bz2.open if magic[:3] == b"BZh" else None


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
            unpacking = _unpacking(file.read(4))
            file.seek(0)
            if unpacking is None:
                raw = file.read(HEADER_BYTES)
            else:
                with unpacking(path, "rb") as unpacked:
                    raw = unpacked.read(HEADER_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ReadError(_cannot_open(path, error)) from error
    header = _parse_header(raw, None, path)
    stored = "".join("zyx"[header.order.index(k)] for k in (2, 1, 0))
    format = "MRC" if unpacking is None else "MRC, compressed"
    return Layout(format, header.mode, header.dtype.name, stored, header.imod_stamp)


def _look_at(path: str | os.PathLike[str]) -> os.stat_result:
    """What a path leads to: a file or a folder, and not a pipe, which would be waited for, or a device."""
    try:
        information = os.stat(path)
    except (OSError, ValueError, TypeError) as error:
        raise ReadError(_cannot_open(path, error)) from error
    if not stat.S_ISDIR(information.st_mode) and not stat.S_ISREG(information.st_mode):
        raise ReadError(f"{shown(path)} is not a regular file; give an MRC file or an OME-Zarr folder.")
    return information


def _cannot_open(path: Any, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            return (
                f"{shown(path)} is a link to {shown(os.readlink(path))}, which is not there; check the link."
            )
        return f"There is no file {shown(path)}; check the name."
    if getattr(error, "errno", None) == errno.ELOOP:
        return f"{shown(path)} is a link that leads back to itself; give the file that it was meant for."
    reason = getattr(error, "strerror", None) or error
    return f"{shown(path)} cannot be read: {reason}; check the file and its permissions."


@dataclass(frozen=True)
class _Header:
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
        return isotropic_voxel_size(self.voxel_sizes, source=shown(path))


def isotropic_voxel_size(sizes: tuple[float, ...], *, source: str) -> float:
    """One voxel size from those of the three axes.

    Raises
    ------
    VoxelSizeError
        If one is unusable, is the placeholder 1 A, or they differ by more than 1%.
    """
    values = [check_voxel_size(size, source=source) for size in sizes]
    if max(values) > min(values) * (1 + MAX_ANISOTROPY):
        listed = ", ".join(f"{value:.4g}" for value in values)
        raise VoxelSizeError(
            f"{source}: the voxel sizes along x, y, z differ ({listed} Angstrom); resample to cubic voxels, "
            "or give voxel_size_angstrom (--voxel-size) if the header is wrong."
        )
    size = round(sorted(values)[1], 5)  # float32 in the header: 13.6000004 is 13.6
    if abs(size - PLACEHOLDER_VOXEL_SIZE_ANGSTROM) < 1e-4:
        raise VoxelSizeError(
            f"{source}: the voxel size in the header is 1 Angstrom, which programs write when they do not "
            "know it; give it as voxel_size_angstrom (--voxel-size)."
        )
    return size


def _parse_header(raw: bytes, available: int | None, path: object) -> _Header:
    """Check a header, against the file's size where that is known, and say what its data look like.

    Both byte orders are tried, the machine stamp's first: some files carry a wrong stamp.
    """
    if raw.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ReadError(
            f"{shown(path)} is a web page, not a tomogram; read what it says, and download the file itself."
        )
    if len(raw) < HEADER_BYTES:
        size = "empty" if not raw else f"only {len(raw)} bytes long"
        raise ReadError(f"{shown(path)} is {size}, shorter than an MRC header (1024 bytes); check the file.")
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
            f"{shown(path)} is not an MRC file: it has no MAP stamp and its first bytes are not a header; "
            "give an MRC file (.mrc, .rec, .map, also .gz or .bz2) or an OME-Zarr folder."
        )
    raise failure


def _check_header(header: Any, byte_order: str, available: int | None, path: object) -> _Header:
    name = shown(path)
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
    parsed = _Header(
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


class _Stream(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def _memory_limit() -> int:
    """Most bytes that a compressed file may unpack to: half of the machine's memory."""
    try:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def _unpack(path: str | os.PathLike[str], stream: _Stream) -> tuple[_Header, npt.NDArray[Any]]:
    """Unpack a compressed MRC file, never beyond what its header promises.

    The buffer grows with what really arrives, so that a header that promises too much costs nothing.
    """
    try:
        header = _parse_header(stream.read(HEADER_BYTES), None, path)
        limit = _memory_limit()
        if header.offset + header.data_bytes > limit:
            raise ReadError(
                f"{shown(path)} would unpack to {(header.offset + header.data_bytes) / 2**30:.1f} GiB, more "
                f"than half of this machine's memory ({limit / 2**30:.1f} GiB); unpack it to a file first."
            )
        left = header.offset - HEADER_BYTES
        while left > 0 and (chunk := stream.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
        missing = header.data_bytes + left
        buffer = bytearray()
        while missing > 0 and (chunk := stream.read(min(missing, CHUNK_BYTES))):
            buffer += chunk
            missing -= len(chunk)
    except (EOFError, zlib.error, OSError) as error:
        raise ReadError(
            f"{shown(path)} cannot be unpacked: {error}; the file is damaged or incomplete, copy it again."
        ) from error
    except MemoryError as error:
        raise ReadError(f"{shown(path)} does not fit into memory; unpack it to a file first.") from error
    if missing > 0:
        promised = header.offset + header.data_bytes
        raise ReadError(
            f"{shown(path)} is truncated: its header promises {promised} bytes and unpacked it has "
            f"{promised - missing}, so {missing} are missing; copy it again."
        )
    data = np.frombuffer(buffer, header.dtype).reshape(header.stored_shape)
    data.flags.writeable = False
    return header, data


# -------------------------------------------------------------------------------------------------- OME-Zarr

ANGSTROM_PER_UNIT = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "millimeter": 1e7, "meter": 1e10}
ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def _read_zarr(path: Path, given: float | None) -> Tomogram:
    """The finest level of an OME-Zarr image (0.4 or 0.5), or a plain 3D Zarr array."""
    if not any((path / marker).exists() for marker in ZARR_MARKERS):
        raise ReadError(
            f"{shown(path)} is a folder without Zarr data; give an MRC file or an OME-Zarr folder."
        )
    try:
        zarr: Any = importlib.import_module("zarr")
    except ImportError as error:
        raise ReadError(
            f"{shown(path)} is OME-Zarr, which needs the package zarr; install it with "
            "`pip install 't3ssfast[zarr]'` or convert the file to MRC."
        ) from error
    try:
        node = zarr.open(str(path), mode="r")
        attributes = dict(node.attrs)
        sizes: tuple[float, ...] = (math.nan,) * 3
        if hasattr(node, "shape"):
            array = node
        else:
            multiscale = attributes.get("ome", attributes)["multiscales"][0]
            array = node[multiscale["datasets"][0]["path"]]
            sizes = _zarr_voxel_sizes(multiscale)
        if len(array.shape) < 3 or any(n != 1 for n in array.shape[:-3]) or 0 in array.shape:
            raise ReadError(
                f"{shown(path)}: the image has shape {tuple(array.shape)}; give one (z, y, x) volume."
            )
        if np.dtype(array.dtype).kind not in "iuf":
            raise ReadError(f"{shown(path)}: the image holds {array.dtype}; give real numbers.")
        needed = math.prod(array.shape) * np.dtype(array.dtype).itemsize
        if needed > _memory_limit():
            raise ReadError(
                f"{shown(path)} would unpack to {needed / 2**30:.1f} GiB, more than half of this machine's "
                "memory; convert it to MRC, which is read piece by piece."
            )
        data = np.asarray(array[...]).reshape(array.shape[-3:])
    except (ReadError, VoxelSizeError):
        raise
    except Exception as error:  # zarr raises its own and its codecs' errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            f"{shown(path)} cannot be read as OME-Zarr: {reason[:200]}; check the folder."
        ) from error
    data.flags.writeable = False
    size = given if given is not None else isotropic_voxel_size(sizes[::-1], source=shown(path))
    return Tomogram(data=data, voxel_size_angstrom=size, name=tomogram_name(path))


def _zarr_voxel_sizes(multiscale: dict[str, Any]) -> tuple[float, ...]:
    """Voxel sizes along z, y, x of the finest level, in Angstrom; NaN where scale or unit are missing."""
    scales = [1.0] * 3
    found = False
    transforms = itertools.chain(
        multiscale["datasets"][0].get("coordinateTransformations", ()),
        multiscale.get("coordinateTransformations", ()),
    )
    for transform in transforms:
        if transform.get("type") == "scale":
            found = True
            scales = [a * float(b) for a, b in zip(scales, transform["scale"][-3:], strict=True)]
    units = [axis.get("unit") for axis in multiscale.get("axes", ()) if axis.get("type", "space") == "space"]
    if not found or len(units) != 3:
        return (math.nan,) * 3
    return tuple(s * ANGSTROM_PER_UNIT.get(u, math.nan) for s, u in zip(scales, units, strict=True))


# --------------------------------------------------------------------------------------------------- checksum


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, or of an OME-Zarr folder (names and contents of its files, in order of name).

    Raises
    ------
    ReadError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    root = Path(path)
    try:
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        for file_path in files:
            if root.is_dir():
                digest.update(file_path.relative_to(root).as_posix().encode() + b"\0")
            with open(file_path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
    except OSError as error:
        raise ReadError(_cannot_open(path, error)) from error
    return digest.hexdigest()
