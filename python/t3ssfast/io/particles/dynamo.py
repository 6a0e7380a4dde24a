"""Dynamo tables (.tbl), and the names of tomograms by number in a .doc file beside them.

The kinds of particles by class number are in a .classes file beside a table with other kinds than T3SS.

1-based columns: tag 1, aligned 2, dx-dz 4-6, tdrot/tilt/narot 7-9, cc 10, tomogram 20, class 22, xyz 24-26,
apix 36. Positions are voxels of the tomogram, without an offset, as in other converters. Dynamo rotates the
template clockwise by tdrot, tilt, narot about its z, new x and new z axes; object to tomogram, that is
``Rotation.from_euler("zxz", [tdrot, tilt, narot], degrees=True).inv()``. Hence tdrot = psi - 90 and
narot = rot + 90 (https://wiki.dynamo.biozentrum.unibas.ch/w/index.php/Euler_angles_convention).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dynamotable
import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io import atomic_path, display_path
from t3ssfast.io.particles.particle_file import (
    ParticleFile,
    kinds_in_file,
    printable,
    sorted_kinds,
    write_class_names,
)
from t3ssfast.io.particles.poses import rotation_from_relion, wrap_degrees

__all__ = ["dynamo_from_relion", "read_dynamo", "relion_from_dynamo", "write_dynamo"]

POSITION = ["x", "y", "z"]
SHIFT = ["dx", "dy", "dz"]
ANGLES = ["tdrot", "tilt", "narot"]
MIN_COLUMNS = 26
MAX_COLUMNS = 36
# 0-based indices of the columns that are used.
COLUMNS = {name: 3 + i for i, name in enumerate([*SHIFT, *ANGLES, "cc"])} | {"tomo": 19, "class": 21}
COLUMNS |= {name: 23 + i for i, name in enumerate(POSITION)} | {"apix": 35}


def dynamo_from_relion(euler_zyz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Convert (n, 3) rot, tilt, psi to tdrot, tilt, narot in degrees, or back: it is its own inverse."""
    rot, tilt, psi = np.asarray(euler_zyz, dtype=np.float64).reshape(-1, 3).T
    return np.stack([wrap_degrees(psi - 90.0), tilt, wrap_degrees(rot + 90.0)], axis=1)


relion_from_dynamo = dynamo_from_relion


def write_dynamo(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write a table (.tbl) and a .doc file of the same stem; see `t3ssfast.io.particles.export`."""
    if path.suffix != ".tbl":
        raise ConfigError(f"{display_path(path)}: the suffix of a Dynamo table is .tbl; change the name.")
    kinds = sorted_kinds(candidates)
    tables, names = [], []
    for number, of_tomogram in enumerate(candidates, 1):
        position_xyz = of_tomogram.centre_zyx.astype(np.float64)[:, ::-1]
        data: dict[str, Any] = dict(zip(POSITION, position_xyz.T, strict=True))
        data |= dict(zip(ANGLES, dynamo_from_relion(of_tomogram.euler_zyz).T, strict=True))
        data["cc"] = of_tomogram.score.astype(np.float64)
        data["tomo"] = np.full(len(of_tomogram), number)
        data["class"] = np.array([kinds.index(str(kind)) + 1 for kind in of_tomogram.kind], dtype=np.int64)
        data["apix"] = np.full(len(of_tomogram), of_tomogram.voxel_size_angstrom)
        tables.append(pd.DataFrame(data))
        names.append(f"{number} {printable(of_tomogram.tomogram_name).strip() or 'tomogram'}\n")
    with atomic_path(path.with_suffix(".doc")) as temporary:
        temporary.write_text("".join(names), encoding="utf-8")
    write_class_names(path, kinds)
    with atomic_path(path) as temporary:
        dynamotable.write(pd.concat(tables, ignore_index=True), str(temporary))


def read_dynamo(file: ParticleFile) -> list[Candidates]:
    """Read a table and its .doc file, if any; see `t3ssfast.io.particles.load_candidates`."""
    names_by_number = _read_names(file.path.with_suffix(".doc"))
    table = _read_table(file)
    names = [names_by_number.get(n, str(n)) for n in table["tomo"].astype(np.int64).tolist()]
    sizes: dict[str, float | None] = {}
    for name, size in zip(names, table["apix"].tolist(), strict=True):
        sizes.setdefault(name, size)
    # Tomograms without particles take the voxel size of the first particle.
    first = next(iter(sizes.values()), None)
    for name in names_by_number.values():
        sizes.setdefault(name, first)
    rotation = rotation_from_relion(relion_from_dynamo(table[ANGLES])) if names else None
    position_xyz = table[POSITION].to_numpy() + table[SHIFT].to_numpy()
    fields = {"score": table["cc"].to_numpy(), "kind": kinds_in_file(file, table["class"])}
    return file.candidates_by_tomogram(names, sizes, position_xyz[:, ::-1], rotation, **fields)


def _read_table(file: ParticleFile) -> pd.DataFrame:
    """Read the columns in `COLUMNS`; apix is 0 if the table has fewer columns."""
    # dynamotable accepts any text as a table, and a line of several megabytes takes it minutes.
    lines = file.read_text().splitlines()
    first = next((line.split(maxsplit=MAX_COLUMNS) for line in lines if line.strip()), [""] * MIN_COLUMNS)
    width = min(len(first), MAX_COLUMNS)
    if width < MIN_COLUMNS:
        raise ReadError(f"{file}: {width} columns, and Dynamo's have {MIN_COLUMNS} or more; give a table.")
    used = [name for name in COLUMNS if name != "apix"]
    values = file.parse_columns(lines, [COLUMNS[name] for name in used])
    table: pd.DataFrame = pd.DataFrame(values, columns=used)
    table["apix"] = 0.0
    if COLUMNS["apix"] < width:
        # NaN, which MATLAB writes for unknown values, is as good as 0.
        apix = file.parse_columns(lines, [COLUMNS["apix"]], finite=False)[:, 0]
        table["apix"] = np.where(np.isfinite(apix), apix, 0.0)
    return table


def _read_names(path: Path) -> dict[int, str]:
    """Read the names of tomograms by number; names may contain spaces."""
    if not path.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in ParticleFile(path).read_text().splitlines()]
    return {int(line[0]): line[1].strip() for line in lines if len(line) == 2 and line[0].isdecimal()}
