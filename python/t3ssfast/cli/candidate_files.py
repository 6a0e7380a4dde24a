"""Candidate files as commands take them: with the tomogram they belong to, or a whole folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates

__all__ = ["Tomogram", "Tomograms", "VoxelSize", "load"]

VoxelSize = Annotated[
    float | None,
    typer.Option(help="Voxel size of the tomogram in Angstrom, where the files do not tell it."),
]
Tomogram = Annotated[
    Path | None,
    typer.Option(help="The tomogram (or a mask of it), for its size and voxel size.", metavar="FILE"),
]
Tomograms = Annotated[
    Path | None, typer.Option(help="RELION tomograms.star with sizes and pixel sizes.", metavar="FILE")
]


def load(
    path: Path,
    *,
    voxel_size: float | None = None,
    tomogram: Path | None = None,
    tomograms: Path | None = None,
    names: tuple[str, ...] = ("candidates.star", "truth.star"),
) -> list[Candidates]:
    """Candidates of every tomogram in a file, or in the first of `names` that a folder holds."""
    from t3ssfast.errors import VoxelSizeError
    from t3ssfast.io import read
    from t3ssfast.io.particles import load_all_candidates

    if path.is_dir():
        path = next((path / name for name in names if (path / name).is_file()), path)
    shape = None
    if tomogram is not None:
        volume = read(tomogram, voxel_size_angstrom=voxel_size)
        shape, voxel_size = volume.shape, volume.voxel_size_angstrom
    try:
        return load_all_candidates(
            path, voxel_size_angstrom=voxel_size, tomogram_shape=shape, tomograms=tomograms
        )
    except VoxelSizeError:
        # A file without a single candidate has nothing that a voxel size would matter to.
        if voxel_size is None and not any(map(len, load_all_candidates(path, voxel_size_angstrom=10.0))):
            return []
        raise
