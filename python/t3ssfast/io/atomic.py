"""Atomic writing: a file of results is complete or absent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from t3ssfast.errors import OutputError
from t3ssfast.io.files import display_path
from t3ssfast.tomogram import StrPath

__all__ = ["TEMPORARY_PREFIX", "atomic_path", "remove_temporaries", "results_folder"]

TEMPORARY_PREFIX = ".t3ssfast-"


def results_folder(folder: StrPath, *outdated: str) -> Path:
    """Create a folder for results, with its parents, unless it exists; raise OutputError if that fails.

    `outdated` are files of earlier results that are removed if they are there, in this order: first the one
    that marks results as complete.
    """
    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in outdated:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        reason = f"not usable as a folder ({error.strerror})"
        raise OutputError(f"{display_path(out)}: {reason}; choose another.") from error
    return out


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Provide a temporary path that replaces `path` when the block ends without an exception.

    It is in the same folder, and flushed to disk before it is renamed. After an exception an existing file is
    unchanged. OutputError is raised if the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    if not target.name or target.is_dir():
        raise OutputError(f"{display_path(path)}: this is a folder; give a file name.")
    if not target.parent.is_dir():
        raise OutputError(f"{display_path(path)}: the folder does not exist; create it first.")
    # The suffix is kept, because some libraries derive the format from it.
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp{target.suffix}")
    try:
        yield temporary
        _fsync(temporary, os.O_RDWR)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        message = f"{display_path(path)}: {reason}; free disk space or choose another folder."
        raise OutputError(message) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Makes the renaming durable; Windows cannot open a folder.
    with suppress(OSError):
        _fsync(target.parent, os.O_RDONLY)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder that no running process writes into."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*.tmp*"):
        with suppress(OSError):
            path.unlink()


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
