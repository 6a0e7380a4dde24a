"""`t3ssfast status`: what has become of the tomograms of an output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.detect_runs import say
from t3ssfast.runtime.counted import counted

# Lines of the table where everything goes well.
DONE = ("done", "skipped")


def status(
    out: Annotated[Path, typer.Argument(help="Output folder of detect or submit.", metavar="FOLDER")],
    all_lines: Annotated[
        bool, typer.Option("--all", help="List finished tomograms, too, and not only the others.")
    ] = False,
    tilt_series_pixel_size: options.OptimisationSet = None,
    as_json: options.AsJson = False,
) -> None:
    """Report the state of each tomogram of an output folder.

    It does not matter which processes search them. summary.csv and summary.json are written and, when nothing
    runs or waits, candidates.star with the candidates of all. The exit code is 1 if a tomogram failed.

    \b
    Example:
      t3ssfast status results
    """
    from t3ssfast.cluster.data_set import DataSet
    from t3ssfast.cluster.detect_many import summarise
    from t3ssfast.cluster.ledger import Ledger
    from t3ssfast.cluster.slurm import settle
    from t3ssfast.cluster.slurm_state import JobArray, SlurmError, active_tomograms, queued_states
    from t3ssfast.cluster.summary import table_lines

    data_set = DataSet.open(out)
    arrays = JobArray.recorded(out)
    active: dict[str, str] = {}
    try:
        states = queued_states(arrays)
        settle(Ledger(out), arrays, states)
        active = active_tomograms(arrays, states)
    except SlurmError as error:
        say(f"warning: the state of Slurm's jobs is not known: {error}", err=True)
    summary = data_set.summary(active=active)
    if len(summary.unfinished):
        summary.save()
    else:
        summarise(summary, tilt_series_pixel_size)
    if as_json:
        typer.echo(json.dumps(summary.to_dict()))
    else:
        shown = [row for row in summary.rows if all_lines or row.status not in DONE]
        for line in table_lines(shown) if shown else ():
            say(line)
        counts = ", ".join(f"{count} {status}" for status, count in summary.counts().items())
        say(f"{counted(len(summary.rows), 'tomogram')}: {counts}")
    if len(summary.failed):
        raise typer.Exit(1)
