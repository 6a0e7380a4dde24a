"""Many tomograms on Slurm: job arrays submitted by submitit, watched over through files and `squeue`.

An element of an array runs its tomograms in isolated workers and records each attempt in the ledger, so that
nothing depends on the process that submitted it, on the results of submitit, or on accounting.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Any

from t3ssfast.cluster.attempt import kills_of
from t3ssfast.cluster.data_set import DataSet
from t3ssfast.cluster.display import Display
from t3ssfast.cluster.estimate import chunk_tasks, limit_minutes
from t3ssfast.cluster.isolation import search_path
from t3ssfast.cluster.ledger import MAX_KILLS, RUN_FOLDER, Ledger
from t3ssfast.cluster.slurm_element import SlurmElement
from t3ssfast.cluster.slurm_state import (
    JobArray,
    SlurmError,
    active_tomograms,
    array_limit,
    cancel,
    ending,
    queued_states,
)
from t3ssfast.cluster.summary import FAILED, Row
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.errors import ConfigError
from t3ssfast.io import results_folder

__all__ = [
    "SlurmOptions",
    "missing_tasks",
    "require_slurm",
    "run_on_slurm",
    "sbatch_parameters",
    "settle",
    "submit_arrays",
]

DEFAULT_CPUS = 4
# Beyond the memory budget: PyTorch and the other imports, and the process that watches over the worker.
IMPORTS_BYTES = 2 << 30
# A job whose time runs out is requeued this often; each time it resumes at the slab where it stopped.
MAX_TIMEOUTS = 10
# Time for a checkpoint before the limit: the slab in progress is lost, so there is little to do.
SIGNAL_SECONDS = 60
# Between two looks at Slurm.
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 15.0
TICK_SECONDS = 0.2
# Looks at Slurm without an answer, one after another, until a run gives up.
MAX_SILENCES = 40
INTEGERS = ("cpus_per_task", "gpus_per_node", "nodes", "ntasks_per_node")


@dataclass(frozen=True)
class SlurmOptions:
    """How to submit.

    Parameters
    ----------
    parallel
        Largest number of jobs that run at a time.
    sbatch
        Options of sbatch by name, such as {"partition": "gpu", "time": "2:00:00"}.
    per_job
        Number of tomograms of one job; None: one, or as many short ones as take about five minutes.
    """

    parallel: int = 256
    sbatch: Mapping[str, str] = field(default_factory=dict)
    per_job: int | None = None


def missing_tasks(tasks: Sequence[Task], active: Mapping[str, str]) -> list[Task]:
    """Return the tasks to submit: not finished with these options, not active, and not set aside."""
    attempts = Ledger(tasks[0].folder.parent).all()
    missing = []
    for task in tasks:
        own, key = attempts.get(task.name, []), task.key
        last = own[-1] if own else None
        finished = last is not None and last.status == "done" and last.key == key
        finished = finished and (task.folder / "provenance.json").is_file()
        poisoned = len(kills_of(own, key)) >= MAX_KILLS
        if task.name not in active and not finished and not poisoned:
            missing.append(task)
    return missing


def require_slurm() -> None:
    """Raise an error if jobs cannot be submitted from here."""
    if find_spec("submitit") is None:
        raise ConfigError("Slurm needs submitit, which is not installed; pip install 't3ssfast[slurm]'.")
    if which("sbatch") is None:
        raise SlurmError(
            "The command sbatch was not found, so Slurm cannot be used here; run this on a machine of the "
            "cluster, or give --cluster local:N."
        )


def submit_arrays(tasks: Sequence[Task], options: SlurmOptions | Any, *, retries: int) -> list[JobArray]:
    """Submit tasks as one or more job arrays, and write these down in the output folder.

    `options` may also be an executor of submitit for Slurm, whose parameters are then used.
    """
    out = tasks[0].folder.parent
    given = options if isinstance(options, SlurmOptions) else SlurmOptions()
    parameters = sbatch_parameters(given, tasks[0])
    chunks = chunk_tasks(tasks, int(parameters["cpus_per_task"]), given.per_job)
    parameters.setdefault("time", limit_minutes(max(seconds for seconds, _ in chunks)))
    parameters["signal_delay_s"] = min(SIGNAL_SECONDS, parameters["time"] * 20)
    executor: Any = options if given is not options else _executor(out, parameters)
    arrays = []
    limit = array_limit()
    for first in range(0, len(chunks), limit):
        members = [chunk for _, chunk in chunks[first : first + limit]]
        try:
            jobs = executor.submit_array([SlurmElement(chunk, retries) for chunk in members])
        except Exception as error:
            raise SlurmError(_refusal(error)) from error
        elements = {
            job.job_id: [task.name for task in chunk] for job, chunk in zip(jobs, members, strict=True)
        }
        arrays.append(JobArray(jobs[0].job_id.split("_")[0], elements))
        arrays[-1].record(out)
    return arrays


def _executor(out: Path, parameters: Mapping[str, Any]) -> Any:
    from submitit import SlurmExecutor

    try:
        # Whatever is in the present folder must not be imported in place of a library.
        executor = SlurmExecutor(
            results_folder(out / RUN_FOLDER / "slurm"), MAX_TIMEOUTS, python=f"{quote(sys.executable)} -P"
        )
        executor.update_parameters(**parameters)
    except (RuntimeError, ValueError, TypeError) as error:
        raise SlurmError(_refusal(error)) from error
    return executor


def sbatch_parameters(options: SlurmOptions, task: Task) -> dict[str, Any]:
    """Return the parameters of submitit: those given, and the defaults for the others."""
    parameters: dict[str, Any] = {
        "job_name": "t3ssfast",
        "cpus_per_task": task.threads or DEFAULT_CPUS,
        "mem": f"{(task.memory_bytes + IMPORTS_BYTES) >> 20}M",
        "array_parallelism": options.parallel,
        "stderr_to_stdout": True,
        "setup": [f"export PYTHONPATH={quote(search_path())}"],
    }
    if task.device.startswith("cuda"):
        parameters["gpus_per_node"] = 1
    others: dict[str, Any] = {}
    for key, value in options.sbatch.items():
        name = key.strip().lstrip("-").replace("-", "_")
        if name == "time":
            parameters["time"] = _minutes(value)
        elif name in INTEGERS:
            if not value.isdecimal():
                raise ConfigError(f"sbatch {key}={value}: give a whole number.")
            parameters[name] = int(value)
        elif name == "mem":
            parameters["mem"] = value
        else:
            others[name.replace("_", "-")] = value or True
            if name in ("gres", "gpus", "gpus_per_task"):
                parameters.pop("gpus_per_node", None)
            if name.startswith("mem_"):
                parameters.pop("mem")
    return parameters | ({"additional_parameters": others} if others else {})


def _minutes(text: str) -> int:
    """Return a time of sbatch ("90", "1:30:00", "1-12", "2-00:30") in minutes, rounded up."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]) or len(parts) > 3:
        raise ConfigError(f"sbatch time={text}: not a time; give minutes, or [days-]hours:minutes:seconds.")
    values = [int(part) for part in parts]
    if days:
        hours, minutes, seconds = [*values, 0, 0][:3]
    else:
        # Of two, the first are minutes.
        hours, minutes, seconds = {1: (0, *values, 0), 2: (0, *values), 3: values}[len(values)]
    return max(1, int(days or 0) * 1440 + hours * 60 + minutes + (seconds > 0))


