"""Isolated workers, seen from the process that watches over them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from t3ssfast import errors
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.cluster.worker import IDLE_EXIT

__all__ = ["WorkerDied", "WorkerPool", "WorkerProcess", "search_path"]

# What usually sends a signal to a detection.
CAUSES = {
    "SIGKILL": "usually by the system, as memory ran out",
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a file that was truncated while it was mapped, or failing memory",
    "SIGABRT": "an internal error of a library",
    "SIGILL": "an instruction that this processor does not have",
    "SIGFPE": "a division by zero in a library",
}
# Signals by which people and schedulers end a process; they are not the tomogram's fault.
ORDERED = {"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU"}


class WorkerDied(Exception):
    """A worker ended in the middle of a task; `ordered` if somebody asked it to."""

    def __init__(self, code: int) -> None:
        name = signal.Signals(-code).name if code < 0 else ""
        self.ordered = name in ORDERED
        cause = f" ({CAUSES[name]})" if name in CAUSES else ""
        super().__init__(f"{name}{cause}" if name else f"exit code {code}")


@dataclass
class WorkerProcess:
    """A worker with environment variables of its own; started with its first task."""

    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def run(self, task: Task, log: Path) -> Outcome:
        """Run a task to its end; raise `WorkerDied` if that is the end of the worker, too."""
        while True:
            process = self._started(log)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pickle.dump((task, log), process.stdin)
                process.stdin.flush()
                outcome = pickle.load(process.stdout)
                assert isinstance(outcome, Outcome)
                return outcome
            except (EOFError, OSError, pickle.UnpicklingError):
                code = process.wait()
                self.close()
                # It ended for want of tasks as this one was sent.
                if code != IDLE_EXIT:
                    raise WorkerDied(code) from None

    def _started(self, log: Path) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # Whatever is in the present folder must not be imported in place of a library.
            command = [sys.executable, "-P", "-m", "t3ssfast.cluster.worker"]
            with open(log, "ab") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "PYTHONPATH": search_path(), **self.environment},
                )
        return self._process

    def kill(self) -> None:
        """End the process, whatever it does: results are written atomically. `run` then raises `WorkerDied`.

        It closes no pipe, since another thread, or this one before a signal, may be reading from it.
        """
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process and release its pipes; not while it runs a task."""
        self.kill()
        process, self._process = self._process, None
        if process is None:
            return
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                # What was not sent any more.
                with suppress(OSError):
                    pipe.close()


class WorkerPool:
    """The workers of this process: as many as there are tasks at a time, each used again."""

    def __init__(self) -> None:
        # A signal may be handled while it is held.
        self._lock = threading.RLock()
        self._idle: list[WorkerProcess] = []
        self._busy: list[WorkerProcess] = []

    def run(self, task: Task, log: Path, environment: Mapping[str, str]) -> Outcome:
        """Run a task in a worker with this environment; `WorkerDied` as `WorkerProcess.run`."""
        with self._lock:
            worker = next((one for one in self._idle if one.environment == environment), None)
            if worker is None:
                worker = WorkerProcess(environment)
            else:
                self._idle.remove(worker)
            self._busy.append(worker)
        try:
            outcome = worker.run(task, log)
        except BaseException as error:
            with self._lock:
                ended_here = worker not in self._busy
                if not ended_here:
                    self._busy.remove(worker)
            # It may be in the middle of the task.
            worker.close()
            if isinstance(error, WorkerDied):
                # Killed by `close`, and not by its task.
                error.ordered = error.ordered or ended_here
            raise
        with self._lock:
            if worker in self._busy:
                self._busy.remove(worker)
                self._idle.append(worker)
        return outcome

    def close(self) -> None:
        """End all workers, also those that run a task; later tasks start others."""
        with self._lock:
            busy, idle = self._busy[:], self._idle[:]
            self._busy.clear()
            self._idle.clear()
        for worker in busy:
            worker.kill()
        for worker in idle:
            worker.close()


def search_path() -> str:
    """PYTHONPATH with which a worker imports the package that this process has imported."""
    own = str(Path(os.path.abspath(errors.__file__)).parent.parent)
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([own, *map(os.path.abspath, filter(None, others))]))
