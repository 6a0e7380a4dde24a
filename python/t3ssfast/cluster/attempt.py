"""One attempt at a task in an isolated worker, recorded in the ledger of the output folder.

This is what every engine runs, in a thread or a process of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace

from t3ssfast.cluster.isolation import WorkerDied, WorkerPool
from t3ssfast.cluster.ledger import MAX_KILLS, Attempt, Ledger
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.io import display_path
from t3ssfast.runtime.folder_lock import holder_of

__all__ = ["OWN_WORKERS", "attempt", "kills_of", "poisoned_error"]

# The workers of a process of another engine, such as a worker of dask.
OWN_WORKERS = WorkerPool()


def attempt(
    task: Task,
    environment: Mapping[str, str] | None = None,
    workers: WorkerPool = OWN_WORKERS,
    worker: str = "",
) -> Outcome:
    """Run a task once, unless it has killed its worker too often or another process works on it.

    Parameters
    ----------
    task
        The tomogram, its options and its folder.
    environment
        Variables for the isolated worker, such as its share of cores and devices.
    workers
        Where the isolated worker comes from.
    worker
        Name of the worker in the summary; by default host and process.
    """
    ledger = Ledger(task.folder.parent)
    worker = worker or f"{socket.gethostname()}:{os.getpid()}"
    kills = kills_of(ledger.of(task.name), task.key)
    if len(kills) >= MAX_KILLS:
        error = poisoned_error(kills[-1].error, ledger, task)
        return Outcome(task.name, "poisoned", error=error, worker=worker, attempts=kills[-1].number)
    if holder := holder_of(task.folder):
        return Outcome(task.name, "busy", error=f"{holder} is writing into {display_path(task.folder)}.")
    record = ledger.begin(task.name, task.key, worker)
    try:
        outcome = workers.run(task, ledger.log_of(task.name), environment or {})
    except WorkerDied as died:
        outcome = _outcome_of_death(task, died, len(kills), ledger)
    except BaseException:
        ledger.end(record, status="lost")
        raise
    outcome = replace(outcome, worker=worker, attempts=record.number)
    if outcome.status in ("busy", "skipped"):
        ledger.forget(record)
    else:
        # A tomogram that is set aside was killed once more.
        status = "killed" if outcome.status == "poisoned" else outcome.status
        result = {"error": outcome.error, "candidates": outcome.candidates, "seconds": outcome.seconds}
        ledger.end(record, status=status, **result)
    return outcome


def kills_of(attempts: list[Attempt], key: str) -> list[Attempt]:
    """Return the attempts with these options at this file that killed their worker."""
    return [one for one in attempts if one.status == "killed" and one.key == key]


def poisoned_error(cause: str, ledger: Ledger, task: Task) -> str:
    """Return why a tomogram is set aside, and how to try it again."""
    return (
        f"set aside, because it ended its worker {MAX_KILLS} times, at last so: {cause.rstrip('.')}; see "
        f"{display_path(ledger.log_of(task.name))}, and try it again with other options, or with --no-resume "
        "(resume=False)."
    )


def _outcome_of_death(task: Task, died: WorkerDied, kills: int, ledger: Ledger) -> Outcome:
    if died.ordered:
        return Outcome(task.name, "lost", error=f"its worker was asked to end: {died}.", again=True)
    error = f"its worker ended: {died}."
    if kills + 1 >= MAX_KILLS:
        return Outcome(task.name, "poisoned", error=poisoned_error(error, ledger, task))
    log = display_path(ledger.log_of(task.name))
    return Outcome(task.name, "killed", error=f"{error[:-1]}; see {log}.", again=True)
