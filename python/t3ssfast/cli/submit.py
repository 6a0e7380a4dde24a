"""`t3ssfast submit`: T3SS in many tomograms on Slurm, without waiting; or a script for other schedulers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from t3ssfast.cli import options
from t3ssfast.cli.clusters import slurm_options
from t3ssfast.cli.detect import detect
from t3ssfast.cli.detections import detections_of
from t3ssfast.cli.job_script import given_arguments, write_script
from t3ssfast.errors import ConfigError
from t3ssfast.runtime.counted import counted

# Options of detect that belong to a run that waits.
NOT_HERE = ("cluster", "shard", "as_json", "tilt_series_pixel_size", "retries", "sbatch")
OWN = ("template", "shards", "parallel", "per_job", "sbatch")


@options.with_options_of(detect, without=NOT_HERE)
def submit(
    context: typer.Context,
    *,
    retries: options.Retries = 2,
    sbatch: options.Sbatch = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Largest number of jobs that run at a time.", show_default="256")
    ] = None,
    per_job: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of tomograms of one job.",
            show_default="one, or as many short ones as take five minutes",
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            help="Write a script for the job array of another scheduler (PBS, LSF, Grid Engine, HTCondor) "
            "instead of submitting to Slurm.",
            metavar="FILE",
        ),
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Number of jobs of the script of --template.")] = 20,
    **detection: Any,
) -> None:
    """Search many tomograms on Slurm without waiting for it.

    Submits a job array and returns. `t3ssfast status FOLDER` tells what has become of the tomograms, and the
    same command again submits what is missing: not finished, not in the queue, and not set aside because it
    ended its process three times.

    \b
    Examples:
      t3ssfast submit tomograms/ -o results --sbatch partition=cpu --sbatch account=lab
      t3ssfast status results
      t3ssfast submit tomograms/ -o results --template job.sh --shards 50
    """
    from t3ssfast.cluster.data_set import DataSet
    from t3ssfast.cluster.detect_many import check_detections
    from t3ssfast.cluster.ledger import Ledger
    from t3ssfast.cluster.slurm import missing_tasks, require_slurm, settle, submit_arrays
    from t3ssfast.cluster.slurm_state import JobArray, active_tomograms, queued_states
    from t3ssfast.io import display_path

    detections, _ = detections_of(many=True, **detection)
    check_detections(detections, here=False)
    tasks = [one.task() for one in detections]
    out = tasks[0].folder.parent
    if template is not None:
        if sbatch:
            raise ConfigError("--sbatch: it is for Slurm; write what your scheduler needs into the script.")
        count = min(shards, len(tasks))
        arguments = given_arguments(context, without=OWN)
        write_script(template, arguments, detection["out"], count)
        typer.echo(f"wrote {display_path(template)} for {count} jobs; its first lines say how to submit it")
        return
    slurm = slurm_options(sbatch or (), parallel, per_job)
    require_slurm()
    arrays = JobArray.recorded(out)
    states = queued_states(arrays)
    data_set = DataSet.record(out, tasks)
    settle(Ledger(out), arrays, states)
    active = active_tomograms(arrays, states)
    missing = missing_tasks(tasks, active)
    submitted = submit_arrays(missing, slurm, retries=retries) if missing else []
    jobs = sum(len(array.elements) for array in submitted)
    names = ", ".join(array.job for array in submitted)
    typer.echo(
        f"submitted {len(missing)} of {counted(len(tasks), 'tomogram')}"
        + (f" as {counted(jobs, 'job')} of array {names}" if submitted else "")
    )
    active |= active_tomograms(submitted, queued_states(submitted)) if submitted else {}
    counts = data_set.summary(names=[task.name for task in tasks], active=active).counts()
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    typer.echo(f"see what becomes of them: t3ssfast status {display_path(detection['out'])}")
