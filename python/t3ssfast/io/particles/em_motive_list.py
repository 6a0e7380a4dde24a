"""Motive lists in EM files (.em): TOM, AV3, Artiatomi, novaSTA, cryoCAT, and ArtiaX in ChimeraX.

An EM file of 20 values per particle: 1 score, 5 tomogram, 8-10 position x, y, z, 11-13 shift x, y, z, 17 phi,
18 psi, 19 theta, 20 class. Positions plus shifts are voxels of the tomogram. Rotations are
``Rotation.from_euler("zxz", [phi, theta, psi])``, object to tomogram. Both are as in FrosinaLab/ArtiaX
(ArtiatomiParticleData) and turonova/cryoCAT (EmMotl). Values 14-16 are shifts before the rotation in AV3, and
anything in other programs; a list in which they are not 0 is refused. Others are not used.

Lists that t3ssfast writes hold one tomogram, with the number in its name, or 1: the format has no names and
no voxel size.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.particles.dynamo import dynamo_from_relion
from t3ssfast.io.particles.particle_file import (
    ParticleFile,
    kinds_of_classes,
    sorted_kinds,
    text_of_number,
)
from t3ssfast.io.particles.poses import wrap_degrees
from t3ssfast.io.volumes.em import read_em_array

__all__ = ["read_em_motive_list", "write_em_motive_list"]

VALUES = 20
# 0-based.
SCORE, TOMOGRAM, CLASS = 0, 4, 19
POSITION, SHIFT, SHIFT_BEFORE_ROTATION = slice(7, 10), slice(10, 13), slice(13, 16)
ANGLES = [16, 18, 17]
UNUSED = [1, 2, 3, 5, 6]
INDEX = 3
# Machine (a PC) and type of the values (float32), and the size of the header.
PC, FLOAT32, HEADER_BYTES = 6, 5, 512


def read_em_motive_list(file: ParticleFile) -> list[Candidates]:
    """Read a motive list; see `t3ssfast.io.particles.load_candidates`."""
    array = np.asarray(read_em_array(file.path))
    if array.shape[-1] != VALUES or array.shape[0] != 1:
        shape = " x ".join(map(str, array.shape[::-1]))
        raise ReadError(f"{file}: the size is {shape}, not {VALUES} x particles; give a motive list.")
    rows = array[0].astype(np.float64)
    file.parse_numbers(np.delete(rows, UNUSED, axis=1))
    if rows[:, SHIFT_BEFORE_ROTATION].any():
        raise ReadError(
            f"{file}: values 14 to 16 are not 0, and whether they are shifts before the rotation depends on "
            "the program; add them to the position, and set them to 0."
        )
    position_xyz = rows[:, POSITION] + rows[:, SHIFT]
    rotation = Rotation.from_euler("zxz", rows[:, ANGLES], degrees=True) if len(rows) else None
    names = [text_of_number(number) for number in rows[:, TOMOGRAM]]
    fields = {"score": rows[:, SCORE], "kind": kinds_of_classes(rows[:, CLASS])}
    file.resolve_voxel_size(None)
    return file.candidates_by_tomogram(names, {}, position_xyz[:, ::-1], rotation, **fields)


def write_em_motive_list(path: Path, candidates: Candidates) -> None:
    """Write a motive list of one tomogram; see `t3ssfast.io.particles.export`."""
    n = len(candidates)
    kinds = sorted_kinds([candidates])
    rows = np.zeros((n, VALUES))
    rows[:, SCORE] = candidates.score
    rows[:, INDEX] = np.arange(1, n + 1)
    number = re.search(r"(\d{1,6})\D*$", candidates.tomogram_name)
    rows[:, TOMOGRAM] = int(number[1]) if number else 1
    rows[:, POSITION] = candidates.centre_zyx[:, ::-1]
    if n:
        # As in STOPGAP's motive lists: Dynamo's angles are those of the inverse rotation.
        tdrot, tilt, narot = dynamo_from_relion(candidates.euler_zyz).T
        rows[:, ANGLES] = np.stack([wrap_degrees(180 - narot), tilt, wrap_degrees(180 - tdrot)], axis=1)
    rows[:, CLASS] = [kinds.index(str(kind)) + 1 for kind in candidates.kind]
    header = struct.pack("<BBBB3i", PC, 0, 0, FLOAT32, VALUES, n, 1).ljust(HEADER_BYTES, b"\0")
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + rows.astype("<f4").tobytes())
