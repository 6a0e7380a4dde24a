"""The candidates of a whole data set in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import display_path, results_folder
from t3ssfast.io.particles import load_candidates
from t3ssfast.io.particles.formats import export

__all__ = ["POOLED_FILE", "pool_candidates", "write_pooled"]

POOLED_FILE = "candidates.star"
COMPANIONS = ("optimisation_set.star", "tomograms.star", "import.star")


def pool_candidates(out: Path, names: Sequence[str]) -> list[Candidates]:
    """Read the candidates of finished tomograms from their folders in `out`.

    They are called after their folders, which differ where tomograms of different folders are named alike.

    Raises
    ------
    ReadError
        If the results of one are missing or damaged.
    """
    return [replace(_candidates_in(out / name), tomogram_name=name) for name in names]


def _candidates_in(folder: Path) -> Candidates:
    try:
        described = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["input"]
        size, (z, y, x) = float(described["voxel_size_angstrom"]), map(int, described["shape_zyx"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(
            f"{display_path(folder)}: its provenance.json is missing or damaged; detect this tomogram again."
        ) from error
    return load_candidates(folder / "candidates.csv", voxel_size_angstrom=size, tomogram_shape=(z, y, x))


def write_pooled(
    out: Path, names: Sequence[str], tilt_series_pixel_size_angstrom: float | None = None
) -> list[Path]:
    """Write candidates.star over all tomograms, RELION 5 particles; without any tomogram, remove it.

    With the pixel size of the unbinned tilt series, RELION's optimisation_set.star, tomograms.star and the
    coordinates for an import are written beside it. Files of an earlier run that no longer hold are removed.
    """
    target = out / POOLED_FILE
    if not names:
        results_folder(out, POOLED_FILE, *COMPANIONS)
        return []
    pooled = pool_candidates(out, names)
    if tilt_series_pixel_size_angstrom is None:
        results_folder(out, *COMPANIONS)
        return export(pooled, target)
    return export(
        pooled, target, tilt_series_pixel_size_angstrom=tilt_series_pixel_size_angstrom, companions=True
    )
