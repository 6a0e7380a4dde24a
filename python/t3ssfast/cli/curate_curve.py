"""`t3ssfast curate-curve`: labels against F1, by suggestion, at random, and best first."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from t3ssfast.cli import options


def curate_curve(
    out: options.OutFolder,
    labels: Annotated[
        list[int] | None,
        typer.Option("--labels", min=6, help="Number of verdicts; repeatable.", show_default="16 32 64"),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", min=0, help="Random seed; repeatable.", show_default="0"),
    ] = None,
    tomograms: Annotated[int, typer.Option(min=1, help="Number of tomograms to judge.")] = 6,
    held_out: Annotated[int, typer.Option(min=1, help="Number of other tomograms to measure on.")] = 4,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation of a fine-tuning.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of a fine-tuning.")] = 60,
    domain: Annotated[
        str,
        typer.Option(
            help='"few labels", or a condition from the table of conditions, such as "2 um defocus".'
        ),
    ] = "few labels",
    lowest_score: Annotated[
        float, typer.Option(min=0, max=1, help="Score from which candidates are judged.")
    ] = 0.01,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of points to measure in this call.", show_default="all")
    ] = None,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Measure which candidates are best judged first.

    Suggested, random and best-scored candidates are compared by F1 after fine-tuning on the verdicts. A
    simulated annotator, 5% of whose verdicts are wrong, judges candidates in a simulated domain that the
    bundled models were not trained on. A point takes some CPU minutes. Points are kept in the folder: the
    same command again measures what is missing, with --limit as many as there is time for.

    \b
    Example:
      t3ssfast curate-curve -o curve --labels 16 --labels 32 --seed 0 --seed 1
    """
    from t3ssfast.curation.curve import CurveSettings, curate_curve

    rows = curate_curve(
        out,
        labels=labels or (16, 32, 64),
        seeds=seeds or (0,),
        settings=CurveSettings(tomograms, held_out, folds, steps, domain, lowest_score),
        limit=limit,
        device=device,
        log=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    head = ("chosen", "labels", "seed", "accepted", "rejected", "F1", "precision", "recall", "AP", "CPU s")
    names = ("strategy", "labels", "seed", "accepted", "rejected")
    metrics = ("f1", "precision", "recall", "average_precision")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        counts = tuple(str(row.get(name, "")) for name in names)
        values = tuple(f"{row[name]:.2f}" for name in metrics)
        refused = " (refused)" if row.get("refused") else ""
        lines.append((*counts, *values, f"{row['cpu_seconds']:.0f}{refused}"))
    for line in lines:
        typer.echo("".join(f"{cell:<11}" for cell in line).rstrip())
