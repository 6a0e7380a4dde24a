"""Tomograms and the candidates that belong to them, as `extract` and `average` take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli.candidate_files import load

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.tomogram import Tomogram

__all__ = ["Box", "BoxNm", "CandidateFiles", "Contrast", "Tilt", "Tomograms", "matched"]

Tomograms = Annotated[
    list[Path],
    typer.Argument(help="Tomograms (.mrc, .rec, .map, also .gz and .bz2; OME-Zarr).", show_default=False),
]
CandidateFiles = Annotated[
    list[Path],
    typer.Option(
        "--candidates",
        "-c",
        help="Candidates: a file or folder of results for each tomogram, in their order, or one file of "
        "all, matched by the tomograms' names.",
        metavar="FILE",
    ),
]
Box = Annotated[int | None, typer.Option(help="Edge of the boxes in voxels.", metavar="N")]
BoxNm = Annotated[float | None, typer.Option(help="Edge of the boxes in nm, instead.", metavar="NM")]
Contrast = Annotated[str, typer.Option(help='Protein in the tomograms is "dark" or "light".')]
Tilt = Annotated[
    tuple[float, float],
    typer.Option(help="Lowest and highest tilt in degrees, about y.", metavar="LOW HIGH"),
]


def matched(
    tomograms: list[Path],
    files: list[Path],
    *,
    voxel_size: float | None,
    relion_tomograms: Path | None,
    min_score: float,
) -> tuple[list[Tomogram], list[Candidates]]:
    """Each tomogram, and its candidates; candidates of other tomograms are left aside."""
    from t3ssfast.errors import InputError
    from t3ssfast.io import display_path, read

    volumes = [read(path, voxel_size_angstrom=voxel_size) for path in tomograms]
    if len(files) not in (1, len(volumes)):
        raise InputError(
            f"{len(files)} files of candidates were given for {len(volumes)} tomograms; give one for each, "
            "or one for all."
        )
    found: list[Candidates] = []
    for index, (path, volume) in enumerate(zip(tomograms, volumes, strict=True)):
        file = files[index if len(files) > 1 else 0]
        several = load(
            file,
            voxel_size=volume.voxel_size_angstrom,
            tomogram=path,
            tomograms=relion_tomograms,
        )
        named = [some for some in several if some.tomogram_name == volume.name]
        # A file of a single tomogram needs no name to be understood.
        chosen = named or (several if len(several) == 1 and len(volumes) in (1, len(files)) else [])
        if not chosen:
            names = ", ".join(repr(some.tomogram_name) for some in several[:5]) or "none"
            raise InputError(
                f"{display_path(file)} holds no candidates of {volume.name!r}, only of "
                f"{names}; give one file for "
                "each tomogram, in their order."
            )
        found.append(chosen[0][chosen[0].score >= min_score])
    return volumes, found
