"""Read the candidates that a command is given: a file, or a folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t3ssfast.errors import VoxelSizeError

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.cli.options import ParticleReading

__all__ = ["load"]


def load(
    path: Path,
    *,
    voxel_size: float | None = None,
    tomogram: Path | None = None,
    tomograms: Path | None = None,
    names: tuple[str, ...] = ("candidates.star", "truth.star"),
    reading: ParticleReading | None = None,
) -> list[Candidates]:
    """Read the candidates of every tomogram in a file, or in the first of `names` found in a folder.

    The list is empty if the file has no candidates and no voxel size is known. `reading` does not apply to
    t3ssfast's own files, those of `names`.
    """
    from t3ssfast.io import read
    from t3ssfast.io.particles import load_all_candidates

    if path.is_dir():
        path = next((path / name for name in names if (path / name).is_file()), path)
    own = path.name in names
    how = {} if reading is None or own else reading.arguments()
    shape = None
    if tomogram is not None:
        volume = read(tomogram, voxel_size_angstrom=voxel_size)
        shape, voxel_size = volume.shape, volume.voxel_size_angstrom
    try:
        return load_all_candidates(
            path, voxel_size_angstrom=voxel_size, tomogram_shape=shape, tomograms=tomograms, **how
        )
    except VoxelSizeError:
        # An empty file does not need a voxel size; any will do to find out whether it is empty.
        if voxel_size is None and not any(
            map(len, load_all_candidates(path, voxel_size_angstrom=10.0, **how))
        ):
            return []
        raise
