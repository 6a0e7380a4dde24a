"""Engines: what runs attempts at tasks somewhere, behind one small interface."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol

from t3ssfast.cluster.attempt import OWN_WORKERS, attempt
from t3ssfast.cluster.isolation import WorkerPool
from t3ssfast.cluster.resources import thread_variables
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.runtime.cpus import available_cpus

__all__ = ["Engine", "ExecutorEngine", "LocalEngine"]

# Tasks that an executor of unknown size is given at a time.
UNKNOWN_WORKERS = 8


class Engine(Protocol):
    """Runs attempts at tasks. Futures are those of concurrent.futures, or alike."""

    @property
    def capacity(self) -> int:
        """Number of tasks to submit at a time."""

    def submit(self, task: Task) -> Any:
        """Begin an attempt, and return its future."""

    def outcome(self, future: Any, task: Task) -> Outcome:
        """Return the outcome of a future that is done; errors of the engine itself are raised."""

    def check(self) -> None:
        """Raise an exception if the engine can no longer work."""

    def close(self) -> None:
        """End what still runs, and release the engine."""


class LocalEngine:
    """Isolated processes on this machine, one for each environment."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._workers = WorkerPool()
        self._threads = ThreadPoolExecutor(len(environments), thread_name_prefix="t3ssfast-worker")
        self._free: queue.SimpleQueue[tuple[int, Mapping[str, str]]] = queue.SimpleQueue()
        for number, environment in enumerate(environments, 1):
            self._free.put((number, environment))
        self.capacity = len(environments)

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin an attempt as soon as a worker is free."""
        return self._threads.submit(self._attempt, task)

    def _attempt(self, task: Task) -> Outcome:
        number, environment = self._free.get()
        try:
            return attempt(task, environment, self._workers, f"local:{number}")
        finally:
            self._free.put((number, environment))

    def outcome(self, future: Future[Outcome], task: Task) -> Outcome:
        """Return the outcome of an attempt that has ended."""
        return future.result()

    def check(self) -> None:
        """Threads and processes of this machine always work."""

    def close(self) -> None:
        """Kill the workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        self._threads.shutdown(wait=True)


class ExecutorEngine:
    """Any executor of concurrent.futures; each of its threads or processes has an isolated worker."""

    def __init__(self, executor: Executor, workers: int | None = None) -> None:
        self._executor = executor
        size = workers or getattr(executor, "_max_workers", None) or UNKNOWN_WORKERS
        self._environment = thread_variables(max(1, available_cpus() // int(size)))
        self.capacity = int(size)

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin an attempt in the executor."""
        return self._executor.submit(attempt, task, self._environment)

    def outcome(self, future: Future[Outcome], task: Task) -> Outcome:
        """Return the outcome of an attempt that has ended."""
        return future.result()

    def check(self) -> None:
        """An executor that cannot work refuses to submit."""

    def close(self) -> None:
        """End the workers in this process; those in others end with their executor, or for want of tasks."""
        OWN_WORKERS.close()
