"""The right to write into a folder, which one process has at a time and which ends with it.

A file in the folder is locked (`flock`): the system lets go of it however the process ends, so that what a
killed one leaves behind is taken over at once and by one process only. Where a network file system does not
carry locks from one machine to another, what the file says stands in for them: who holds it, and, by its time
of change, that the holder is alive. Files are written atomically in any case, so that the worst that two
holders can do is the same work twice.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from t3ssfast.errors import BusyError, OutputError
from t3ssfast.io import display_path

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["FolderLock"]

LEASE_NAME = ".t3ssfast-lease"
# How often a holder says that it is alive, and after what silence another machine may take its place: long
# enough for a file system that is slow, or a holder that swaps.
BEAT_SECONDS = 5.0
STALE_SECONDS = 90.0
# Where there are no locks: how long a newcomer waits for another that came at the same moment to write over
# it.
SETTLE_SECONDS = 1.0


class FolderLock:
    """The right to write into a folder; a context manager.

    Parameters
    ----------
    folder
        Must be there.

    Raises
    ------
    BusyError
        On entering: another process has it; says which.
    OutputError
        On entering: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LEASE_NAME
        self._token = secrets.token_hex(8)
        self._descriptor = -1
        self._released = threading.Event()
        self._lost = False
        self._beating: threading.Thread | None = None

    def __enter__(self) -> FolderLock:
        try:
            while not self._take():
                pass
        except OSError as error:
            self._close()
            raise OutputError(
                f"{display_path(self._folder)} cannot be written to ({error.strerror or error}); give "
                "another folder."
            ) from error
        self._beating = threading.Thread(target=self._beat, name="t3ssfast-lease", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._beating is not None:
            self._beating.join()
        # The file goes while it is locked: who waits for it finds that it is no longer the one in the folder.
        with suppress(OSError):
            if self._holds():
                self._path.unlink()
        self._close()

    def check(self) -> None:
        """Raise `BusyError` if another machine has taken this process for dead and its place."""
        if self._lost:
            raise BusyError(
                "This run stood still for so long that another took over "
                f"{display_path(self._folder)}; leave the "
                "rest to that one."
            )

    def _take(self) -> bool:
        """Lock the file and write into it who has it; False if it has to be tried again."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = self._lock()
        holder = self._read()
        if locked is False:
            self._close()
            raise self._busy(holder)
        if not self._is_in_folder():
            self._close()
            return False
        # A lock on this machine tells all about its own processes, and perhaps nothing about another's.
        elsewhere = locked is None or holder.get("host") != socket.gethostname()
        if holder and elsewhere and self._silence() < STALE_SECONDS:
            self._close()
            raise self._busy(holder)
        self._write()
        if locked is None:
            self._released.wait(SETTLE_SECONDS)
            if not self._holds():
                self._close()
                return False
        return True

    def _lock(self) -> bool | None:
        """Whether the file is now locked by this process; None where there are no locks."""
        if fcntl is None:
            return None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _read(self) -> dict[str, Any]:
        """What the file says about its holder; nothing where it is empty or damaged."""
        with suppress(OSError, ValueError):
            found = json.loads(os.pread(self._descriptor, 4096, 0))
            if isinstance(found, dict):
                return found
        return {}

    def _write(self) -> None:
        record = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(record).encode(), 0)
        os.fsync(self._descriptor)

    def _is_in_folder(self) -> bool:
        """Whether the open file is the one in the folder, and not one that its holder has removed since."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _holds(self) -> bool:
        return self._is_in_folder() and self._read().get("token") == self._token

    def _silence(self) -> float:
        """Seconds since the holder gave a sign of life, by the clock of the file system."""
        probe = self._path.with_name(f".t3ssfast-{self._token}.probe")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - os.fstat(self._descriptor).st_mtime

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                if not self._holds():
                    self._lost = True
                    return
                os.utime(self._descriptor)
            except OSError:
                # A file system that is away for a while; nobody else can take the file then.
                continue

    def _busy(self, holder: dict[str, Any]) -> BusyError:
        who = (
            f"process {holder['pid']} on {holder['host']}"
            if {"pid", "host"} <= set(holder)
            else "another run"
        )
        return BusyError(
            f"{who[0].upper()}{who[1:]} is writing into {display_path(self._folder)}; wait for it, or give "
            "another folder."
        )

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
