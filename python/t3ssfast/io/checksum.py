"""What identifies the contents of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from t3ssfast.errors import ReadError
from t3ssfast.io.names import cannot_open
from t3ssfast.io.volumes.unpacking import CHUNK_BYTES

__all__ = ["file_sha256"]


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
        raise ReadError(cannot_open(path, error)) from error
    return digest.hexdigest()
