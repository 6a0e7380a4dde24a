"""Runs the tasks of a data set on an engine: bounded submission, retries, and no task lost."""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from t3ssfast.cluster.display import Display
from t3ssfast.cluster.engine import Engine
from t3ssfast.cluster.task import Outcome, Task

__all__ = ["run_tasks"]

# Pause before a tomogram that another process works on is tried again.
BUSY_SECONDS = 2.0
# Longest time without a look at the engine and at an interrupt.
TICK_SECONDS = 0.2


def run_tasks(tasks: Sequence[Task], *, engine: Engine, retries: int, display: Display) -> dict[str, Outcome]:
    """Run tasks and return the outcome of each by name.

    A task whose attempt may succeed another time is run again after the others, `retries` times. One that
    another process works on is tried until that process has ended.
    """
    return _Run(tasks, engine, retries, display).outcomes()


class _Run:
    def __init__(self, tasks: Sequence[Task], engine: Engine, retries: int, display: Display) -> None:
        self._engine, self._retries, self._display = engine, retries, display
        self._waiting = deque(tasks)
        self._running: dict[Any, Task] = {}
        # Tasks that other processes work on, and when to try them again.
        self._busy: deque[tuple[float, Task]] = deque()
        self._tries: Counter[str] = Counter()
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outcomes: dict[str, Outcome] = {}

    def outcomes(self) -> dict[str, Outcome]:
        """Run until every task has an outcome."""
        with closing(self._engine):
            while self._waiting or self._running or self._busy:
                self._submit()
                try:
                    future = self._done.get(timeout=TICK_SECONDS)
                except queue.Empty:
                    self._engine.check()
                    continue
                task = self._running.pop(future)
                self._take(task, self._engine.outcome(future, task))
        return self._outcomes

    def _submit(self) -> None:
        while self._busy and self._busy[0][0] <= time.monotonic():
            self._waiting.append(self._busy.popleft()[1])
        while self._waiting and len(self._running) < self._engine.capacity:
            task = self._waiting.popleft()
            future = self._engine.submit(task)
            self._running[future] = task
            self._display.started(task)
            future.add_done_callback(self._done.put)

    def _take(self, task: Task, outcome: Outcome) -> None:
        if outcome.status == "busy":
            self._display.postponed(task, outcome)
            self._busy.append((time.monotonic() + BUSY_SECONDS, task))
            return
        self._tries[task.name] += 1
        if outcome.again and self._tries[task.name] <= self._retries:
            self._display.repeated(task, outcome)
            self._waiting.append(task)
            return
        if outcome.status in ("killed", "lost"):
            outcome = replace(outcome, status="failed")
        self._outcomes[task.name] = outcome
        self._display.finished(task, outcome)
