"""`--cluster` and `--shard`: where the tomograms of a command are searched, and which of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t3ssfast.cli import options
from t3ssfast.cli.detect_runs import say
from t3ssfast.errors import ConfigError

if TYPE_CHECKING:
    from t3ssfast.cluster.slurm import SlurmOptions
    from t3ssfast.cluster.summary import DetectionSummary
    from t3ssfast.cluster.tomogram_detection import TomogramDetection

__all__ = ["parse_shard", "run_on_cluster", "slurm_options"]

CONNECT_SECONDS = 10


def run_on_cluster(
    detections: Sequence[TomogramDetection],
    cluster: str,
    *,
    sbatch: Sequence[str] | None,
    retries: int,
    shard: str | None,
    quiet: bool,
    tilt_series_pixel_size: float | None,
) -> DetectionSummary:
    """Run detections where `--cluster` says, and return their summary."""
    from t3ssfast.cluster.detect_many import run_data_set

    executor, workers = _executor(cluster, sbatch or ())

    def tell(text: str, problem: bool) -> None:
        if problem or not quiet:
            say(text, err=problem)

    return run_data_set(
        detections,
        executor=executor,
        workers=workers,
        retries=retries,
        table=not quiet,
        say=tell,
        shard=(1, 1) if shard is None else parse_shard(shard),
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size,
    )


def _executor(cluster: str, sbatch: Sequence[str]) -> tuple[Any, int]:
    """Return the executor that `--cluster` names, and the number of local workers."""
    kind, _, rest = cluster.partition(":")
    if kind != "slurm" and sbatch:
        raise ConfigError(f"--sbatch {sbatch[0]}: it is for Slurm only; give --cluster slurm.")
    if kind == "slurm" and re.fullmatch(r"|[1-9]\d{0,4}", rest):
        return slurm_options(sbatch, int(rest) if rest else None), 1
    if kind == "dask" and rest:
        return _dask_client(rest), 1
    if kind == "local" and re.fullmatch(r"[1-9]\d{0,3}", rest):
        return None, int(rest)
    raise ConfigError(
        f"--cluster {cluster}: not understood; give local:N with a number of processes, slurm, slurm:N with "
        "a number of jobs, or dask:ADDRESS with the address of a scheduler."
    )


def slurm_options(
    sbatch: Sequence[str], parallel: int | None = None, per_job: int | None = None
) -> SlurmOptions:
    """Return how to submit, with the options of `--sbatch`."""
    from t3ssfast.cluster.slurm import SlurmOptions

    given = dict(text.partition("=")[::2] for text in sbatch)
    if "" in given:
        raise ConfigError("--sbatch: there is no name before the =; give KEY=VALUE, such as partition=gpu.")
    chosen = options.given_options(parallel=parallel, per_job=per_job)
    return SlurmOptions(sbatch=given, **chosen)


def _dask_client(address: str) -> Any:
    """Connect to a scheduler of dask."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "--cluster dask needs dask's distributed, which is not installed; pip install 't3ssfast[dask]'."
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"--cluster dask:{address}: no scheduler of dask answers there; give the address that "
            "`dask scheduler` prints, such as dask:tcp://host:8786."
        ) from error


def parse_shard(text: str) -> tuple[int, int]:
    """Return I and N of "I/N"."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text}: not understood; give I/N with I from 1 to N, such as 1/20.")
    return int(match[1]), int(match[2])
