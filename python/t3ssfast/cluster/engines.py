"""The choice of what runs the tasks, by what was given as executor."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

from t3ssfast.cluster.coordinator import run_tasks
from t3ssfast.cluster.display import Display
from t3ssfast.cluster.engine import ExecutorEngine, LocalEngine
from t3ssfast.cluster.slurm import SlurmOptions, require_slurm, run_on_slurm
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.errors import ConfigError

__all__ = ["Runner", "runner"]


class Runner(Protocol):
    """Runs tasks, and returns the outcome of each by name."""

    def __call__(self, tasks: Sequence[Task], *, retries: int, display: Display) -> dict[str, Outcome]: ...


def runner(executor: Any, environments: Sequence[Mapping[str, str]]) -> Runner:
    """Return what runs tasks on an executor.

    None is isolated processes on this machine, one for each environment.
    """
    if executor is None:
        return partial(run_tasks, engine=LocalEngine(environments))
    automatic = _is_from("submitit", executor, "AutoExecutor") and executor.cluster == "slurm"
    if automatic or isinstance(executor, SlurmOptions) or _is_from("submitit", executor, "SlurmExecutor"):
        require_slurm()
        return partial(run_on_slurm, options=executor)
    if _is_from("distributed", executor, "Client"):
        from t3ssfast.cluster.dask_engine import DaskEngine

        return partial(run_tasks, engine=DaskEngine(executor))
    if isinstance(executor, Executor):
        return partial(run_tasks, engine=ExecutorEngine(executor))
    raise ConfigError(
        f"executor: {type(executor).__name__} is neither a Client of dask, nor an executor of submitit for "
        "Slurm or of concurrent.futures; give one of these, or None."
    )


def _is_from(module: str, value: object, name: str) -> bool:
    """Whether a value is an instance of a class of a package, which is then imported already."""
    found = getattr(sys.modules.get(module), name, None)
    return found is not None and isinstance(value, found)
