"""`t3ssfast evaluate`: true and false positives against truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli.candidates import Tomogram, Tomograms, VoxelSize, load

if TYPE_CHECKING:
    from t3ssfast.types import Candidates


def evaluate(
    candidates: Annotated[
        Path,
        typer.Argument(help="Candidates (.star, .csv, .tbl, .mod, .json, .txt) or a folder of results."),
    ],
    truth: Annotated[Path, typer.Argument(help="Known particles, likewise, or a folder of a simulation.")],
    voxel_size: VoxelSize = None,
    tolerance_nm: Annotated[
        float, typer.Option(help="Largest distance of a candidate from the particle it found.")
    ] = 12.0,
    distractors: Annotated[
        Path | None,
        typer.Option(help="Known look-alikes, to name what the false positives sit on.", metavar="FILE"),
    ] = None,
    tomogram: Tomogram = None,
    tomograms: Tomograms = None,
    min_score: Annotated[float, typer.Option(help="Leave out candidates with a lower score.")] = 0.0,
    plot: Annotated[
        Path | None, typer.Option(help="Write the precision-recall curve.", metavar="PNG")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count true and false positives of candidates against truth.

    Files of several tomograms are compared tomogram by tomogram, after their names, and pooled.

    \b
    Example:
      t3ssfast evaluate out/candidates.star simulated/truth.star --plot curve.png
    """
    from t3ssfast.evaluate import evaluate as compare

    def read(path: Path, *names: str) -> list[Candidates]:
        return load(path, voxel_size=voxel_size, tomogram=tomogram, tomograms=tomograms, names=names)

    groups = [
        [some[some.score >= min_score] for some in read(candidates, "candidates.star")],
        read(truth, "truth.star", "candidates.star"),
    ]
    if distractors is not None:
        groups.append(read(distractors, "distractors.star"))
    found, known, *lookalikes = _align(groups)
    result = compare(found, known, tolerance_nm * 10, distractors=lookalikes[0] if lookalikes else None)
    if plot is not None:
        result.plot(plot)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), allow_nan=False))
        return
    from rich.console import Console

    Console().print(result.table())


def _align(groups: Sequence[Sequence[Candidates]]) -> list[list[Candidates]]:
    """One entry for each tomogram in every group; empty ones where a group has none of it.

    Where no group has more than one tomogram they are taken to be the same, whatever their names.
    """
    from t3ssfast.types import Candidates

    if all(len(group) <= 1 for group in groups):
        keyed = [{"": group[0]} if group else {} for group in groups]
    else:
        keyed = [{some.tomogram_name: some for some in group} for group in groups]
    names = list(dict.fromkeys(name for group in keyed for name in group))
    # The voxel size of no candidates has no effect.
    return [[group.get(name, Candidates.empty(10.0)) for name in names] for group in keyed]
