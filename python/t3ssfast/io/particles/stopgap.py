"""STOPGAP motive lists: the block `data_stopgap_motivelist` of a star file, which is read but not written.

Positions are orig_x/y/z plus the shifts, in voxels of the tomogram, taken as they are (as with Dynamo's
tables); rotations are ``Rotation.from_euler("zxz", [phi, the, psi])``, object to tomogram. Tomograms are
known by their numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.particle_file import ParticleFile, numbers, split_by_tomogram
from t3ssfast.io.particles.poses import normal_and_rot

__all__ = ["is_motive_list", "read_stopgap"]

ORIGIN = ["orig_x", "orig_y", "orig_z"]
SHIFT = ["x_shift", "y_shift", "z_shift"]
ANGLES = ["phi", "the", "psi"]


def is_motive_list(block: pd.DataFrame) -> bool:
    """Whether a table has STOPGAP's columns."""
    return set(ORIGIN) <= set(block) and "tomo_num" in block


def read_stopgap(source: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read a motive list; see `t3ssfast.io.particles.load_candidates`."""
    n = len(block)
    voxel_size = source.voxel_size(None)
    position = numbers(source, [block[c] for c in ORIGIN])
    if set(SHIFT) <= set(block):
        position = position + numbers(source, [block[c] for c in SHIFT])
    score = numbers(source, [block["score"]])[:, 0] if "score" in block else np.ones(n)
    normal: npt.NDArray[np.float32] = np.tile(np.array([1.0, 0.0, 0.0], np.float32), (n, 1))
    rot = np.zeros(n)
    if n and set(ANGLES) <= set(block):
        angles = numbers(source, [block[c] for c in ANGLES])
        normal, rot = normal_and_rot(Rotation.from_euler("zxz", angles, degrees=True))
    kinds = ["t3ss"] * n
    if "class" in block:
        classes = numbers(source, [block["class"]])[:, 0].astype(np.int64)
        kinds = ["t3ss" if c in (0, 1) else f"class_{c}" for c in classes]
    names = [str(name) for name in block["tomo_num"]]
    whole = Candidates(
        centre_zyx=position[:, ::-1].astype(np.float32),
        score=score.astype(np.float32),
        normal_zyx=normal,
        voxel_size_angstrom=voxel_size,
        tomogram_shape=source.tomogram_shape,
        kind=np.array(kinds, dtype=str),
        rot_degrees=rot.astype(np.float32),
    )
    return split_by_tomogram(names, whole, {})
