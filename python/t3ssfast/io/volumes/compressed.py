"""Decompression of MRC files into memory, limited to the size that the header declares."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path
from t3ssfast.io.volumes.header import HEADER_BYTES, Header, parse_header
from t3ssfast.tomogram import StrPath

__all__ = ["check_memory", "decompress", "file_opener", "memory_limit"]

CHUNK_BYTES = 4 << 20
# Data after the volume, such as padding, that are read for the checksum at the end of the file.
MAX_SURPLUS_BYTES = 64 << 20


def file_opener(path: StrPath) -> Callable[..., Any]:
    """Return `gzip.open`, `bz2.open` or `open`, depending on the first bytes of a file."""
    with open(path, "rb") as file:
        magic = file.read(3)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open
    return bz2.open if magic == b"BZh" else open


def memory_limit() -> int:
    """Return the maximum size of decompressed data in bytes: half of the machine's memory."""
    try:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def check_memory(name: str, size: int) -> None:
    """Raise ReadError if data of `size` bytes, to be read into memory, are too large."""
    if size > memory_limit():
        size_text = f"{size / 2**30:.1f} GiB, more than half of the memory"
        raise ReadError(f"{name}: the image has {size_text}; convert it to MRC, which is memory-mapped.")


def _read_chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the next `size` bytes, or fewer at the end of the file."""
    while size > 0 and (chunk := stream.read(min(size, CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk


def _check_end(stream: BinaryIO, name: str) -> None:
    """Read to the end of a stream, where its checksum is compared; refuse it if much data are left."""
    surplus = sum(map(len, _read_chunks(stream, MAX_SURPLUS_BYTES)))
    if surplus == MAX_SURPLUS_BYTES:
        raise ReadError(f"{name}: the file unpacks to more data than its header declares; check the file.")


def decompress(path: StrPath, stream: BinaryIO) -> tuple[Header, npt.NDArray[Any]]:
    """Read the header and data of a compressed MRC file."""
    name = display_path(path)
    try:
        header = parse_header(stream.read(HEADER_BYTES), None, path)
        declared = header.offset + header.data_bytes
        if declared > memory_limit():
            size = f"{declared / 2**30:.1f} GiB, more than half of the memory"
            raise ReadError(f"{name}: the file would unpack to {size}; decompress it to disk first.")
        extended_bytes = sum(map(len, _read_chunks(stream, header.offset - HEADER_BYTES)))
        # The buffer grows with the data that arrive: a header that declares too much costs no memory.
        buffer = bytearray()
        for chunk in _read_chunks(stream, header.data_bytes):
            buffer += chunk
        _check_end(stream, name)
    except (EOFError, zlib.error, OSError) as error:
        raise ReadError(f"{name}: the file is damaged or incomplete ({error}); copy it again.") from error
    except MemoryError as error:
        raise ReadError(f"{name}: memory is too small for the data; decompress the file first.") from error
    missing = declared - HEADER_BYTES - extended_bytes - len(buffer)
    if missing > 0:
        raise ReadError(
            f"{name}: truncated: {missing} are missing of the {declared} bytes that the header declares; "
            "copy the file again."
        )
    data = np.frombuffer(buffer, header.dtype).reshape(header.stored_shape)
    data.flags.writeable = False
    return header, data
