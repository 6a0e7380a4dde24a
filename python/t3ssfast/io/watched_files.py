"""Files that must stay as they are while they are read.

A memory-mapped file that another program truncates ends the process at the next access, and one that is
written to gives results of no version of it. Both are recognised by size, inode and modification time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path

__all__ = ["WatchedFiles"]


class WatchedFiles:
    """The state of files and folders when this object was made, to compare with the present one."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]] = ()) -> None:
        self._files: dict[Path, os.stat_result] = {}
        # A folder is read into memory as a whole; it is compared at the end only.
        self._folders: dict[Path, list[tuple[str, int, int]]] = {}
        for path in map(Path, paths):
            try:
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode):
                    self._folders[path] = _content(path)
                else:
                    self._files[path] = status
            except (OSError, ValueError):
                # The reader reports it.
                continue

    def check(self) -> None:
        """Raise ReadError if a file is not as it was; for folders see `check_all`."""
        for path, before in self._files.items():
            try:
                now = os.stat(path)
            except OSError as error:
                raise _changed(path, f"it cannot be reached any more ({error.strerror or error})") from error
            if now.st_size != before.st_size:
                raise _changed(path, f"its size went from {before.st_size:,} to {now.st_size:,} bytes")
            if now.st_ino != before.st_ino:
                raise _changed(path, "another file took its place")
            if now.st_mtime_ns != before.st_mtime_ns:
                raise _changed(path, "it was written to")

    def check_all(self, same_content: Callable[[Path], bool] = lambda path: True) -> None:
        """Check files and folders.

        `same_content` is asked about files whose status changed although size and modification time did not,
        as a program that restores the time leaves them.
        """
        self.check()
        for path, before in self._files.items():
            if os.stat(path).st_ctime_ns != before.st_ctime_ns and not same_content(path):
                raise _changed(path, "its content is another")
        for path, content in self._folders.items():
            if _content(path) != content:
                raise _changed(path, "files in it were added, removed or written to")


def _content(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of every file in a folder."""
    content = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            content.append((path, status.st_size, status.st_mtime_ns))
    return sorted(content)


def _changed(path: Path, how: str) -> ReadError:
    return ReadError(
        f"{display_path(path)}: changed while it was read: {how}; run again when the file is complete."
    )
