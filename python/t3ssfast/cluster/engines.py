"""The choice of an engine by what was given as executor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from t3ssfast.cluster.engine import Engine, ExecutorEngine, LocalEngine
from t3ssfast.cluster.resources import divide
from t3ssfast.cluster.task import DetectTask
from t3ssfast.errors import ConfigError

__all__ = ["choose_engine"]


def choose_engine(executor: Any, tasks: Sequence[DetectTask], workers: int) -> Engine:
    """Return the engine for an executor; None is isolated processes on this machine."""
    if executor is None:
        return LocalEngine(divide(tasks[0].options, min(workers, len(tasks))))
    if isinstance(executor, Executor):
        return ExecutorEngine(executor)
    raise ConfigError(
        f"executor: {type(executor).__name__} is neither a Client of dask, nor an executor of submitit or of "
        "concurrent.futures; give one of these, or None."
    )
