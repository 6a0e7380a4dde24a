"""`t3ssfast export`: write candidates for another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.candidate_files import above, load, of_kind, renamed
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.runtime.counted import counted


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
            help="Format: relion5, relion4, relion-picks, dynamo, stopgap, imod, copick, csv, coords, em, "
            "chimerax or cmm.",
            show_default="from the suffix of OUT",
        ),
    ] = None,
    input_format: options.InputFormat = None,
    angstrom: options.Angstrom = None,
    columns: options.ColumnNames = None,
    voxel_size: options.CandidateVoxelSize = None,
    tomogram: options.TomogramFile = None,
    membrane: Annotated[
        Path | None,
        typer.Option(help="ChimeraX: membrane mask to open.", show_default="of the results", metavar="FILE"),
    ] = None,
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
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Write the candidates of this kind alone.", show_default="all"),
    ] = None,
    min_score: options.MinScore = None,
    tomogram_name: options.TomogramNames = None,
    as_json: options.AsJson = False,
) -> None:
    """Write candidates for other programs, or as plain tables.

    Programs are RELION, Dynamo, STOPGAP, IMOD, copick, ChimeraX and ArtiaX.

    A ChimeraX script (.cxc) opens --tomogram and --membrane, or those of a folder of results.

    \b
    Examples:
      t3ssfast export out/candidates.star picks.tbl
      t3ssfast export out/candidates.star picks.star -f relion4 --tilt-series-pixel-size 1.7
      t3ssfast export out/ view.cxc
      t3ssfast export out/ Picks/job012/annotations/TS_01_particles.star -f relion-picks
      t3ssfast export picks.txt picks.star --columns class,x,y,z --tomogram TS_01.mrc
    """
    from t3ssfast.io import display_path
    from t3ssfast.io.particles import export as write
    from t3ssfast.io.particles import format_of

    chosen = format or format_of(out)
    if membrane is not None and chosen != "chimerax":
        raise ConfigError(
            f"--membrane: the format is {chosen}, and only ChimeraX scripts open it; leave it out."
        )
    volumes = _volumes_of_results(candidates, tomogram, membrane) if chosen == "chimerax" else {}
    reading = options.ParticleReading(input_format, angstrom, columns)
    found = load(candidates, voxel_size=voxel_size, tomogram=tomogram, tomograms=tomograms, reading=reading)
    if not found:
        raise InputError(
            f"{display_path(candidates)} has no candidates and no voxel size; give --voxel-size to write an "
            "empty file."
        )
    selected = [of_kind(above(some, min_score), kind) for some in renamed(found, tomogram_name)]
    files = write(
        selected,
        out,
        chosen,
        tilt_series_pixel_size_angstrom=tilt_series_pixel_size,
        membrane_frame=membrane_frame,
        companions=companions,
        **volumes,
    )
    count = sum(map(len, selected))
    if as_json:
        typer.echo(json.dumps({"candidates": count, "files": [str(file) for file in files]}))
    else:
        typer.echo(f"wrote {counted(count, 'candidate')} to {' '.join(map(display_path, files))}")


def _volumes_of_results(
    candidates: Path, tomogram: Path | None, membrane: Path | None
) -> dict[str, Path | None]:
    """Return the tomogram and membrane given, or else those of the folder of results that exist."""
    folder = candidates if candidates.is_dir() else candidates.parent
    mask = folder / "membrane.mrc"
    if membrane is None and mask.is_file():
        membrane = mask
    provenance = folder / "provenance.json"
    if tomogram is None and provenance.is_file():
        try:
            path = json.loads(provenance.read_text(encoding="utf-8"))["input"]["path"]
        except (ValueError, KeyError, TypeError):
            path = None
        tomogram = Path(path) if path and Path(path).exists() else None
    return {"tomogram": tomogram, "membrane": membrane}
