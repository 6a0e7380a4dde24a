"""Handle Ctrl-C within two seconds, even during long native calls, in which Python runs no signal handlers.

Commands therefore run in a second thread while the main thread waits.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["INTERRUPTED", "exit_on_interrupt", "run_interruptible"]

Result = TypeVar("Result")

# Exit code of an interrupted command: 128 + SIGINT, as shells report it.
INTERRUPTED = 130
# Time for the command to clean up after an interrupt. After that the process ends, whatever native call is
# running; files are written atomically, so this is as safe as SIGKILL.
CLEANUP_SECONDS = 1.0
# A signal that arrives just before the main thread sleeps, or in another thread, does not wake it.
POLL_SECONDS = 0.1


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Turn a KeyboardInterrupt into the message "interrupted" and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None


def run_interruptible(work: Callable[[], Result]) -> Result:
    """Call a function in another thread while the main thread waits for it and for an interrupt.

    After an interrupt, KeyboardInterrupt is raised in the working thread at its next bytecode instruction,
    and here when that thread has ended. If it does not end within `CLEANUP_SECONDS`, the process exits.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    worker = _Worker(work)
    try:
        worker.start()
        while not wait([worker.future], POLL_SECONDS).done:
            # Python raises KeyboardInterrupt here if a signal came while this thread slept.
            pass
        # The thread frees memory as it ends; this must be over before the process ends.
        worker.join()
    except KeyboardInterrupt:
        _stop(worker)
        raise
    result: Result = worker.future.result()
    return result


class _Worker(threading.Thread):
    """A thread that calls a function, stores its result or exception, and can be interrupted."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="t3ssfast-command", daemon=True)
        self.running = threading.Event()
        self.future: Future[Any] = Future()
        self._work = work
        self._lock = threading.Lock()
        self._finished = False

    def run(self) -> None:
        try:
            try:
                self.running.set()
                result = self._work()
            finally:
                with self._lock:
                    self._finished = True
                # An interrupt that is still pending is raised here, where it is caught.
                time.sleep(0)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in this thread unless the work has finished."""
        with self._lock:
            if not self._finished:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.ident or 0), ctypes.py_object(KeyboardInterrupt)
                )


def _stop(worker: _Worker) -> None:
    """Interrupt the worker, and end the process if it does not stop in time."""
    original_hook = sys.unraisablehook
    # A thread that the worker is just starting still has the worker's id in CPython. The interrupt may kill
    # that thread instead, and its traceback is of no use to the user.
    sys.unraisablehook = lambda _: None
    try:
        stopped = False
        if worker.running.wait(CLEANUP_SECONDS):
            for _ in range(2):
                worker.interrupt()
                stopped = bool(wait([worker.future], CLEANUP_SECONDS / 2).done)
                if stopped:
                    break
    except KeyboardInterrupt:
        # A second Ctrl-C ends the process at once.
        stopped = False
    if not stopped:
        if sys.stderr.isatty():
            # Progress bars hide the cursor; show it again.
            sys.stderr.write("\x1b[?25h\n")
        sys.stderr.write("interrupted\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.unraisablehook = original_hook
