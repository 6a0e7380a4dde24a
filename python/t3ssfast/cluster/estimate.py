"""Estimates of the time that a detection takes, for the time limits of schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t3ssfast.cluster.task import Task
from t3ssfast.errors import T3Error
from t3ssfast.io import read, volume_layout

__all__ = ["chunk_tasks", "estimate_seconds", "limit_minutes"]

# On one core: 88 x 384 x 384 voxels of 13.6 A took 10.7 s on two, most of it in the U-Net.
CORE_SECONDS_PER_VOXEL = 1.7e-6
MODEL_VOXEL_ANGSTROM = 13.6
READ_BYTES_PER_SECOND = 50e6
# Start of Python, models and pictures.
FIXED_SECONDS = 30.0
# A limit that is too short costs a requeue, one that is too long a later start.
SAFETY = 4.0
MIN_MINUTES = 10
# Short tomograms share a job up to this time.
CHUNK_SECONDS = 300.0


def estimate_seconds(task: Task, cores: int) -> float:
    """Estimate the time of a detection on a CPU from the size of its file, roughly.

    A file that cannot be read takes no time.
    """
    path = Path(task.directory, task.path)
    given = task.voxel_size_angstrom
    try:
        size = _bytes_in(path)
        voxels, voxel_size = size, given or MODEL_VOXEL_ANGSTROM
        # Other formats are read as a whole.
        if volume_layout(path).format == "MRC":
            tomogram = read(path, voxel_size_angstrom=given)
            voxels, voxel_size = tomogram.data.size, tomogram.voxel_size_angstrom
    except (OSError, ValueError, T3Error):
        return 0.0
    searched = voxels * (voxel_size / MODEL_VOXEL_ANGSTROM) ** 3
    return searched * CORE_SECONDS_PER_VOXEL / cores + size / READ_BYTES_PER_SECOND


def chunk_tasks(
    tasks: Sequence[Task], cores: int, per_job: int | None = None
) -> list[tuple[float, list[Task]]]:
    """Group tasks into jobs of `per_job`, or of as many as take about five minutes together.

    Returns the estimated seconds and the tasks of each job.
    """
    chunks: list[tuple[float, list[Task]]] = []
    for task in tasks:
        seconds = estimate_seconds(task, cores)
        if chunks:
            total, members = chunks[-1]
            fits = len(members) < per_job if per_job else total + seconds <= CHUNK_SECONDS
            if fits:
                chunks[-1] = (total + seconds, [*members, task])
                continue
        chunks.append((seconds, [task]))
    return chunks


def limit_minutes(seconds: float) -> int:
    """Return a time limit for a job of this estimate."""
    return max(MIN_MINUTES, round((FIXED_SECONDS + seconds * SAFETY) / 60 + 0.5))


def _bytes_in(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
