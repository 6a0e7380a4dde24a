"""`--cluster` and `--shard`: where the tomograms of a command are searched, and which of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t3ssfast.cli.detect_runs import say
from t3ssfast.errors import ConfigError

if TYPE_CHECKING:
    from t3ssfast.cluster.summary import DetectionSummary
    from t3ssfast.cluster.task import DetectTask

__all__ = ["parse_shard", "run_on_cluster"]


def run_on_cluster(
    tasks: Sequence[DetectTask],
    cluster: str,
    *,
    sbatch: Sequence[str] | None,
    retries: int,
    shard: str | None,
    quiet: bool,
    tilt_series_pixel_size: float | None,
) -> DetectionSummary:
    """Run tasks where `--cluster` says, and return their summary."""
    from t3ssfast.cluster.detect_many import run_data_set
    from t3ssfast.cluster.display import Display

    executor, workers = _executor(cluster, sbatch or ())

    def tell(text: str, problem: bool) -> None:
        if problem or not quiet:
            say(text, err=problem)

    return run_data_set(
        tasks,
        executor=executor,
        workers=workers,
        retries=retries,
        display=Display(tasks, table=not quiet, say=tell),
        shard=(1, 1) if shard is None else parse_shard(shard),
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size,
    )


def _executor(cluster: str, sbatch: Sequence[str]) -> tuple[Any, int]:
    """Return the executor that `--cluster` names, and the number of local workers."""
    kind, _, rest = cluster.partition(":")
    if kind != "slurm" and sbatch:
        raise ConfigError(f"--sbatch {sbatch[0]}: it is for Slurm only; give --cluster slurm.")
    if kind == "local" and re.fullmatch(r"[1-9]\d{0,3}", rest):
        return None, int(rest)
    raise ConfigError(
        f"--cluster {cluster}: not understood; give local:N with a number of processes, slurm, slurm:N with "
        "a number of jobs, or dask:ADDRESS with the address of a scheduler."
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Return I and N of "I/N"."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text}: not understood; give I/N with I from 1 to N, such as 1/20.")
    return int(match[1]), int(match[2])
