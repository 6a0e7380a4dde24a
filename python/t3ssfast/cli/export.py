"""`t3ssfast export`: write candidates for another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.candidate_files import above, load, renamed
from t3ssfast.errors import InputError


def export(
    candidates: Annotated[
        Path, typer.Argument(help="Candidates (.star, .csv, .tbl, .mod, .json, .txt) or a folder of results.")
    ],
    out: Annotated[Path, typer.Argument(help="File to write; for copick, the folder of a run.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Format: relion5, relion4, dynamo, imod, copick, csv or coords.",
            show_default="from the suffix of OUT",
        ),
    ] = None,
    voxel_size: options.CandidateVoxelSize = None,
    tomogram: options.TomogramFile = None,
    tomograms: options.RelionTomograms = None,
    tilt_series_pixel_size: Annotated[
        float | None,
        typer.Option(
            help="Pixel size of the unbinned tilt series in Angstrom; required for RELION 4 and --companions."
        ),
    ] = None,
    membrane_frame: Annotated[
        bool,
        typer.Option(
            "--membrane-frame",
            help="RELION: write poses as rlnTomoSubtomogramRot/Tilt/Psi with priors, so that a refinement "
            "can be restrained to the membrane.",
        ),
    ] = False,
    companions: Annotated[
        bool,
        typer.Option(
            "--companions",
            help="RELION 5: also write tomograms.star, optimisation_set.star and a two-column import.star.",
        ),
    ] = False,
    min_score: options.MinScore = None,
    tomogram_name: options.TomogramNames = None,
    as_json: options.AsJson = False,
) -> None:
    """Write candidates for RELION, Dynamo, IMOD or copick, or as plain tables.

    \b
    Examples:
      t3ssfast export out/candidates.star picks.tbl
      t3ssfast export out/candidates.star picks.star -f relion4 --tilt-series-pixel-size 1.7
    """
    from t3ssfast.io import display_path
    from t3ssfast.io.particles import export as write
    from t3ssfast.io.particles import format_of

    found = load(candidates, voxel_size=voxel_size, tomogram=tomogram, tomograms=tomograms)
    if not found:
        raise InputError(
            f"{display_path(candidates)} has no candidates and no voxel size; give --voxel-size to write an "
            "empty file."
        )
    selected = [above(some, min_score) for some in renamed(found, tomogram_name)]
    files = write(
        selected,
        out,
        format or format_of(out),
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size,
        membrane_frame=membrane_frame,
        companions=companions,
    )
    count = sum(map(len, selected))
    if as_json:
        typer.echo(json.dumps({"candidates": count, "files": [str(file) for file in files]}))
    else:
        typer.echo(f"wrote {count} candidates to {' '.join(map(display_path, files))}")
