"""A lock on a folder, held by one process at a time, on any file system that several machines share.

The lock is a file that is created only where there is none (O_EXCL). Network file systems do this atomically,
while `flock` lets two holders in on some. The file names the holder, and its modification time is the
holder's heartbeat. A holder that has ended is recognised at once on its own machine, and by its silence on
others. Results are written atomically in any case, so two holders can at worst do the same work twice.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from t3ssfast.errors import BusyError, OutputError
from t3ssfast.io import display_path
from t3ssfast.io.atomic import TEMPORARY_PREFIX
from t3ssfast.runtime.process_identity import is_running, this_process

__all__ = ["LOCK_NAME", "FolderLock", "holder_of"]

LOCK_NAME = ".t3ssfast-lease"
HEARTBEAT_SECONDS = 5.0
# Age of the heartbeat from which another machine may take over: longer than a file system or a swapping
# holder may stall.
STALE_SECONDS = 90.0
# `check` looks at the file no more often than this.
CHECK_SECONDS = 1.0


class FolderLock:
    """Context manager that holds the lock of an existing folder.

    Entering it does not wait: it raises `BusyError`, which names the holder, if another process holds the
    lock, and `OutputError` if the folder is not writable.
    """

    # `filelock.SoftFileLease` is no replacement: it takes over from a dead machine only after one process has
    # watched the file for the whole lease, which a run that is refused at once never does.

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK_NAME
        self._holder = this_process() | {"token": secrets.token_hex(8)}
        self._checked = 0.0
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="t3ssfast-lock", daemon=True)

    def __enter__(self) -> FolderLock:
        try:
            if not self._create(self._path):
                self._take_over()
        except OSError as error:
            raise OutputError(
                f"{display_path(self._folder)} cannot be written to ({error.strerror or error}); give "
                "another folder."
            ) from error
        self._heartbeat.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._heartbeat.join()
        with suppress(OSError):
            if self._is_holder():
                self._path.unlink()

    def check(self) -> None:
        """Raise `BusyError` if another process has taken over the lock in the meantime."""
        now = time.time()
        if abs(now - self._checked) < CHECK_SECONDS:
            return
        with suppress(PermissionError, TimeoutError):
            if not self._is_holder():
                raise BusyError(
                    f"This run stood still for so long that another one took over "
                    f"{display_path(self._folder)}; let that one finish."
                )
        self._checked = now

    def _create(self, path: Path) -> bool:
        """Create a file that names this holder; return whether there was none."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, json.dumps(self._holder).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def _take_over(self) -> None:
        """Replace the lock of a holder that has ended; raise BusyError where it has not."""
        if _is_alive(self._path):
            raise self._busy(self._path)
        # One process at a time replaces it: another could mistake the new lock for the old one.
        guard = self._path.with_name(f"{LOCK_NAME}-takeover")
        if not self._create(guard):
            self._remove_ended(guard)
            if not self._create(guard):
                raise self._busy(guard)
        try:
            if _is_alive(self._path):
                raise self._busy(self._path)
            self._path.unlink(missing_ok=True)
            if not self._create(self._path):
                raise self._busy(self._path)
        finally:
            guard.unlink(missing_ok=True)

    def _remove_ended(self, path: Path) -> None:
        """Remove the file of a process that has ended, or raise BusyError; never a file that replaced it."""
        ended = _read(path)[0]
        if _is_alive(path):
            raise self._busy(path)
        # The name of a temporary file, which is removed by whoever holds the folder next.
        aside = path.with_name(f"{TEMPORARY_PREFIX}{self._holder['token']}.tmp")
        with suppress(FileNotFoundError):
            path.replace(aside)
            if _read(aside)[0] != ended:
                aside.replace(path)
                raise self._busy(path)
            aside.unlink()

    def _is_holder(self) -> bool:
        return bool(_read(self._path)[0].get("token") == self._holder["token"])

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            # If the file system is unreachable for a while, no other process can take the file either.
            with suppress(OSError):
                if not self._is_holder():
                    return
                os.utime(self._path)

    def _busy(self, path: Path) -> BusyError:
        name = _name(_read(path)[0])
        return BusyError(
            f"{name} is writing into {display_path(self._folder)}; wait for it, or give another folder."
        )


def holder_of(folder: Path) -> str:
    """Return who holds the lock of a folder, such as "Process 12 on node7"; empty if nobody does."""
    path = folder / LOCK_NAME
    with suppress(OSError):
        return _name(_read(path)[0]) if path.exists() and _is_alive(path) else ""
    return ""


def _name(holder: dict[str, Any]) -> str:
    known = {"pid", "host"} <= set(holder)
    return f"Process {holder['pid']} on {holder['host']}" if known else "Another run"


def _is_alive(path: Path) -> bool:
    """Whether the process that a file names still runs, or if that cannot be told, beats."""
    holder, beat = _read(path)
    if beat is None:
        return False
    running = is_running(holder)
    return _file_system_time(path) - beat < STALE_SECONDS if running is None else running


def _read(path: Path) -> tuple[dict[str, Any], float | None]:
    """Return holder (empty if damaged or just being written) and heartbeat (None without a file)."""
    try:
        # Opening it makes a network file system ask its server for the present state.
        with open(path, "rb") as file:
            content, beat = file.read(4096), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return {}, None
    with suppress(ValueError):
        holder = json.loads(content)
        if isinstance(holder, dict):
            return holder, beat
    return {}, beat


def _file_system_time(path: Path) -> float:
    """Return the time by the clock of the file system, which also dates the heartbeats."""
    probe = path.with_name(f".t3ssfast-{secrets.token_hex(8)}.probe")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
