"""Names, checks and checksums of input files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from t3ssfast.errors import ReadError
from t3ssfast.tomogram import StrPath

__all__ = ["COMPRESSED_SUFFIXES", "display_path", "file_sha256", "read_error", "stat_path", "tomogram_name"]

VOLUME_SUFFIXES = {".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".zarr", ".ome", ".tif", ".tiff"}
VOLUME_SUFFIXES |= {".em", ".hdf", ".hdf5", ".h5", ".zip", ".ozx"}
COMPRESSED_SUFFIXES = {".gz", ".bz2"}
CHUNK_BYTES = 4 << 20


def display_path(path: object) -> str:
    """Return a path as printable text on one line, for error messages."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
    return text if text.isprintable() else repr(text)


def tomogram_name(path: StrPath) -> str:
    """Return the file name of a tomogram without folder and format suffixes ("a/TS_01.rec.gz": "TS_01")."""
    name = Path(path).name
    while Path(name).suffix.lower() in VOLUME_SUFFIXES | COMPRESSED_SUFFIXES and Path(name).stem:
        name = Path(name).stem
    # Python decodes file names that are not UTF-8 with lone surrogates, which no text file can hold.
    name = "".join("_" if "\ud800" <= c <= "\udfff" else c for c in name)
    # The name becomes a folder of results; "..", from "...mrc", would be the parent folder.
    return name if name.strip(".") else "tomogram"


def stat_path(path: StrPath) -> os.stat_result:
    """Return the status of a file or folder; raise ReadError for others, such as pipes, which could block."""
    try:
        status = os.stat(path)
    except (OSError, ValueError, TypeError) as error:
        raise read_error(path, error) from error
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise ReadError(f"{display_path(path)}: not a regular file; give a file or folder.")
    return status


def read_error(path: StrPath, error: Exception) -> ReadError:
    """Return the `ReadError` for an error raised when opening or reading a file."""
    name = display_path(path)
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            target = display_path(os.readlink(path))
            return ReadError(f"{name}: the file is a link to {target}, which does not exist; check the link.")
        return ReadError(f"{name}: no file of this name exists; check the path.")
    if getattr(error, "errno", None) == errno.ELOOP:
        return ReadError(f"{name}: the file is a link that leads back to itself; give the original file.")
    reason = getattr(error, "strerror", None) or error
    return ReadError(f"{name}: reading failed: {reason}; check the file and its permissions.")


def file_sha256(path: StrPath, before_chunk: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file, or of the sorted names and contents of all files in a folder.

    `before_chunk` is called every few MiB, and may raise an exception to end it.
    """
    digest = hashlib.sha256()
    root = Path(path)
    try:
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        for file_path in files:
            if file_path != root:
                digest.update(file_path.relative_to(root).as_posix().encode() + b"\0")
            with open(file_path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    before_chunk()
                    digest.update(chunk)
    except OSError as error:
        raise read_error(path, error) from error
    return digest.hexdigest()
