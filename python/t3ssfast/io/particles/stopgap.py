"""Reading of STOPGAP motive lists: the block `data_stopgap_motivelist` of a star file.

Positions are orig_x/y/z plus x/y/z_shift in voxels of the tomogram. Rotations are
``Rotation.from_euler("zxz", [phi, the, psi])``, object to tomogram. Tomograms are identified by number, which
MATLAB may write as 7.000000. The same conventions are in the CryoET Data Portal's converter
(chanzuckerberg/cryoet-data-portal-backend, ingestion_tools/scripts/common/point_converter.py).

Lists that t3ssfast writes have the voxel size and the names of the tomograms in comments.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile, kinds_in_file, text_of_number

__all__ = ["ANGLES", "BLOCK", "ORIGIN", "SHIFT", "is_motive_list", "read_stopgap"]

BLOCK = "stopgap_motivelist"
ORIGIN = ["orig_x", "orig_y", "orig_z"]
SHIFT = ["x_shift", "y_shift", "z_shift"]
ANGLES = ["phi", "the", "psi"]
COMMENT = re.compile(r"^# tomo_num (\d+) has voxel size (\S+) Angstrom; tomogram (.+)$", re.MULTILINE)


def is_motive_list(block: pd.DataFrame) -> bool:
    """Return whether a table has STOPGAP's columns."""
    return set(ORIGIN) <= set(block) and "tomo_num" in block


def read_stopgap(file: ParticleFile, block: pd.DataFrame) -> list[Candidates]:
    """Read a motive list; see `t3ssfast.io.particles.load_candidates`."""
    written = {number: (float(size), name) for number, size, name in COMMENT.findall(file.read_text())}
    sizes: dict[str, float | None] = {name: size for size, name in written.values()}
    if not sizes:
        file.resolve_voxel_size(None)
    position = file.parse_numbers(block[ORIGIN])
    for group in (SHIFT, ANGLES):
        if 0 < len(set(group) & set(block)) < len(group):
            listed = ", ".join(name for name in group if name not in block)
            raise ReadError(f"{file}: the motive list lacks {listed}; add the missing columns.")
    if set(SHIFT) <= set(block):
        position = position + file.parse_numbers(block[SHIFT])
    fields: dict[str, Any] = {}
    if "score" in block:
        fields["score"] = file.parse_numbers(block["score"])
    if "class" in block:
        fields["kind"] = kinds_in_file(file, file.parse_numbers(block["class"]))
    rotation = None
    if len(block) and set(ANGLES) <= set(block):
        rotation = Rotation.from_euler("zxz", file.parse_numbers(block[ANGLES]), degrees=True)
    numbers = [text_of_number(number) for number in block["tomo_num"]]
    names = [written[number][1] if number in written else number for number in numbers]
    return file.candidates_by_tomogram(names, sizes, position[:, ::-1], rotation, **fields)
