"""Checksums of unchanged files, kept beside results: a finished tomogram is not read again to recognise it.

A file is taken for unchanged if size, modification time, status change time and inode are the same, of a
folder those of every file in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from t3ssfast.errors import OutputError
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.files import file_sha256
from t3ssfast.tomogram import StrPath

__all__ = ["CHECKSUM_FILE", "ChecksumCache"]

CHECKSUM_FILE = ".t3ssfast-checksums.json"
# A file that was changed this shortly before it was read may be changed again at the same time by the clock
# of its file system, so its checksum is not kept. (The FAT file systems count in steps of two seconds.)
SETTLED_SECONDS = 2.5


class ChecksumCache:
    """The checksums that are kept in a folder of results.

    Parameters
    ----------
    folder
        Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / CHECKSUM_FILE
        self._known = self._read()
        self._used: dict[str, list[str]] = {}

    def sha256(self, path: StrPath, before_chunk: Callable[[], None] = lambda: None) -> str:
        """Return `file_sha256` of a file or folder, from the cache if it is unchanged."""
        name, state = os.path.abspath(path), _state(path)
        found = self._known.get(name)
        if state is not None and found is not None and found[0] == state[0]:
            checksum = found[1]
        else:
            checksum = file_sha256(path, before_chunk)
        if state is not None and state == _state(path) and state[1] < time.time() - SETTLED_SECONDS:
            self._used[name] = [state[0], checksum]
        return checksum

    def save(self) -> None:
        """Keep the checksums that were used; a folder that cannot be written to keeps none."""
        if self._file is None or self._used in ({}, self._known):
            return
        with suppress(OutputError), atomic_path(self._file) as temporary:
            temporary.write_text(json.dumps(self._used), encoding="utf-8")

    def _read(self) -> dict[str, list[str]]:
        if self._file is None:
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(name): [str(state), str(checksum)] for name, (state, checksum) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def _state(path: StrPath) -> tuple[str, float] | None:
    """Return what identifies the state of a file or folder, and its last change; None if it has none."""
    try:
        root = os.stat(path)
        if not stat.S_ISDIR(root.st_mode):
            return f"{root.st_size} {root.st_mtime_ns} {root.st_ctime_ns} {root.st_ino}", _changed(root)
        digest, last = hashlib.sha256(), _changed(root)
        for file in sorted(one for one in Path(path).rglob("*") if one.is_file()):
            status = file.stat()
            name = file.relative_to(path).as_posix()
            entry = (name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            digest.update(repr(entry).encode("utf-8", "surrogateescape"))
            last = max(last, _changed(status))
        return digest.hexdigest(), last
    except (OSError, ValueError):
        return None


def _changed(status: os.stat_result) -> float:
    return max(status.st_mtime, status.st_ctime)
