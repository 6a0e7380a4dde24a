"""A lock on a folder, held by one process at a time.

The lock is an `flock` on a file in the folder, which the system releases however the process ends. Some
network file systems do not pass locks between machines. There, the file's content (the holder) and its
modification time (the heartbeat) replace the lock. Results are written atomically in any case, so two
holders can at worst do the same work twice.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from t3ssfast.errors import BusyError, OutputError
from t3ssfast.io import display_path

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["LOCK_NAME", "FolderLock"]

LOCK_NAME = ".t3ssfast-lease"
HEARTBEAT_SECONDS = 5.0
# Age of the heartbeat from which another machine may take over: longer than a file system or a swapping
# holder may stall.
STALE_SECONDS = 90.0
# Without locks: time in which a process that arrived at the same moment may overwrite the file.
SETTLE_SECONDS = 1.0


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
        self._token = secrets.token_hex(8)
        self._descriptor = -1
        self._released = threading.Event()
        self._lost = False
        self._heartbeat = threading.Thread(target=self._beat, name="t3ssfast-lock", daemon=True)

    def __enter__(self) -> FolderLock:
        acquired = False
        try:
            while not acquired:
                acquired = self._try_acquire()
        except OSError as error:
            raise OutputError(
                f"{display_path(self._folder)} cannot be written to ({error.strerror or error}); give "
                "another folder."
            ) from error
        finally:
            if not acquired:
                self._close()
        self._heartbeat.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._heartbeat.join()
        # Removed while locked, so that a process that opened it before sees that it is no longer in the
        # folder.
        with suppress(OSError):
            if self._is_holder():
                self._path.unlink()
        self._close()

    def check(self) -> None:
        """Raise `BusyError` if another machine has taken over the lock in the meantime."""
        if self._lost:
            raise BusyError(
                f"This run stood still for so long that another one took over {display_path(self._folder)}; "
                "let that one finish."
            )

    def _try_acquire(self) -> bool:
        """Lock the file and write the holder into it; return False if this must be repeated."""
        self._close()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = self._flock()
        holder = self._read_holder()
        if locked is False:
            raise self._busy(holder)
        if not self._is_in_folder():
            return False
        # The lock is proof for processes on this machine only.
        foreign = locked is None or holder.get("host") != socket.gethostname()
        if holder and foreign and self._heartbeat_age() < STALE_SECONDS:
            raise self._busy(holder)
        record = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(record).encode(), 0)
        os.fsync(self._descriptor)
        if locked is None:
            self._released.wait(SETTLE_SECONDS)
            return self._is_holder()
        return True

    def _flock(self) -> bool | None:
        """Lock the file; return whether this succeeded, None if the file system has no locks."""
        if fcntl is None:
            return None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _read_holder(self) -> dict[str, Any]:
        """Return the file's content; empty if it is empty or damaged."""
        with suppress(OSError, ValueError):
            holder = json.loads(os.pread(self._descriptor, 4096, 0))
            if isinstance(holder, dict):
                return holder
        return {}

    def _is_in_folder(self) -> bool:
        """Return whether the open file is still the one in the folder."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _is_holder(self) -> bool:
        return self._is_in_folder() and self._read_holder().get("token") == self._token

    def _heartbeat_age(self) -> float:
        """Return the seconds since the holder's last heartbeat, by the clock of the file system."""
        probe = self._path.with_name(f".t3ssfast-{self._token}.probe")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - os.fstat(self._descriptor).st_mtime

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            # If the file system is unreachable for a while, no other process can take the file either.
            with suppress(OSError):
                if not self._is_holder():
                    self._lost = True
                    return
                os.utime(self._descriptor)

    def _busy(self, holder: dict[str, Any]) -> BusyError:
        known = {"pid", "host"} <= set(holder)
        name = f"Process {holder['pid']} on {holder['host']}" if known else "Another run"
        return BusyError(
            f"{name} is writing into {display_path(self._folder)}; wait for it, or give another folder."
        )

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
