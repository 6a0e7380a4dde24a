"""Read the candidates that a command is given: a file, or a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from t3ssfast.errors import ConfigError, VoxelSizeError

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.cli.options import ParticleReading

__all__ = ["above", "load", "of_kind", "renamed"]


def load(
    path: Path,
    *,
    voxel_size: float | None = None,
    tomogram: Path | None = None,
    tomograms: Path | None = None,
    names: tuple[str, ...] = ("candidates.star", "truth.star"),
    reading: ParticleReading | None = None,
    verdicts: bool = False,
) -> list[Candidates]:
    """Read the candidates of every tomogram in a file, or in the first of `names` found in a folder.

    The list is empty if the file has no candidates and no voxel size is known. `reading` does not apply to
    t3ssfast's own files, those of `names`. `verdicts` keeps what a curation file rejects.
    """
    from t3ssfast.io import read
    from t3ssfast.io.particles import load_all_candidates

    if path.is_dir():
        path = next((path / name for name in names if (path / name).is_file()), path)
    own = path.name in names
    how = {} if reading is None or own else reading.arguments()
    how["verdicts"] = verdicts
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


def above(candidates: Candidates, min_score: float | None) -> Candidates:
    """Return the candidates of at least a score; all of them where none is given.

    Scores of other programs may be negative, so no minimum is assumed.
    """
    return candidates if min_score is None else candidates[candidates.score >= min_score]


def of_kind(candidates: Candidates, kind: str | None) -> Candidates:
    """Return the candidates of a kind; all of them where none is given, or "all"."""
    return candidates if kind in (None, "all") else candidates.of_kinds(str(kind))


def renamed(
    found: Sequence[Candidates], names: Sequence[str] | None, tomogram: str | None = None
) -> list[Candidates]:
    """Return candidates with the names of `--tomogram-name`: "NAME=OTHER" calls OTHER's candidates NAME.

    "OTHER" alone is the name of `tomogram`, the only one, in the file.
    """
    from t3ssfast.io.particles.particle_file import merge_candidates
    from t3ssfast.io.tomogram_names import same_name

    renames: list[tuple[str, str]] = []
    for text in names or ():
        name, equals, other = text.partition("=")
        if not equals:
            if tomogram is None:
                raise ConfigError(
                    f"--tomogram-name {text}: it is not said which tomogram is called so; give NAME={text}."
                )
            name, other = tomogram, text
        renames.append((name.strip(), other.strip()))
    by_name: dict[str, list[Candidates]] = {}
    for some in found:
        own = some.tomogram_name
        called = next((name for name, other in renames if same_name(other, own)), own)
        by_name.setdefault(called, []).append(some)
    return [
        replace(merge_candidates(parts) if len(parts) > 1 else parts[0], tomogram_name=name)
        for name, parts in by_name.items()
    ]
