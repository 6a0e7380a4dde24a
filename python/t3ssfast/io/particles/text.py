"""Writing of csv files, and text files of points.

csv: z, y, x, score, normal_z, normal_y, normal_x, rot, tilt, psi (0-based voxels, degrees), kind, tomogram,
voxel_size_angstrom; `t3ssfast.io.particles.tables` reads them. Text points: a line per particle, separated by
blanks, tabs, commas or semicolons, in one of these widths:

- 3: x y z in 0-based voxels; t3ssfast writes these after a comment with the voxel size;
- 4: class x y z in 0-based voxels, as DeepETPicker writes (cbmi-group/DeepETPicker, .coords), unless the
  first number counts the lines;
- 5: object contour x y z in IMOD's coordinates, as IMOD's `model2point -object` writes;
- any other: only if the columns are named by the caller or in the first line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile, kinds_of_classes, printable
from t3ssfast.io.particles.tables import FORMULA, candidates_of_table

__all__ = [
    "FIRST_VOXEL_XYZ",
    "csv_table",
    "escape_formula",
    "read_coords",
    "read_imod_points",
    "write_coords",
    "write_csv",
]

# IMOD's coordinates of the centre of the first voxel.
FIRST_VOXEL_XYZ = np.array([0.5, 0.5, 0.0])
COORDS_COMMENT = re.compile(r"voxel size (\d+(?:\.\d*)?(?:[eE][+-]?\d+)?) Angstrom(?:; tomogram (.+))?")
SEPARATORS = re.compile(r"[,;\t]")
# Larger numbers in the first column are more likely positions than classes, objects or contours.
MAX_LABEL = 1000


def write_csv(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write a csv file of one or more tomograms; see `t3ssfast.io.particles.export`."""
    with atomic_path(path) as temporary:
        csv_table(candidates).to_csv(temporary, index=False, encoding="utf-8")


def csv_table(candidates: Sequence[Candidates]) -> pd.DataFrame:
    """Return the rows of a csv file, with texts that spreadsheets take for texts."""
    tables = []
    for of_tomogram in candidates:
        table = of_tomogram.to_dataframe()
        table["tomogram"] = [of_tomogram.tomogram_name] * len(of_tomogram)
        for name in table.columns:
            if not pd.api.types.is_numeric_dtype(table[name]):
                table[name] = [escape_formula(str(value)) for value in table[name]]
        tables.append(table.assign(voxel_size_angstrom=of_tomogram.voxel_size_angstrom))
    # Tables of tomograms without a verdict lack the column of verdicts.
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    if "label" in whole:
        whole["label"] = whole["label"].fillna("")
    return whole


def escape_formula(name: str) -> str:
    """Mark a name that spreadsheets would evaluate as text; replace characters that end a line or text."""
    name = re.sub(r"[\0\r\n]", "_", name)
    return f"'{name}" if FORMULA.match(name) else name


def write_coords(path: Path, candidates: Candidates) -> None:
    """Write text points; see `t3ssfast.io.particles.export`."""
    size, name = f"{candidates.voxel_size_angstrom:.9g}", printable(candidates.tomogram_name)
    lines = [f"# x y z in voxels from 0; voxel size {size} Angstrom; tomogram {name}\n"]
    lines += [f"{x:.4f} {y:.4f} {z:.4f}\n" for z, y, x in candidates.centre_zyx.tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_coords(file: ParticleFile) -> list[Candidates]:
    """Read text points of any of the known widths; see `t3ssfast.io.particles.load_candidates`."""
    rows = []
    size_in_file, name = None, file.path.stem
    for line in file.read_text().splitlines():
        content, _, comment = line.partition("#")
        rows.append(SEPARATORS.sub(" ", content))
        if match := COORDS_COMMENT.search(comment):
            size_in_file, name = float(match[1]), match[2] or name
    rows = [row for row in rows if row.strip()]
    if rows and (file.columns is not None or re.search(r"[A-Za-z]{3}|\b[xyzXYZ]\b", rows[0])):
        return candidates_of_table(file, rows)
    width = _width(file, rows)
    values = file.parse_columns(rows, range(width))
    position = values[:, -3:]
    fields: dict[str, Any] = {}
    if width == 4 and _are_classes(values[:, 0]) and not _are_scores(values[:, -1]):
        fields["kind"] = kinds_of_classes(values[:, 0])
    elif width == 5 and _are_labels(values[:, :2]) and not _are_scores(values[:, -1]):
        position = position - FIRST_VOXEL_XYZ
    elif width != 3:
        raise _unknown_columns(file, width)
    voxel_size, scale = file.voxel_size_and_scale(size_in_file)
    centre_zyx = (position * scale)[:, ::-1]
    return [file.candidates(centre_zyx, voxel_size_angstrom=voxel_size, tomogram_name=name, **fields)]


def read_imod_points(file: ParticleFile) -> Candidates:
    """Read points of IMOD's model2point: x y z, after contour, or after object and contour."""
    rows = [SEPARATORS.sub(" ", line) for line in file.read_text().splitlines() if line.strip()]
    width = _width(file, rows)
    values = file.parse_columns(rows, range(width))
    if width != 3 and (width not in (4, 5) or not _are_labels(values[:, :-3])):
        raise _unknown_columns(file, width)
    voxel_size, scale = file.voxel_size_and_scale(None)
    centre_zyx = ((values[:, -3:] - FIRST_VOXEL_XYZ) * scale)[:, ::-1]
    return file.candidates(centre_zyx, voxel_size_angstrom=voxel_size)


def _width(file: ParticleFile, rows: Sequence[str]) -> int:
    """Return the number of values in each line, at most 7; 3 without lines."""
    widths = sorted({len(row.split(maxsplit=6)) for row in rows})
    if len(widths) > 1:
        listed = " and ".join(map(str, widths))
        raise ReadError(f"{file}: lines have {listed} values; give the same columns in all lines.")
    return widths[0] if widths else 3


def _are_labels(values: npt.NDArray[np.float64]) -> bool:
    """Return whether values can be numbers of classes, objects or contours."""
    return bool((values == np.floor(values)).all() and (values >= 0).all() and (values <= MAX_LABEL).all())


def _are_classes(values: npt.NDArray[np.float64]) -> bool:
    """Return whether values can be classes: numbers that are all different count contours or lines."""
    return _are_labels(values) and (len(values) < 3 or len(np.unique(values)) < len(values))


def _are_scores(values: npt.NDArray[np.float64]) -> bool:
    """Return whether values can be scores: all between 0 and 1, and not all whole numbers."""
    return bool(((values >= 0) & (values <= 1)).all() and (values != np.floor(values)).any())


def _unknown_columns(file: ParticleFile, width: int) -> ReadError:
    return ReadError(
        f"{file}: lines have {width} values whose meaning is unknown (known are x y z, class x y z, and "
        "object contour x y z); name them as columns (--columns), as in x,y,z,rot,tilt,psi."
    )
