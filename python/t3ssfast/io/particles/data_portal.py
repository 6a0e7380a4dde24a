"""Reading of point annotations of the CryoET Data Portal (.ndjson): one JSON object per line.

`location` x, y, z are 0-based voxels of the annotated tomogram, whose voxel size is known if the file is in a
folder VoxelSpacing13.480 or below, as in the portal. `xyz_rotation_matrix` of an `orientedPoint`
is the 3 x 3 object-to-tomogram rotation (chanzuckerberg/cryoet-data-portal-backend,
ingestion_tools/scripts/common/point_converter.py). `instance_id` is not used.
"""

from __future__ import annotations

import json
import re

import numpy as np
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile

__all__ = ["read_data_portal"]

POINT_TYPES = ("point", "orientedPoint", "instancePoint")
# The portal's folder of the tomograms that an annotation belongs to.
SPACING = re.compile(r"VoxelSpacing(\d+(?:\.\d+)?)")
# The second name is that of early annotations.
MATRIX_NAMES = ("xyz_rotation_matrix", "rotation_matrix")


def read_data_portal(file: ParticleFile) -> list[Candidates]:
    """Read the points of one tomogram; see `t3ssfast.io.particles.load_candidates`."""
    locations, matrices = [], []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
            if point.get("type", POINT_TYPES[0]) not in POINT_TYPES:
                raise ValueError
            locations.append([float(point["location"][axis]) for axis in "zyx"])
            name = next((name for name in MATRIX_NAMES if name in point), None)
            if name is not None:
                matrices.append(np.array(point[name], dtype=np.float64).reshape(3, 3))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            types = ", ".join(POINT_TYPES)
            raise ReadError(f"{file}: line {number} is no {types} with a location; repair it.") from error
    if matrices and len(matrices) != len(locations):
        raise ReadError(f"{file}: {len(matrices)} of {len(locations)} points have an orientation; repair it.")
    rotation = None
    if matrices:
        orientation = np.stack(matrices)
        is_rotation = np.allclose(orientation @ orientation.transpose(0, 2, 1), np.eye(3), atol=1e-3)
        if not is_rotation or (np.linalg.det(orientation) < 0).any():
            raise ReadError(f"{file}: an xyz_rotation_matrix is not a rotation; repair it.")
        rotation = Rotation.from_matrix(orientation)
    spacings = [float(match[1]) for part in file.path.absolute().parts if (match := SPACING.fullmatch(part))]
    voxel_size, scale = file.voxel_size_and_scale(spacings[-1] if spacings else None)
    centre_zyx = file.parse_numbers(locations or np.zeros((0, 3))) * scale
    return [file.candidates(centre_zyx, rotation, voxel_size_angstrom=voxel_size)]
