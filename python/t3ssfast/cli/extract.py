"""`t3ssfast extract`: boxes about candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli.candidate_files import Tomograms as RelionTomograms
from t3ssfast.cli.candidate_files import VoxelSize
from t3ssfast.cli.matched_particles import Box, BoxNm, CandidateFiles, Contrast, Tilt, Tomograms, matched


def extract(
    tomograms: Tomograms,
    candidates: CandidateFiles,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    box: Box = None,
    box_nm: BoxNm = None,
    format: Annotated[
        str,
        typer.Option("--format", "-f", help='"stack": one MRC stack; "relion": a file a particle.'),
    ] = "stack",
    box_voxel_size: Annotated[
        float | None,
        typer.Option(help="Voxel size of the boxes in Angstrom; otherwise the tomogram's.", metavar="A"),
    ] = None,
    edge: Annotated[
        str,
        typer.Option(help='Boxes beyond the tomogram: "reflect" or "mean" fill, "drop", "error".'),
    ] = "reflect",
    contrast: Contrast = "dark",
    normalise: Annotated[
        str, typer.Option(help='"zscore" (mean 0, deviation 1), "mean" (mean 0) or "none".')
    ] = "zscore",
    tilt_range: Tilt = (-60.0, 60.0),
    voxel_size: VoxelSize = None,
    relion_tomograms: RelionTomograms = None,
    min_score: Annotated[float, typer.Option(help="Leave out candidates with a lower score.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Cut boxes about candidates, protein bright, and write them with a particles.star.

    \b
    Example:
      t3ssfast extract TS_01.mrc --candidates results/candidates.star --box 64 -o boxes
    """
    from t3ssfast.averaging.extract import box_voxels, place
    from t3ssfast.averaging.extract import extract as cut
    from t3ssfast.averaging.subtomogram_files import save_subtomograms
    from t3ssfast.io import display_path

    volumes, found = matched(
        tomograms,
        candidates,
        voxel_size=voxel_size,
        relion_tomograms=relion_tomograms,
        min_score=min_score,
    )
    size = volumes[0].voxel_size_angstrom if box_voxel_size is None else box_voxel_size
    n = box_voxels(box, box_nm, size)
    placements = [
        place(volume, some, n, voxel_size_angstrom=size, edge=edge)
        for volume, some in zip(volumes, found, strict=True)
    ]
    boxes = [
        cut(
            volume,
            some,
            n,
            voxel_size_angstrom=size,
            edge=edge,
            contrast=contrast,
            normalise=normalise,
        )
        for volume, some in zip(volumes, found, strict=True)
    ]
    files = save_subtomograms(
        out, boxes, found, placements, size, format=format, tilt_range_degrees=tilt_range
    )
    count = sum(map(len, boxes))
    if as_json:
        report = {"boxes": count, "box": n, "voxel_size_angstrom": size, "files": [str(f) for f in files]}
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"wrote {count} boxes of {n} voxels to {display_path(out)}")
