"""An isolated worker: a process that detects one tomogram after another, and whose death costs only one.

It reads tasks from standard input, and answers on standard output. What a detection prints goes to the log of
its tomogram. It ends with its parent, and on its own if it has had nothing to do for a while.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["IDLE_EXIT", "main"]

# Exit code of a worker that had nothing to do for this long.
IDLE_EXIT = 75
IDLE_SECONDS = 60.0
# The system then kills this process rather than the one that watches over it.
OUT_OF_MEMORY_SCORE = "500"


def main() -> None:
    """Run tasks until standard input is closed."""
    # An interrupt is for the process that watches over this one; it ends this one.
    for name in ("SIGINT", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")
    answers = os.fdopen(os.dup(1), "wb")
    given = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    faulthandler.enable()
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(given, tasks), daemon=True).start()
    # Only now, so that the end of the parent is noticed during the imports, too.
    from t3ssfast.cluster.tomogram_detection import run_detection

    while True:
        try:
            task, log = tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            os._exit(IDLE_EXIT)
        _print_to(log)
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()}: {task.path}", flush=True)
        os.chdir(task.directory)
        outcome = run_detection(task.open())
        print(f"{outcome.status} in {outcome.seconds:.1f} s {outcome.error}".rstrip(), flush=True)
        pickle.dump(outcome, answers)
        answers.flush()


def _receive(given: BinaryIO, tasks: queue.SimpleQueue[Any]) -> None:
    """Pass tasks on; end the process, whatever it does, when the parent has ended."""
    try:
        while True:
            tasks.put(pickle.load(given))
    except BaseException:
        os._exit(0)


def _print_to(log: Path) -> None:
    """Send what this process and its libraries print to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main()
