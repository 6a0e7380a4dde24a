"""Writing of STOPGAP motive lists; `t3ssfast.io.particles.stopgap` describes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.dynamo import dynamo_from_relion
from t3ssfast.io.particles.particle_file import printable, sorted_kinds, write_class_names
from t3ssfast.io.particles.poses import wrap_degrees
from t3ssfast.io.particles.relion import write_star
from t3ssfast.io.particles.stopgap import BLOCK, ORIGIN, SHIFT

__all__ = ["write_stopgap"]


def write_stopgap(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write a motive list; see `t3ssfast.io.particles.export`.

    Tomograms are numbered from 1 unless all names are different numbers. Positions are whole voxels and
    shifts, because STOPGAP extracts subtomograms at whole voxels.
    """
    names = [of_tomogram.tomogram_name for of_tomogram in candidates]
    numbers = list(range(1, len(names) + 1))
    if all(re.fullmatch(r"[1-9]\d{0,8}", name) for name in names):
        numbers = [int(name) for name in names]
    kinds = sorted_kinds(candidates)
    tables, comments = [], []
    for number, of_tomogram in zip(numbers, candidates, strict=True):
        position_xyz = of_tomogram.centre_zyx.astype(np.float64)[:, ::-1]
        whole = np.round(position_xyz)
        # Dynamo's angles are those of the inverse rotation, and a tilt of -t equals one of t turned by 180.
        tdrot, tilt, narot = dynamo_from_relion(of_tomogram.euler_zyz).T
        data: dict[str, Any] = {"tomo_num": np.full(len(of_tomogram), number)}
        data |= dict(zip(ORIGIN, whole.astype(np.int64).T, strict=True))
        data["score"] = of_tomogram.score.astype(np.float64)
        data |= dict(zip(SHIFT, (position_xyz - whole).T, strict=True))
        data |= {"phi": wrap_degrees(180 - narot), "psi": wrap_degrees(180 - tdrot), "the": tilt}
        data["class"] = np.array([kinds.index(str(kind)) + 1 for kind in of_tomogram.kind], dtype=np.int64)
        tables.append(pd.DataFrame(data))
        name = printable(of_tomogram.tomogram_name).strip() or "tomogram"
        size = f"{of_tomogram.voxel_size_angstrom:.9g}"
        comments.append(f"# tomo_num {number} has voxel size {size} Angstrom; tomogram {name}\n")
    table: pd.DataFrame = pd.concat(tables, ignore_index=True)
    index = np.arange(1, len(table) + 1)
    halves = np.where(index % 2 == 1, "A", "B")
    table.insert(0, "motl_idx", index)
    table.insert(2, "object", np.ones(len(table), dtype=np.int64))
    table.insert(3, "subtomo_num", index)
    table.insert(4, "halfset", halves)
    write_class_names(path, kinds)
    write_star(path, {BLOCK: table}, comments="".join(comments))
