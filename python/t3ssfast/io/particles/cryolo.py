"""Reading of boxes of crYOLO and TomoTwin (.cbox): the block `data_cryolo` of a star file.

Positions are 0-based voxels: CoordinateX and CoordinateY are the lower corner of a box of Width and Height,
CoordinateZ is the centre. TomoTwin writes them so (MPI-Dortmund/tomotwin-cryoet, CBoxFormat), and
napari-boxmanager reads them so. Confidence is the score. Depth, EstWidth, EstHeight, NumBoxes and Angle are
not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.relion import read_star

__all__ = ["read_cbox"]

REQUIRED = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height"]


def read_cbox(file: ParticleFile) -> list[Candidates]:
    """Read the boxes of one tomogram; see `t3ssfast.io.particles.load_candidates`."""
    block = next((table for table in read_star(file.path).values() if "CoordinateX" in table), None)
    missing = REQUIRED if block is None else [name for name in REQUIRED if name not in block]
    if block is None or missing:
        raise ReadError(
            f"{file}: no {', '.join(missing)} in a block cryolo; give a .cbox file of a tomogram."
        )
    if block["CoordinateZ"].astype(str).str.strip("<>").str.lower().isin(["na", "nan", "none"]).any():
        raise ReadError(f"{file}: boxes without CoordinateZ, of a micrograph; give boxes of a tomogram.")
    x, y, z, width, height = file.parse_numbers(block[REQUIRED]).T
    fields: dict[str, Any] = {}
    if "Confidence" in block:
        fields["score"] = file.parse_numbers(block["Confidence"])
    voxel_size, scale = file.voxel_size_and_scale(None)
    centre_zyx = np.stack([z, y + height / 2, x + width / 2], axis=1) * scale
    return [file.candidates(centre_zyx, voxel_size_angstrom=voxel_size, **fields)]
