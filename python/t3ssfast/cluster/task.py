"""A task: the detection of one tomogram, to be sent to other processes, and what became of it.

Nothing heavy is imported here: the processes that watch over the detections do without PyTorch.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "Task"]


@dataclass(frozen=True)
class Task:
    """One tomogram to detect in.

    Parameters
    ----------
    name
        Of the tomogram within its data set, and of its folder.
    path
        Of the tomogram, as it was given.
    folder
        Of its results, absolute.
    directory
        Where relative paths start.
    key
        Digest of the options and of the state of the file.
    content
        The pickled `TomogramDetection`; opened by the worker only.
    device, threads, memory_bytes, voxel_size_angstrom
        Of its options, for schedulers.
    """

    name: str
    path: Path
    folder: Path
    directory: str
    key: str
    content: bytes = field(repr=False)
    device: str
    threads: int | None
    memory_bytes: int
    voxel_size_angstrom: float | None

    def open(self) -> Any:
        """Return the `TomogramDetection`."""
        return pickle.loads(self.content)


@dataclass(frozen=True)
class Outcome:
    """What became of a task; `name` is that of the task.

    `status` is "done", "skipped" (finished before), "busy" (another process works on it), "failed", "killed"
    (with its worker) or "poisoned" (set aside, because it killed its worker too often).
    """

    name: str
    status: str
    seconds: float = 0.0
    candidates: int | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    worker: str = ""
    attempts: int = 1
    # Whether another attempt may succeed where this one failed.
    again: bool = False
