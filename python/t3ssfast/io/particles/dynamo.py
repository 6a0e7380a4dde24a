"""Dynamo tables (.tbl) and the map of tomogram numbers to names (.doc) beside them.

1-based columns: tag 1, aligned 2, dx-dz 4-6, tdrot/tilt/narot 7-9, cc 10, tomogram 20, class 22, xyz 24-26,
apix 36. Positions are voxels of the tomogram, written as they are (as the field's converters do).
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
from t3ssfast.io.particles.particle_file import ParticleFile, numbers, split_by_tomogram
from t3ssfast.io.particles.poses import (
    dynamo_from_relion,
    normal_and_rot,
    relion_from_dynamo,
    rotation_from_relion,
)

__all__ = ["read_dynamo", "write_dynamo"]

POSITION = ["x", "y", "z"]
SHIFT = ["dx", "dy", "dz"]
ANGLES = ["tdrot", "tilt", "narot"]
SMALLEST_TABLE = 26  # columns, up to z
LAST_COLUMN = 36
COLUMNS = {
    **dict(zip(SHIFT, (4, 5, 6), strict=True)),
    **dict(zip(ANGLES, (7, 8, 9), strict=True)),
    "cc": 10,
    "tomo": 20,
    "class": 22,
    **dict(zip(POSITION, (24, 25, 26), strict=True)),
    "apix": LAST_COLUMN,
}


def write_dynamo(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write `path` (.tbl) and the .doc of the same stem; see `t3ssfast.io.particles.export`."""
    if path.suffix != ".tbl":
        raise ConfigError(f"{display_path(path)}: a Dynamo table is named .tbl; change the name.")
    kinds = sorted({str(kind) for some in candidates for kind in some.kind}, key=lambda k: (k != "t3ss", k))
    frames = []
    for number, some in enumerate(candidates, 1):
        data: dict[str, Any] = dict(zip(POSITION, some.centre_zyx.astype(np.float64).T[::-1], strict=True))
        data |= dict(zip(ANGLES, dynamo_from_relion(some.euler_zyz).T, strict=True))
        data["cc"] = some.score.astype(np.float64)
        data["tomo"] = np.full(len(some), number)
        data["class"] = np.array([kinds.index(str(kind)) + 1 for kind in some.kind], dtype=np.int64)
        data["apix"] = np.full(len(some), some.voxel_size_angstrom)
        frames.append(pd.DataFrame(data))
    lines = [f"{n} {_one_line(some.tomogram_name)}\n" for n, some in enumerate(candidates, 1)]
    with atomic_path(path.with_suffix(".doc")) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    with atomic_path(path) as temporary:
        dynamotable.write(pd.concat(frames, ignore_index=True), str(temporary))


def _one_line(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name).strip() or "tomogram"


def read_dynamo(source: ParticleFile) -> list[Candidates]:
    """Read a Dynamo table and, where it is there, its .doc; see `t3ssfast.io.particles.load_candidates`."""
    text = source.read_text()
    names = _read_map(source.path.with_suffix(".doc"))
    if not text.strip():
        return [Candidates.empty(source.voxel_size(None), source.tomogram_shape, n) for n in names.values()]
    table = _read_table(source, text)
    values = np.stack([table[c] for c in (*POSITION, *SHIFT, *ANGLES, "cc", "tomo")], axis=1)
    normal, rot = normal_and_rot(rotation_from_relion(relion_from_dynamo(values[:, 6:9])))
    tomograms = values[:, 10].astype(np.int64)
    labels = [names.get(int(n), str(int(n))) for n in tomograms]
    others: dict[str, dict[str, Any]] = {name: {} for name in names.values()}
    apix = table.get("apix", np.zeros(len(values)))
    for name, size in zip(labels, apix.tolist(), strict=True):
        others.setdefault(name, {}).setdefault("voxel_size_angstrom", size)
    fallback = next((f["voxel_size_angstrom"] for f in others.values() if f), 0.0)
    factors = {}
    for name, fields in others.items():
        voxel_size, factors[name] = source.grid(fields.get("voxel_size_angstrom", fallback))
        fields |= {"voxel_size_angstrom": voxel_size, "tomogram_shape": source.tomogram_shape}
    position = (values[:, 0:3] + values[:, 3:6]) * np.array([factors[label] for label in labels])[:, None]
    whole = Candidates(
        centre_zyx=position[:, ::-1].astype(np.float32),
        score=values[:, 9].astype(np.float32),
        normal_zyx=normal,
        voxel_size_angstrom=next(iter(others.values()))["voxel_size_angstrom"],
        kind=_kinds(table),
        rot_degrees=rot.astype(np.float32),
    )
    return split_by_tomogram(labels, whole, others)


def _read_table(source: ParticleFile, text: str) -> dict[str, npt.NDArray[np.float64]]:
    """The columns that matter, by name; apix only where the table reaches so far.

    Read here and not with dynamotable: it takes any text for a table, and a line of some megabytes keeps it
    busy beyond patience. No column after the last that matters is looked at.
    """
    rows: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        values = line.split(maxsplit=LAST_COLUMN)[:LAST_COLUMN]
        if not values:
            continue
        if len(values) < SMALLEST_TABLE:
            raise ReadError(
                f"{source.name} is no Dynamo table: line {number} has {len(values)} columns, not "
                f"{SMALLEST_TABLE} or more."
            )
        if rows and len(values) != len(rows[0]):
            raise ReadError(f"{source.name}: line {number} has another number of columns; repair it.")
        rows.append(values)
    columns = numbers(source, list(zip(*rows, strict=True))).T
    return {name: columns[at - 1] for name, at in COLUMNS.items() if at <= len(columns)}


def _kinds(table: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[Any]:
    classes = table["class"].astype(np.int64)
    return np.array(["t3ss" if n in (0, 1) else f"class_{n}" for n in classes], dtype=str)


def _read_map(path: Path) -> dict[int, str]:
    """Tomogram names by number; names may hold spaces. Empty where there is no such file."""
    if not path.is_file():
        return {}
    names = {}
    for line in ParticleFile(path).read_text().splitlines():
        parts = line.split(maxsplit=1)
        if len(parts) == 2 and parts[0].isdecimal():
            names[int(parts[0])] = parts[1].strip()
    return names
