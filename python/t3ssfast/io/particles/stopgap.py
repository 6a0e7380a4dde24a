"""Reading of STOPGAP motive lists: the block `data_stopgap_motivelist` of a star file.

Positions are orig_x/y/z plus shifts in voxels of the tomogram. Rotations are
``Rotation.from_euler("zxz", [phi, the, psi])``, object to tomogram. Tomograms are identified by number.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.particle_file import ParticleFile, kinds_of_classes

__all__ = ["is_motive_list", "read_stopgap"]

ORIGIN = ["orig_x", "orig_y", "orig_z"]
SHIFT = ["x_shift", "y_shift", "z_shift"]
ANGLES = ["phi", "the", "psi"]


def is_motive_list(block: pd.DataFrame) -> bool:
    """Return whether a table has STOPGAP's columns."""
    return set(ORIGIN) <= set(block) and "tomo_num" in block


def read_stopgap(file: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read a motive list; see `t3ssfast.io.particles.load_candidates`."""
    file.resolve_voxel_size(None)
    position = file.parse_numbers(block[ORIGIN])
    if set(SHIFT) <= set(block):
        position = position + file.parse_numbers(block[SHIFT])
    fields: dict[str, Any] = {}
    if "score" in block:
        fields["score"] = file.parse_numbers(block["score"])
    if "class" in block:
        fields["kind"] = kinds_of_classes(file.parse_numbers(block["class"]))
    rotation = None
    if len(block) and set(ANGLES) <= set(block):
        rotation = Rotation.from_euler("zxz", file.parse_numbers(block[ANGLES]), degrees=True)
    names = [str(name) for name in block["tomo_num"]]
    return file.candidates_by_tomogram(names, {}, position[:, ::-1], rotation, **fields)
