"""Ctrl-C, answered at once, whatever call of native code is under way."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["INTERRUPTED", "ending_when_interrupted", "listening"]

Made = TypeVar("Made")

INTERRUPTED = 130
# How long what was interrupted may take to clean up after itself. A call of native code cannot be stopped:
# one that takes longer ends with the process, as it would by SIGKILL, from which nothing on the disk suffers.
PATIENCE_SECONDS = 1.0


@contextmanager
def ending_when_interrupted() -> Iterator[None]:
    """End in one word and with its exit code where the user has interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(INTERRUPTED) from None


def listening(work: Callable[[], Made]) -> Made:
    """``work()``, done by another thread while the main thread listens for an interrupt.

    Python handles signals in its main thread, between two of its own instructions: while that thread is in
    native code nothing is heard. An interrupt is raised in the working thread, at its next instruction; where
    it does not come to one in time, the process ends.

    Raises
    ------
    KeyboardInterrupt
        The user has interrupted, and the work has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    made: list[Made] = []
    failure: list[BaseException] = []
    work_thread = _WorkThread(lambda: made.append(work()), failure)
    try:
        work_thread.start()
        work_thread.done.wait()
    except KeyboardInterrupt:
        _stop(work_thread)
        raise
    if failure:
        raise failure[0]
    return made[0]


class _WorkThread(threading.Thread):
    """Does something, keeps what it raises, and takes one interrupt while it does it."""

    def __init__(self, work: Callable[[], None], failure: list[BaseException]) -> None:
        super().__init__(name="t3ssfast-command", daemon=True)
        self.begun, self.done = threading.Event(), threading.Event()
        self._work, self._failure = work, failure
        self._interruptible = threading.Lock()
        self._ended = False

    def run(self) -> None:
        try:
            try:
                self.begun.set()
                self._work()
            except BaseException as error:
                self._failure.append(error)
            with self._interruptible:
                self._ended = True
            # An interrupt that was sent before arrives here, where it still is caught.
            time.sleep(0)
        except KeyboardInterrupt as error:
            self._failure.append(error)
        finally:
            self.done.set()

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in this thread, unless it has done its work."""
        with self._interruptible:
            if not self._ended:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.ident or 0), ctypes.py_object(KeyboardInterrupt)
                )


def _stop(work_thread: _WorkThread) -> None:
    """End the work, or the process."""
    before = sys.unraisablehook
    # CPython takes a thread that is just being started by the work for the work's own (it has its number
    # until it runs): one that gets the interrupt instead dies of it, of which nobody needs to read.
    sys.unraisablehook = lambda _: None
    try:
        ended = work_thread.begun.wait(PATIENCE_SECONDS)
        for _ in range(2 if ended else 0):
            work_thread.interrupt()
            ended = work_thread.done.wait(PATIENCE_SECONDS / 2)
            if ended:
                break
    except KeyboardInterrupt:
        # Who asks twice has waited long enough.
        ended = False
    if not ended:
        if sys.stderr.isatty():
            # A bar hides the cursor.
            sys.stderr.write("\x1b[?25h\n")
        sys.stderr.write("interrupted\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.unraisablehook = before
