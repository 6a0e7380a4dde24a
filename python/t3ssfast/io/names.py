"""What a path is called: in a message, and as the name of a tomogram."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

__all__ = ["COMPRESSED_SUFFIXES", "cannot_open", "display_path", "tomogram_name"]

SUFFIXES = {".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".zarr", ".ome"}
COMPRESSED_SUFFIXES = {".gz", ".bz2"}


def display_path(path: object) -> str:
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


def cannot_open(path: Any, error: Exception) -> str:
    """Why a file was not read."""
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            target = display_path(os.readlink(path))
            return f"{display_path(path)} is a link to {target}, which does not exist; check the link."
        return f"There is no file {display_path(path)}; check the name."
    if getattr(error, "errno", None) == errno.ELOOP:
        return (
            f"{display_path(path)} is a link that leads back to itself; give the file that it was meant for."
        )
    reason = getattr(error, "strerror", None) or error
    return f"{display_path(path)} cannot be read: {reason}; check the file and its permissions."
