"""What an element of a job array runs: its tomograms, one after another in an isolated worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t3ssfast.cluster.attempt import OWN_WORKERS, attempt
from t3ssfast.cluster.ledger import slurm_job
from t3ssfast.cluster.resources import thread_variables
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.runtime.cpus import available_cpus

__all__ = ["SlurmElement", "attempt_all"]


class SlurmElement:
    """The tasks of one element; submitit calls it in the job, and `checkpoint` when its time runs out."""

    def __init__(self, tasks: Sequence[Task], retries: int) -> None:
        self.tasks, self.retries = list(tasks), retries

    def __call__(self) -> dict[str, str]:
        """Run the tasks; return the status of each by name. The ledger has the details."""
        outcomes = attempt_all(self.tasks, self.retries, f"slurm:{slurm_job()}")
        return {name: outcome.status for name, outcome in outcomes.items()}

    def checkpoint(self) -> Any:
        """Return what to run after a requeue: finished tomograms are skipped, the interrupted one resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def attempt_all(tasks: Sequence[Task], retries: int, worker: str) -> dict[str, Outcome]:
    """Run each task until it has ended or was tried `retries` times again.

    Where the worker is asked to end, so is the job: nothing is tried any more, and the ledger keeps the
    attempt as lost.
    """
    environment = thread_variables(available_cpus())
    outcomes: dict[str, Outcome] = {}
    try:
        for task in tasks:
            for _ in range(1 + retries):
                outcomes[task.name] = attempt(task, environment, worker=worker)
                if outcomes[task.name].status == "lost":
                    # The job is being cancelled; submitit ignores the signal that ended the worker.
                    return outcomes
                if not outcomes[task.name].again:
                    break
    finally:
        OWN_WORKERS.close()
    return outcomes
