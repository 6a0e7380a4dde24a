"""Options of `extract` and `average`, and the matching of tomograms with their candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli.candidate_files import load

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.cli.options import ParticleReading
    from t3ssfast.tomogram import Tomogram

CandidateFiles = Annotated[
    list[Path],
    typer.Option(
        "--candidates",
        "-c",
        help="Candidates: one file or results folder per tomogram, in the same order, or a single file for "
        "all tomograms, matched by name.",
        metavar="FILE",
    ),
]
Box = Annotated[int | None, typer.Option(help="Edge of the boxes in voxels.", metavar="N")]
BoxNm = Annotated[float | None, typer.Option(help="Edge of the boxes in nm.", metavar="NM")]
TiltRange = Annotated[
    tuple[float, float],
    typer.Option(help="Lowest and highest tilt angle about y, degrees.", metavar="LOW HIGH"),
]


def read_matched(
    tomograms: list[Path],
    candidate_files: list[Path],
    voxel_size: float | None,
    relion_tomograms: Path | None,
    min_score: float,
    reading: ParticleReading | None = None,
) -> tuple[list[Tomogram], list[Candidates]]:
    """Read tomograms and the candidates of each; candidates of other tomograms are ignored."""
    from t3ssfast.errors import InputError
    from t3ssfast.io import display_path, read

    volumes = [read(path, voxel_size_angstrom=voxel_size) for path in tomograms]
    if len(candidate_files) not in (1, len(volumes)):
        raise InputError(
            f"{len(candidate_files)} files of candidates were given for {len(volumes)} tomograms; give "
            "one for each, or one for all."
        )
    matched: list[Candidates] = []
    for index, (path, volume) in enumerate(zip(tomograms, volumes, strict=True)):
        file = candidate_files[index if len(candidate_files) > 1 else 0]
        size = volume.voxel_size_angstrom
        sets = load(file, voxel_size=size, tomogram=path, tomograms=relion_tomograms, reading=reading)
        chosen = [some for some in sets if some.tomogram_name == volume.name]
        if not chosen and len(sets) == 1 and len(volumes) in (1, len(candidate_files)):
            chosen = sets  # A file for a single tomogram belongs to it, whatever name it holds.
        if not chosen:
            names = ", ".join(repr(some.tomogram_name) for some in sets[:5]) or "none"
            raise InputError(
                f"{display_path(file)} holds no candidates of {volume.name!r}, only of {names}; give one "
                "file per tomogram, in the same order."
            )
        matched.append(chosen[0][chosen[0].score >= min_score])
    return volumes, matched
