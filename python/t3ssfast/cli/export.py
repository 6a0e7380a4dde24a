"""`t3ssfast export`: candidates for another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli.candidate_files import Tomogram, Tomograms, VoxelSize, load


def export(
    candidates: Annotated[
        Path,
        typer.Argument(help="Candidates (.star, .csv, .tbl, .mod, .json, .txt) or a folder of results."),
    ],
    out: Annotated[Path, typer.Argument(help="File to write; for copick the folder of a run.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="relion5, relion4, dynamo, imod, copick, csv or coords; otherwise after the name of OUT.",
        ),
    ] = None,
    voxel_size: VoxelSize = None,
    tomogram: Tomogram = None,
    tomograms: Tomograms = None,
    tilt_series_pixel_size: Annotated[
        float | None,
        typer.Option(
            help="Pixel size of the unbinned tilt series in Angstrom; RELION 4 and --companions need it."
        ),
    ] = None,
    membrane_frame: Annotated[
        bool,
        typer.Option(
            "--membrane-frame", help="RELION: poses as rlnTomoSubtomogramRot/Tilt/Psi, with priors."
        ),
    ] = False,
    companions: Annotated[
        bool,
        typer.Option(
            "--companions",
            help="RELION 5: also tomograms.star, optimisation_set.star and a two-column import.star.",
        ),
    ] = False,
    min_score: Annotated[float, typer.Option(help="Leave out candidates with a lower score.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write candidates for RELION, Dynamo, IMOD or copick, or as plain tables.

    \b
    Example:
      t3ssfast export out/candidates.star picks.star -f relion4 --tilt-series-pixel-size 1.7
    """
    from t3ssfast.errors import InputError
    from t3ssfast.io.particles import export as write
    from t3ssfast.io.particles import format_of

    found = load(candidates, voxel_size=voxel_size, tomogram=tomogram, tomograms=tomograms)
    if not found:
        raise InputError(
            f"{candidates} holds no candidates and no voxel size; give --voxel-size to write an empty file."
        )
    chosen = [some[some.score >= min_score] for some in found]
    files = write(
        chosen,
        out,
        format or format_of(out),
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size,
        membrane_frame=membrane_frame,
        companions=companions,
    )
    count = sum(map(len, chosen))
    if as_json:
        typer.echo(json.dumps({"candidates": count, "files": [str(file) for file in files]}))
    else:
        typer.echo(f"wrote {count} candidates to {' '.join(map(str, files))}")
