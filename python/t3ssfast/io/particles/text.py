"""Plain tables: csv files with scores and poses, and coordinate lists.

csv: z, y, x, score, normal_z, normal_y, normal_x, rot, tilt, psi (0-based voxels, degrees), kind, tomogram,
voxel_size_angstrom. Coordinate lists: one "x y z" line per particle in 0-based voxels, after a comment line
with the voxel size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile, printable
from t3ssfast.io.particles.poses import rotation_from_relion

__all__ = ["read_coords", "read_csv", "write_coords", "write_csv"]

CENTRE = ["z", "y", "x"]
NORMAL = ["normal_z", "normal_y", "normal_x"]
EULER = ["rot", "tilt", "psi"]
# Spreadsheets evaluate such text as a formula, unless it starts with an apostrophe.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
COORDS_COMMENT = re.compile(r"voxel size (\d+(?:\.\d*)?(?:[eE][+-]?\d+)?) Angstrom(?:; tomogram (.+))?")


def write_csv(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write a csv file of one or more tomograms; see `t3ssfast.io.particles.export`."""
    tables = [
        of_tomogram.to_dataframe().assign(
            kind=[_escape_formula(kind) for kind in of_tomogram.kind],
            tomogram=[_escape_formula(of_tomogram.tomogram_name)] * len(of_tomogram),
            voxel_size_angstrom=of_tomogram.voxel_size_angstrom,
        )
        for of_tomogram in candidates
    ]
    with atomic_path(path) as temporary:
        pd.concat(tables, ignore_index=True).to_csv(temporary, index=False, encoding="utf-8")


def _escape_formula(name: str) -> str:
    """Mark a name that looks like a formula as text, and replace null characters, which end a text."""
    name = name.replace("\0", "_")
    return f"'{name}" if FORMULA.match(name) else name


def _unescape_formula(name: str) -> str:
    return name[1:] if name.startswith("'") and FORMULA.match(name) else name


def read_csv(file: ParticleFile) -> list[Candidates]:
    """Read a csv file with at least the columns z, y, x; see `t3ssfast.io.particles.load_candidates`."""
    text = io.StringIO(file.read_text())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = pd.read_csv(
                text, dtype={"tomogram": str, "kind": str}, keep_default_na=False, skipinitialspace=True
            )
    except Exception as error:  # pandas raises errors of many types
        reason = " ".join(str(error).split())[:120]
        raise ReadError(f"{file}: reading csv failed: {reason}; check the file.") from error
    if not set(CENTRE) <= set(table):
        raise ReadError(
            f"{file}: the columns are {', '.join(map(str, table.columns))[:120]}; name the positions z, y, x."
        )
    if table.empty:
        return [file.candidates(np.zeros((0, 3)), voxel_size_angstrom=file.resolve_voxel_size(None))]
    rotation = None
    fields: dict[str, Any] = {}
    for column, field in {"score": "score", "rot": "rot_degrees"}.items():
        if column in table:
            fields[field] = file.parse_numbers(table[column])
    if set(NORMAL) <= set(table):
        # The file has float32 normals; without rounding, a round trip would change them.
        fields["normal_zyx"] = file.parse_numbers(table[NORMAL]).astype(np.float32)
        if (np.linalg.norm(fields["normal_zyx"], axis=1) == 0).any():
            raise ReadError(f"{file}: a normal has length 0; repair it or remove the columns.")
    elif set(EULER) <= set(table):
        rotation = rotation_from_relion(file.parse_numbers(table[EULER]))
    if "kind" in table:
        fields["kind"] = np.array([_unescape_formula(kind) for kind in table["kind"]], dtype=str)
    names = [file.path.stem] * len(table)
    if "tomogram" in table:
        names = [_unescape_formula(name) for name in table["tomogram"]]
    sizes: dict[str, float | None] = {}
    if "voxel_size_angstrom" in table:
        for name, size in zip(names, file.parse_numbers(table["voxel_size_angstrom"]).tolist(), strict=True):
            sizes.setdefault(name, size)
    return file.candidates_by_tomogram(names, sizes, file.parse_numbers(table[CENTRE]), rotation, **fields)


def write_coords(path: Path, candidates: Candidates) -> None:
    """Write a coordinate list; see `t3ssfast.io.particles.export`."""
    size, name = f"{candidates.voxel_size_angstrom:.9g}", printable(candidates.tomogram_name)
    lines = [f"# x y z in voxels from 0; voxel size {size} Angstrom; tomogram {name}\n"]
    lines += [f"{x:.4f} {y:.4f} {z:.4f}\n" for z, y, x in candidates.centre_zyx.tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_coords(file: ParticleFile) -> list[Candidates]:
    """Read lines "x y z", separated by blanks or commas; see `t3ssfast.io.particles.load_candidates`."""
    rows = []
    size_in_file, name = None, file.path.stem
    for line in file.read_text().splitlines():
        content, _, comment = line.partition("#")
        rows.append(content.replace(",", " "))
        if match := COORDS_COMMENT.search(comment):
            size_in_file, name = float(match[1]), match[2] or name
    position = file.parse_columns(rows, (0, 1, 2))
    voxel_size, scale = file.voxel_size_and_scale(size_in_file)
    centre_zyx = (position * scale)[:, ::-1]
    return [file.candidates(centre_zyx, voxel_size_angstrom=voxel_size, tomogram_name=name)]
