"""Object-to-tomogram rotations (x, y, z) of particles, which map the particle's +z axis onto the normal.

In RELION's convention they are ``Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates, euler_zyz_from_normal

__all__ = ["normal_and_rot", "rotation_from_relion", "rotation_of", "wrap_degrees"]


def wrap_degrees(angle: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Map angles into (-180, 180] degrees."""
    return 180.0 - np.mod(180.0 - np.asarray(angle, dtype=np.float64), 360.0)


def rotation_from_relion(euler_zyz: npt.ArrayLike) -> Rotation:
    """Return the object-to-tomogram rotations of (n, 3) RELION angles in degrees; n > 0."""
    rotation: Rotation = Rotation.from_euler("ZYZ", np.asarray(euler_zyz, np.float64), degrees=True).inv()
    return rotation


def rotation_of(candidates: Candidates) -> Rotation:
    """Return the object-to-tomogram rotations of at least one candidate."""
    return rotation_from_relion(candidates.euler_zyz)


def normal_and_rot(rotation: Rotation) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Decompose object-to-tomogram rotations into (n, 3) float32 unit normals zyx and (n,) rot in degrees."""
    # The rotation equals that of the normal with rot = 0, after rotating the particle by -rot about its axis.
    normal = rotation.apply([0.0, 0.0, 1.0])[:, ::-1].astype(np.float32)
    without_rot = rotation_from_relion(euler_zyz_from_normal(normal))
    in_plane = (without_rot.inv() * rotation).as_matrix()
    return normal, -np.degrees(np.arctan2(in_plane[:, 1, 0], in_plane[:, 0, 0]))
