"""`t3ssfast extract`: extract subtomograms."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from t3ssfast.cli import options
from t3ssfast.cli.matched_particles import (
    Box,
    BoxNm,
    CandidateFiles,
    TiltRange,
    candidates_of_each,
    contrast_of_each,
    read_matched,
)
from t3ssfast.cli.tomogram_lists import find_tomograms
from t3ssfast.runtime.counted import counted


def extract(
    tomograms: options.Tomograms,
    candidates: CandidateFiles,
    out: options.OutFolder,
    box: Box = None,
    box_nm: BoxNm = None,
    format: Annotated[
        str, typer.Option("--format", "-f", help='"stack": one MRC stack; "relion": one file per particle.')
    ] = "stack",
    box_voxel_size: Annotated[
        float | None,
        typer.Option(help="Voxel size of the boxes in Angstrom; default: the tomogram's.", metavar="A"),
    ] = None,
    edge: Annotated[
        str, typer.Option(help='Boxes that extend beyond the tomogram: "reflect", "mean", "drop" or "error".')
    ] = "reflect",
    contrast: options.AutoContrast = None,
    normalise: Annotated[
        str, typer.Option(help='"zscore" (mean 0, standard deviation 1), "mean" (mean 0) or "none".')
    ] = "zscore",
    tilt_range: TiltRange = (-60.0, 60.0),
    input_format: options.InputFormat = None,
    angstrom: options.Angstrom = None,
    columns: options.ColumnNames = None,
    voxel_size: options.VoxelSize = None,
    relion_tomograms: options.TomogramsOfParticles = None,
    min_score: options.MinScore = None,
    tomogram_name: options.TomogramNames = None,
    as_json: options.AsJson = False,
) -> None:
    """Extract a subtomogram around each candidate.

    Protein is bright in it. particles.star lists all of them.

    The contrast is that of the detection whose folder holds the candidates, or is looked for as a detection
    does.

    \b
    Example:
      t3ssfast extract TS_01.mrc --candidates results/candidates.star --box 64 -o boxes
    """
    from t3ssfast.averaging import extract as extraction
    from t3ssfast.averaging.subtomogram_files import save_subtomograms
    from t3ssfast.io import display_path

    reading = options.ParticleReading(input_format, angstrom, columns)
    tomograms, _ = find_tomograms(tomograms)
    candidates = candidates_of_each(tomograms, candidates)
    volumes, matched = read_matched(
        tomograms, candidates, voxel_size, relion_tomograms, min_score, tomogram_name, reading
    )
    contrasts = contrast_of_each(volumes, candidates, contrast or "auto")
    size = volumes[0].voxel_size_angstrom if box_voxel_size is None else box_voxel_size
    n = extraction.box_voxels(box, box_nm, size)
    cut: dict[str, Any] = {"voxel_size_angstrom": size, "edge": edge}
    boxes, positions = [], []
    for volume, some, sign in zip(volumes, matched, contrasts, strict=True):
        positions.append(extraction.box_positions(volume, some, n, **cut))
        boxes.append(extraction.extract(volume, some, n, contrast=sign, normalise=normalise, **cut))
    files = save_subtomograms(
        out, boxes, matched, positions, size, format=format, tilt_range_degrees=tilt_range
    )
    count = sum(map(len, boxes))
    if as_json:
        report = {"boxes": count, "box": n, "voxel_size_angstrom": size, "files": [str(f) for f in files]}
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"wrote {counted(count, 'box', 'boxes')} of {n} voxels to {display_path(out)}")
