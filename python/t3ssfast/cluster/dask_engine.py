"""Many tomograms on any cluster of dask.

Each worker of dask runs its attempts in an isolated process, so a tomogram that crashes or takes all memory
does not end the worker, and the tasks that wait on it are not blamed.
"""

from __future__ import annotations

import math
import signal
import threading
from collections import Counter
from typing import Any

from t3ssfast.cluster.attempt import OWN_WORKERS, attempt
from t3ssfast.cluster.ledger import Ledger
from t3ssfast.cluster.resources import thread_variables
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.errors import T3Error
from t3ssfast.runtime.cpus import available_cpus

__all__ = ["ClusterLostError", "DaskEngine", "attempt_on_worker"]

# Tasks beyond one for each thread: an adaptive cluster grows only if it sees some that wait.
WAITING_TASKS = 8
# Of the scheduler while tasks run: deaths of workers that a task survives, tasks for each thread of a worker,
# and seconds of silence after which a worker counts as dead.
SETTINGS = {"allowed_failures": 2, "WORKER_SATURATION": 1.0, "worker_ttl": 1e9}


class ClusterLostError(T3Error):
    """The connection to the scheduler of dask was lost."""


class DaskEngine:
    """Submits attempts to a client of dask, a few more than it has threads, and releases each result."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._tries: Counter[str] = Counter()
        remove_interrupt_handler()
        self._before = client.run_on_scheduler(set_scheduler, SETTINGS)

    @property
    def capacity(self) -> int:
        """Number of tasks to submit at a time; follows a cluster that grows or shrinks."""
        return self._threads() + max(WAITING_TASKS, self._threads())

    def _threads(self) -> int:
        return sum(worker["nthreads"] for worker in self._workers())

    def _workers(self) -> list[dict[str, Any]]:
        # Without an argument, recent versions describe five workers only.
        try:
            info = self._client.scheduler_info(n_workers=-1)
        except TypeError:
            info = self._client.scheduler_info()
        # A client that has lost its scheduler knows nothing.
        self.check()
        return list(info.get("workers", {}).values())

    def submit(self, task: Task) -> Any:
        """Begin an attempt somewhere on the cluster."""
        self._tries[task.name] += 1
        threads_of_host: Counter[str] = Counter()
        for worker in self._workers():
            threads_of_host[worker["host"]] += worker["nthreads"]
        return self._client.submit(
            attempt_on_worker,
            task,
            max(threads_of_host.values(), default=1),
            key=f"t3ssfast-{task.name}-{task.key}-{self._tries[task.name]}",
            pure=False,
        )

    def outcome(self, future: Any, task: Task) -> Outcome:
        """Return the outcome of an attempt that has ended, and release what dask keeps of it."""
        try:
            outcome = future.result()
            assert isinstance(outcome, Outcome)
            return outcome
        except Exception as error:
            self.check()
            return self._outcome_of_error(task, error)
        finally:
            future.release()

    def _outcome_of_error(self, task: Task, error: Exception) -> Outcome:
        """Blame a task for the death of its workers only if it had begun on them."""
        ledger = Ledger(task.folder.parent)
        begun = [one for one in ledger.of(task.name) if one.status == "running"]
        reason = f"its worker of dask ended ({type(error).__name__})."
        for one in begun:
            ledger.end(one, status="killed", error=reason)
        return Outcome(
            task.name,
            "killed" if begun else "lost",
            error=reason,
            attempts=begun[-1].number if begun else 0,
            again=True,
        )

    def check(self) -> None:
        """Raise ClusterLostError if the scheduler has gone."""
        if self._client.status not in ("running", "newly-created"):
            raise ClusterLostError(
                "The connection to the scheduler of dask was lost; start the cluster and the same command "
                "again, which does what is missing."
            )

    def close(self) -> None:
        """End the isolated processes of the workers, and give the scheduler its settings back."""
        if self._client.status == "running":
            self._client.run_on_scheduler(set_scheduler, self._before)
            self._client.run(close_isolated_workers)


def attempt_on_worker(task: Task, threads_on_host: int) -> Outcome:
    """Run an attempt on a worker of dask, with its share of the cores of its host."""
    from distributed import get_worker

    environment = thread_variables(max(1, available_cpus() // threads_on_host))
    return attempt(task, environment, worker=f"dask:{get_worker().address}")


def close_isolated_workers() -> None:
    """End the isolated processes of a worker of dask."""
    OWN_WORKERS.close()


def set_scheduler(settings: dict[str, Any], dask_scheduler: Any) -> dict[str, Any]:
    """Change settings of the scheduler, and return what they were.

    Detections hold Python's lock for long in native code, so a silent worker is not a dead one. A task that
    waits on a worker must not be blamed for the death of it, so workers have no more tasks than threads.
    """
    before = {name: getattr(dask_scheduler, name) for name in settings}
    for name, value in settings.items():
        # Where it is infinite, tasks are not held back at all, which cannot be changed while it runs.
        if name != "WORKER_SATURATION" or not math.isinf(before[name]):
            setattr(dask_scheduler, name, value)
    return before


def remove_interrupt_handler() -> None:
    """Undo what the import of dask_jobqueue does to Ctrl-C: it would end the program with exit code 0."""
    handler: Any = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()
    if ours and str(getattr(handler, "__module__", "")).startswith("dask_jobqueue"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