def _refusal(error: Exception) -> str:
    # submitit adds the output of sbatch, of which the last line has the reason.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "error" in line.lower()] or lines or [type(error).__name__]
    reason = re.sub(r"^sbatch: error: ", "", reasons[-1]).rstrip(".")
    return f"Slurm refused the jobs ({reason}); check --sbatch and the state of Slurm."


def run_on_slurm(
    tasks: Sequence[Task], options: SlurmOptions | Any, *, retries: int, display: Display
) -> dict[str, Outcome]:
    """Submit tasks, wait for them, submit again what died with its job, and return the outcomes by name.

    The jobs are cancelled if this is interrupted, and go on if this process is killed.
    """
    watch = _Watch(tasks, options, retries, display)
    try:
        return watch.outcomes()
    except BaseException:
        cancel(watch.arrays)
        raise


class _Watch:
    """Follows the arrays of one run until each of its tasks has an outcome."""

    def __init__(
        self, tasks: Sequence[Task], options: SlurmOptions | Any, retries: int, display: Display
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._options, self._retries, self._display = options, retries, display
        self._out = tasks[0].folder.parent
        self._data_set = DataSet(self._out, {task.name: str(task.path) for task in tasks})
        self._ledger = Ledger(self._out)
        self._tries: Counter[str] = Counter()
        # Attempts before the last submission, and the element that a task is in.
        self._before: dict[str, int] = {}
        self._element: dict[str, str] = {}
        self._outcomes: dict[str, Outcome] = {}
        self.arrays: list[JobArray] = []

    def outcomes(self) -> dict[str, Outcome]:
        """Wait for all tasks."""
        earlier = JobArray.recorded(self._out)
        states = queued_states(earlier)
        settle(self._ledger, earlier, states)
        active = active_tomograms(earlier, states)
        # Those of an earlier submission are waited for, too.
        for array in earlier:
            if set(active) & _names(array):
                self._follow(array)
        self._submit(missing_tasks(list(self._tasks.values()), active))
        for name in set(self._tasks) - set(self._element):
            (row,) = self._data_set.rows(names=[name])
            self._end(replace(row, status="skipped" if row.status == "done" else row.status))
        pause, silent = FIRST_POLL_SECONDS, 0
        while len(self._outcomes) < len(self._tasks):
            self._sleep(pause)
            pause = min(pause * 1.2, LONGEST_POLL_SECONDS)
            try:
                states = queued_states(self.arrays)
                silent = 0
            except SlurmError:
                # A busy controller does not answer for a while.
                silent += 1
                if silent > MAX_SILENCES:
                    raise
                continue
            self._take(states)
        return self._outcomes

    def _follow(self, array: JobArray) -> None:
        self.arrays.append(array)
        for element, names in array.elements.items():
            self._element |= {name: element for name in names if name in self._tasks}

    def _submit(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        for task in tasks:
            self._tries[task.name] += 1
            self._before[task.name] = len(self._ledger.of(task.name))
        for array in submit_arrays(tasks, self._options, retries=self._retries):
            self._follow(array)

    def _sleep(self, seconds: float) -> None:
        """Sleep in steps, so that an interrupt is noticed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(TICK_SECONDS)

    def _take(self, states: Mapping[str, str]) -> None:
        """Take the outcomes of tasks that have ended; submit those again whose job has died."""
        names = [
            name
            for name, element in self._element.items()
            if name not in self._outcomes and states.get(element) != "waiting"
        ]
        gone = {name for name in names if self._element[name] not in states}
        settle(self._ledger, self.arrays, states, sorted(gone))
        again = []
        for row in self._data_set.rows(names=names):
            task = self._tasks[row.tomogram]
            is_new = row.attempts > self._before.get(row.tomogram, 0)
            if row.status == "done" and (is_new or row.tomogram in gone):
                self._end(row)
            elif row.tomogram not in gone:
                self._display.started(task)
            elif row.status in FAILED and is_new and not self._may_follow(task):
                self._end(row)
            elif self._may_follow(task):
                error = row.error or f"{ending(self._element[row.tomogram])[0]}."
                outcome = Outcome(task.name, "lost", error=error, attempts=row.attempts, again=True)
                self._display.repeated(task, outcome)
                again.append(task)
            else:
                error = f"{ending(self._element[row.tomogram])[0]}, {self._tries[row.tomogram]} times."
                self._end(replace(row, status="failed", error=row.error or error))
        self._submit(again)

    def _may_follow(self, task: Task) -> bool:
        """Whether a task that did not finish is to be submitted again: it was killed with its job."""
        last = self._ledger.of(task.name)[-1:]
        ended_itself = bool(last) and last[0].status == "failed"
        is_new = len(self._ledger.of(task.name)) > self._before.get(task.name, 0)
        if self._tries[task.name] > self._retries or (ended_itself and is_new):
            return False
        return bool(missing_tasks([task], {}))

    def _end(self, row: Row) -> None:
        task = self._tasks[row.tomogram]
        outcome = Outcome(
            task.name,
            row.status,
            row.seconds or 0.0,
            row.candidates,
            row.error,
            worker=row.worker,
            attempts=row.attempts,
        )
        self._outcomes[row.tomogram] = outcome
        self._display.finished(task, outcome)


def settle(
    ledger: Ledger,
    arrays: Sequence[JobArray],
    states: Mapping[str, str],
    names: Sequence[str] | None = None,
) -> None:
    """End the attempts whose job Slurm no longer has, with what Slurm says about its ending.

    `names` restricts this to some tomograms.
    """
    jobs = {array.job for array in arrays}
    attempts = ledger.all() if names is None else {name: ledger.of(name) for name in names}
    for one in (one for some in attempts.values() for one in some):
        is_ours = one.job.split("_")[0] in jobs
        if one.status == "running" and is_ours and one.job not in states:
            reason, own_fault = ending(one.job)
            ledger.end(one, status="killed" if own_fault else "lost", error=f"{reason}.")


def _names(array: JobArray) -> set[str]:
    return {name for names in array.elements.values() for name in names}
