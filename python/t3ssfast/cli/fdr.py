"""`t3ssfast fdr`: one threshold for a data set, from the decoys of its detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.runtime.counted import counted


def fdr(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Result folders of t3ssfast detect --fdr, or folders of them.",
            show_default=False,
            readable=False,
        ),
    ],
    max_fdr: Annotated[
        float, typer.Option("--fdr", help="False-discovery rate over all tomograms, 0 to 1.")
    ] = 0.05,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Output folder, with one subfolder per tomogram.", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Find the threshold for a false-discovery rate, without labels.

    The tomograms of a data set are pooled, and get one threshold.

    Reads the decoys that t3ssfast detect --fdr kept beside its results; nothing is searched again. Pool only
    tomograms of one kind. With -o, candidates.star, .csv, .mod and .tbl of each tomogram are written anew.

    \b
    Examples:
      t3ssfast detect tomograms/ -o results --fdr 0.05
      t3ssfast fdr results -o pooled
    """
    from t3ssfast.detection.pool import pool_fdr

    pooled = pool_fdr(_result_folders(folders), max_fdr)
    if out is not None:
        pooled.save(out)
    if as_json:
        typer.echo(json.dumps(pooled.to_dict()))
        return
    found = pooled.threshold
    typer.echo(
        f"{counted(found.candidates, 'candidate')} in {counted(found.tomograms, 'tomogram')}; "
        f"estimated false-discovery rate {found.estimate:.3f} "
        f"(95% interval {found.low:.3f}-{found.high:.3f}), asked {found.asked:g}"
    )
    if found.note:
        typer.echo(f"warning: {found.note}", err=True)
    for some in pooled.candidates:
        typer.echo(f"{some.tomogram_name}: {len(some)}")


def _result_folders(given: list[Path]) -> list[Path]:
    """The folders given, and for one without a result the result folders in it."""
    folders: list[Path] = []
    for path in given:
        inner = sorted(p.parent for p in path.glob("*/provenance.json"))
        folders += [path] if (path / "provenance.json").is_file() or not inner else inner
    return folders
