"""Long jobs in a process of their own, which may belong to another environment."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

from t3ssfast.errors import ConfigError

__all__ = ["Event", "Job"]

# {"event": "progress" | "log" | "done" | "failed" | "cancelled", ...}
Event = dict[str, Any]

ENDS = ("done", "failed", "cancelled")
START = "from t3ssfast.napari_plugin.worker import main; main()"
# A process that is asked to end finishes the slice in progress; afterwards it is killed.
GRACE_SECONDS = 10.0
MAX_MESSAGE = 600


class Job:
    """A process that works on one task, with its events.

    Parameters
    ----------
    task
        Name of a task of `t3ssfast.napari_plugin.worker`.
    options
        Its parameters, plain values for JSON.
    python
        Interpreter of the environment to work in; "" is this one. t3ssfast must be installed there, napari
        need not be.

    Raises
    ------
    ConfigError
        If the interpreter cannot be started.
    """

    def __init__(self, task: str, options: dict[str, Any], *, python: str = "") -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self._ended = False
        self._end: Event | None = None
        self._cancelled_at: float | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            # -P: a folder that is called like a module is no module.
            self._process = subprocess.Popen(
                [python or sys.executable, "-P", "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            self._errors.close()
            raise ConfigError(
                f"python: {python or sys.executable!r} cannot be started ({error.strerror}); give the "
                "interpreter of an environment with t3ssfast."
            ) from error
        assert self._process.stdin is not None
        # A process that ends at once is reported by its code.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"task": task, **options}).encode() + b"\n")
            self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                self._events.put(event)

    @property
    def running(self) -> bool:
        """Whether the last event is still to come."""
        return not self._ended

    def poll(self) -> list[Event]:
        """Return the events since the last call; the last one of all is "done", "failed" or "cancelled"."""
        if self._ended:
            return []
        code = self._process.poll()
        if code is None:
            if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > GRACE_SECONDS:
                self._process.kill()
            return self._received()
        self._reader.join()
        events = self._received()
        if self._end is None:
            cancelled = self._cancelled_at is not None
            self._end = {"event": "cancelled"} if cancelled else self._failure(code)
        self._ended = True
        self._errors.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return [*events, self._end]

    def _received(self) -> list[Event]:
        """Return what came so far; the end is held back until the process has ended."""
        events = []
        while not self._events.empty():
            event = self._events.get()
            if event["event"] in ENDS:
                self._end = event
            else:
                events.append(event)
        return events

    def _failure(self, code: int) -> Event:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1][:MAX_MESSAGE] if lines else "no message"
        return {"event": "failed", "message": f"The process ended with code {code}: {reason}"}

    def cancel(self) -> None:
        """Ask the process to end. Finished slabs stay, so that the same job resumes there."""
        if self._process.poll() is None:
            self._cancelled_at = time.monotonic()
            self._process.terminate()

    def close(self) -> None:
        """End the process and wait for it."""
        self.cancel()
        deadline = time.monotonic() + GRACE_SECONDS
        while self.running and time.monotonic() < deadline + GRACE_SECONDS:
            self.poll()
            time.sleep(0.02)
