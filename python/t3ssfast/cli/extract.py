"""`t3ssfast extract`: extract subtomograms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import matched_particles as options
from t3ssfast.cli.candidate_files import Tomograms as RelionTomograms
from t3ssfast.cli.candidate_files import VoxelSize


def extract(
    tomograms: options.Tomograms,
    candidates: options.CandidateFiles,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    box: options.Box = None,
    box_nm: options.BoxNm = None,
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
    contrast: options.Contrast = "dark",
    normalise: Annotated[
        str, typer.Option(help='"zscore" (mean 0, standard deviation 1), "mean" (mean 0) or "none".')
    ] = "zscore",
    tilt_range: options.TiltRange = (-60.0, 60.0),
    voxel_size: VoxelSize = None,
    relion_tomograms: RelionTomograms = None,
    min_score: options.MinScore = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Extract a subtomogram around each candidate, protein bright, and write a particles.star.

    \b
    Example:
      t3ssfast extract TS_01.mrc --candidates results/candidates.star --box 64 -o boxes
    """
    from t3ssfast.averaging.extract import box_positions, box_voxels
    from t3ssfast.averaging.extract import extract as extract_boxes
    from t3ssfast.averaging.subtomogram_files import save_subtomograms
    from t3ssfast.io import display_path

    volumes, matched = options.read_matched(
        tomograms, candidates, voxel_size=voxel_size, relion_tomograms=relion_tomograms, min_score=min_score
    )
    size = volumes[0].voxel_size_angstrom if box_voxel_size is None else box_voxel_size
    n = box_voxels(box, box_nm, size)
    boxes, positions = [], []
    for volume, some in zip(volumes, matched, strict=True):
        positions.append(box_positions(volume, some, n, voxel_size_angstrom=size, edge=edge))
        boxes.append(
            extract_boxes(
                volume, some, n, voxel_size_angstrom=size, edge=edge, contrast=contrast, normalise=normalise
            )
        )
    files = save_subtomograms(
        out, boxes, matched, positions, size, format=format, tilt_range_degrees=tilt_range
    )
    count = sum(map(len, boxes))
    if as_json:
        report = {"boxes": count, "box": n, "voxel_size_angstrom": size, "files": [str(f) for f in files]}
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"wrote {count} boxes of {n} voxels to {display_path(out)}")
