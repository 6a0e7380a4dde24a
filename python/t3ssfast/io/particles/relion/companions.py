"""What RELION 5 wants beside a particles file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, OutputError
from t3ssfast.io import display_path
from t3ssfast.io.particles.relion.columns import BINNING, COORDINATE, IMPORT_FILE, PIXEL_SIZES, SIZE
from t3ssfast.io.particles.relion.tables import star_name, write_star
from t3ssfast.io.particles.relion.writing import binning_of, particles_of

__all__ = ["write_companions"]


def write_companions(
    path: Path, candidates: Sequence[Candidates], *, tilt_series_pixel_size_angstrom: float | None
) -> list[Path]:
    """Write what RELION 5 wants beside a particles file, in its folder.

    tomograms.star (sizes in pixels of the tilt series, binning), optimisation_set.star (the two files), and
    import.star: two columns, each tomogram's name and a star file of its own in coordinates/, with positions
    in unbinned voxels, for RELION's import of coordinates. File names are as `path` was given: RELION looks
    for them from the project's folder.

    Returns
    -------
    The files written.

    Raises
    ------
    ConfigError
        Without the pixel size of the tilt series or the size of a tomogram, or where `path` has the name of
        one of them.
    """
    folder = path.parent
    names = ("tomograms.star", "optimisation_set.star", "import.star")
    if path.name in names:
        raise ConfigError(
            f"{display_path(path)} would be overwritten by RELION's own {path.name}; change the name."
        )
    rows = []
    for some in candidates:
        unbinned, binning = binning_of(some, tilt_series_pixel_size_angstrom, "RELION 5's tomograms.star")
        if some.tomogram_shape is None:
            raise ConfigError(
                f"tomograms.star tells the size of {some.tomogram_name!r}, which is not known; give "
                "candidates with a tomogram_shape (--tomogram FILE)."
            )
        size = [round(n * binning) for n in some.tomogram_shape[::-1]]
        row: dict[str, Any] = {
            "rlnTomoName": star_name(some.tomogram_name),
            PIXEL_SIZES[0]: unbinned,
            BINNING: binning,
        }
        rows.append(row | dict(zip(SIZE, size, strict=True)))
    files = [
        f"{number:03d}_{_file_name(some.tomogram_name)}.star" for number, some in enumerate(candidates, 1)
    ]
    try:
        (folder / "coordinates").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{display_path(folder / 'coordinates')} cannot be made a folder "
            f"({error.strerror}); choose another."
        ) from error
    imports = []
    for row, some, file in zip(rows, candidates, files, strict=True):
        target = folder / "coordinates" / file
        position = some.centre_zyx.astype(np.float64) * row[BINNING]
        table = particles_of(some, COORDINATE, position, False).assign(
            **{PIXEL_SIZES[0]: row[PIXEL_SIZES[0]]}
        )
        write_star(target, {"particles": table})
        imports.append({"rlnTomoName": row["rlnTomoName"], IMPORT_FILE: str(target)})
    targets = [folder / name for name in names]
    write_star(targets[0], {"global": pd.DataFrame(rows)})
    both = {"rlnTomoParticlesFile": [str(path)], "rlnTomoTomogramsFile": [str(targets[0])]}
    write_star(targets[1], {"optimisation_set": pd.DataFrame(both)})
    write_star(targets[2], {"particles": pd.DataFrame(imports)})
    return [*targets, *(folder / "coordinates" / file for file in files)]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)[:80] or "tomogram"
