"""Plain tables: csv with every figure, and bare coordinates.

csv: z, y, x, score, normal_z, normal_y, normal_x, rot, tilt, psi (0-based voxels, degrees), then kind,
tomogram and voxel_size_angstrom, so that a file can be read back on its own.
Coordinates: "x y z" a line, 0-based voxels, under one comment line with the voxel size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile, numbers, split_by_tomogram
from t3ssfast.io.particles.poses import normal_and_rot, rotation_from_relion

__all__ = ["read_coords", "read_csv", "write_coords", "write_csv"]

CENTRE = ["z", "y", "x"]
NORMAL = ["normal_z", "normal_y", "normal_x"]
EULER = ["rot", "tilt", "psi"]
# What a spreadsheet would take for a formula; an apostrophe in front makes it a text there.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
HEADER = re.compile(r"voxel size ([0-9.eE+-]+) Angstrom(?:; tomogram (.+))?")


def write_csv(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write a csv of one or more tomograms; see `t3ssfast.io.particles.export`."""
    frames = []
    for some in candidates:
        frame = some.to_dataframe()
        frame["tomogram"] = [_as_text(some.tomogram_name)] * len(some)
        frame["kind"] = [_as_text(kind) for kind in frame["kind"]]
        frame["voxel_size_angstrom"] = some.voxel_size_angstrom
        frames.append(frame)
    with atomic_path(path) as temporary:
        pd.concat(frames, ignore_index=True).to_csv(temporary, index=False, encoding="utf-8")


def _as_text(name: str) -> str:
    """A name as no spreadsheet takes it for a formula, without zeros, which end a text for many readers."""
    name = name.replace("\0", "_")
    return f"'{name}" if FORMULA.match(name) else name


def _from_text(name: str) -> str:
    """The inverse of `_as_text`, but for zeros."""
    return name[1:] if name.startswith("'") and FORMULA.match(name) else name


def read_csv(source: ParticleFile) -> list[Candidates]:
    """Read a csv with at least the columns z, y, x; see `t3ssfast.io.particles.load_candidates`."""
    text = source.read_text()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = pd.read_csv(
                io.StringIO(text),
                dtype={"tomogram": str, "kind": str},
                keep_default_na=False,
                skipinitialspace=True,
            )
    except Exception as error:  # pandas' errors of many kinds
        reason = " ".join(str(error).split())[:120]
        raise ReadError(f"{source.name} cannot be read as csv ({reason}); check the file.") from error
    if not set(CENTRE) <= set(table):
        raise ReadError(
            f"{source.name} has no columns z, y, x (it has {', '.join(map(str, table.columns))[:120]}); "
            "rename its columns."
        )
    n = len(table)
    names = (
        [_from_text(name) for name in table["tomogram"]] if "tomogram" in table else [source.path.stem] * n
    )
    kind = (
        np.array([_from_text(k) for k in table["kind"]], dtype=str) if "kind" in table else np.full(n, "t3ss")
    )
    scores = numbers(source, [table["score"]])[:, 0] if "score" in table else np.ones(n)
    normal, rot = _poses(source, table)
    sizes = numbers(source, [table["voxel_size_angstrom"]])[:, 0] if "voxel_size_angstrom" in table else None
    others: dict[str, dict[str, Any]] = {}
    factors = {}
    for index, name in enumerate(names):
        if name not in others:
            size, factors[name] = source.grid(None if sizes is None else float(sizes[index]))
            others[name] = {"voxel_size_angstrom": size, "tomogram_shape": source.tomogram_shape}
    if not others:
        return [Candidates.empty(source.voxel_size(None), source.tomogram_shape, source.path.stem)]
    centre = (
        numbers(source, [table[c] for c in CENTRE]) * np.array([factors[name] for name in names])[:, None]
    )
    whole = Candidates(
        centre_zyx=centre.astype(np.float32),
        score=scores.astype(np.float32),
        normal_zyx=normal,
        voxel_size_angstrom=others[names[0]]["voxel_size_angstrom"],
        kind=kind,
        rot_degrees=rot.astype(np.float32),
    )
    return split_by_tomogram(names, whole, others)


def _poses(source: ParticleFile, table: pd.DataFrame) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Normals and rotations about them; along +z where the table has none."""
    n = len(table)
    rot = numbers(source, [table["rot"]])[:, 0] if "rot" in table else np.zeros(n)
    if set(NORMAL) <= set(table):
        normal = numbers(source, [table[c] for c in NORMAL])
        if n and (np.linalg.norm(normal, axis=1) == 0).any():
            raise ReadError(f"{source.name}: a normal has no length; repair it or remove the column.")
        return normal.astype(np.float32), rot
    if set(EULER) <= set(table) and n:
        return normal_and_rot(rotation_from_relion(numbers(source, [table[c] for c in EULER])))
    return np.tile(np.array([1.0, 0.0, 0.0], np.float32), (n, 1)), rot


def write_coords(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write bare coordinates of one tomogram; see `t3ssfast.io.particles.export`."""
    if len(candidates) != 1:
        raise ConfigError(
            f"A coordinate file holds one tomogram and {len(candidates)} were given; write each."
        )
    some = candidates[0]
    name = "".join(c if c.isprintable() else "_" for c in some.tomogram_name)
    lines = [
        f"# x y z in voxels from 0; voxel size {some.voxel_size_angstrom:.9g} Angstrom; tomogram {name}\n"
    ]
    lines += [f"{x:.4f} {y:.4f} {z:.4f}\n" for z, y, x in some.centre_zyx.tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_coords(source: ParticleFile) -> list[Candidates]:
    """Read "x y z" lines (blanks or commas between); see `t3ssfast.io.particles.load_candidates`."""
    rows = []
    voxel_size, name = None, source.path.stem
    for number, line in enumerate(source.read_text().splitlines(), 1):
        content, _, comment = line.partition("#")
        if match := HEADER.search(comment):
            voxel_size, name = float(match[1]), match[2] or name
        parts = content.replace(",", " ").split()
        if not parts:
            continue
        try:
            rows.append([float(part) for part in parts[:3]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != 3:
            raise ReadError(
                f"{source.name}: line {number} is not three numbers x y z; it is no list of coordinates."
            )
    centre = numbers(source, list(np.array(rows).T)) if rows else np.zeros((0, 3))
    size, factor = source.grid(voxel_size)
    return [
        Candidates(
            centre_zyx=(centre * factor)[:, ::-1].astype(np.float32),
            score=np.ones(len(centre), np.float32),
            normal_zyx=np.tile(np.array([1.0, 0.0, 0.0], np.float32), (len(centre), 1)),
            voxel_size_angstrom=size,
            tomogram_shape=source.tomogram_shape,
            tomogram_name=name,
        )
    ]
