"""Ctrl-C, answered at once, whatever call of native code is under way."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["INTERRUPTED", "listening"]

Made = TypeVar("Made")

INTERRUPTED = 130
# How long what was interrupted may take to clean up after itself. A call of native code cannot be stopped:
# one that takes longer ends with the process, as it would by SIGKILL, from which nothing on the disk suffers.
PATIENCE_SECONDS = 1.0


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
    done = threading.Event()

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    worker = threading.Thread(target=run, name="t3ssfast-command", daemon=True)
    worker.start()
    try:
        done.wait()
    except KeyboardInterrupt:
        _stop(worker, done)
        raise
    worker.join()
    if failure:
        raise failure[0]
    return made[0]


def _stop(worker: threading.Thread, done: threading.Event) -> None:
    """End the work, or the process."""
    assert worker.ident is not None, "it was started"
    try:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(worker.ident), ctypes.py_object(KeyboardInterrupt)
        )
        ended = done.wait(PATIENCE_SECONDS)
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
