"""Compressed MRC files, unpacked into memory and never beyond what it holds."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.names import display_path
from t3ssfast.io.volumes.header import HEADER_BYTES, Header, parse_header

__all__ = ["CHUNK_BYTES", "memory_limit", "opener_of", "unpack"]

CHUNK_BYTES = 4 << 20


def opener_of(magic: bytes) -> Callable[..., Any] | None:
    """What opens a compressed file, told by its first bytes; None for a plain one."""
    if magic[:2] == b"\x1f\x8b":
        return gzip.open
    return bz2.open if magic[:3] == b"BZh" else None


class _Stream(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def memory_limit() -> int:
    """Most bytes that a compressed file may unpack to: half of the machine's memory."""
    try:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def unpack(path: str | os.PathLike[str], stream: _Stream) -> tuple[Header, npt.NDArray[Any]]:
    """Unpack a compressed MRC file, never beyond what its header promises.

    The buffer grows with what really arrives, so that a header that promises too much costs nothing.
    """
    try:
        header = parse_header(stream.read(HEADER_BYTES), None, path)
        limit = memory_limit()
        if header.offset + header.data_bytes > limit:
            raise ReadError(
                f"{display_path(path)} would unpack to "
                f"{(header.offset + header.data_bytes) / 2**30:.1f} GiB, more "
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
            f"{display_path(path)} cannot be unpacked: {error}; the file is damaged or "
            "incomplete, copy it again."
        ) from error
    except MemoryError as error:
        raise ReadError(
            f"{display_path(path)} does not fit into memory; unpack it to a file first."
        ) from error
    if missing > 0:
        promised = header.offset + header.data_bytes
        raise ReadError(
            f"{display_path(path)} is truncated: its header promises {promised} bytes and unpacked it has "
            f"{promised - missing}, so {missing} are missing; copy it again."
        )
    data = np.frombuffer(buffer, header.dtype).reshape(header.stored_shape)
    data.flags.writeable = False
    return header, data
