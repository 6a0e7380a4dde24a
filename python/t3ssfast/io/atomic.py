"""Files and folders of results: whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from t3ssfast.errors import OutputError
from t3ssfast.io.names import display_path

__all__ = ["atomic_path", "remove_temporaries", "results_folder"]

# How the names of temporary files begin; ".tmp" follows, and the suffix of the file they shall become.
TEMPORARY = ".t3ssfast-"


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
            f"{display_path(out)} cannot be used as a folder for results ({error.strerror}); choose another."
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
        raise OutputError(f"{display_path(path)} is a folder, not a file to write to; give a file name.")
    if not target.parent.is_dir():
        raise OutputError(
            f"{display_path(path)} cannot be written: there is no folder {display_path(target.parent)}."
        )
    # The suffix stays last, because some libraries choose what they write by it.
    temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp{target.suffix}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            f"{display_path(path)} could not be written: {error.strerror or error}; free some space or give "
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
