"""Orientations in the conventions of RELION, Dynamo and copick.

Everything goes through one rotation, ``R_object_to_tomogram`` (x, y, z): it carries the particle's own +z
axis onto the normal. RELION: ``Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv()``. Dynamo
turns the template clockwise by tdrot, tilt, narot about its z, new x and new z axes, which is
``Rotation.from_euler("zxz", [tdrot, tilt, narot], degrees=True).inv()``; hence tdrot = psi - 90 and
narot = rot + 90 (https://wiki.dynamo.biozentrum.unibas.ch/w/index.php/Euler_angles_convention).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates, euler_zyz_from_normal

__all__ = [
    "dynamo_from_relion",
    "normal_and_rot",
    "relion_from_dynamo",
    "rotation_from_relion",
    "rotation_of",
    "wrap_degrees",
]

FloatArray = npt.NDArray[np.float64]


def wrap_degrees(angle: npt.ArrayLike) -> FloatArray:
    """Angles from -180 (excluded) to 180 degrees."""
    return 180.0 - np.mod(180.0 - np.asarray(angle, dtype=np.float64), 360.0)


def rotation_from_relion(euler_zyz: npt.ArrayLike) -> Rotation:
    """Object-to-tomogram rotations of (n, 3) RELION angles in degrees; n > 0."""
    rotation: Rotation = Rotation.from_euler("ZYZ", np.asarray(euler_zyz, np.float64), degrees=True)
    inverse: Rotation = rotation.inv()
    return inverse


def rotation_of(candidates: Candidates) -> Rotation:
    """Object-to-tomogram rotations of candidates; there must be at least one."""
    return rotation_from_relion(candidates.euler_zyz)


def normal_and_rot(rotation: Rotation) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """What `Candidates` holds of object-to-tomogram rotations.

    Returns
    -------
    (n, 3) unit normals, zyx, and (n,) rotations about them in degrees, such that the rotation is that of
    the normal (rot = 0) after a turn of the particle by -rot about its own axis.
    """
    normal = rotation.apply([0.0, 0.0, 1.0])[:, ::-1].astype(np.float32)
    upright = rotation_from_relion(euler_zyz_from_normal(normal))
    spin = (upright.inv() * rotation).as_matrix()
    return normal, -np.degrees(np.arctan2(spin[:, 1, 0], spin[:, 0, 0]))


def dynamo_from_relion(euler_zyz: npt.ArrayLike) -> FloatArray:
    """(n, 3) rot, tilt, psi to tdrot, tilt, narot, degrees."""
    rot, tilt, psi = np.asarray(euler_zyz, dtype=np.float64).reshape(-1, 3).T
    return np.stack([wrap_degrees(psi - 90.0), tilt, wrap_degrees(rot + 90.0)], axis=1)


def relion_from_dynamo(angles: npt.ArrayLike) -> FloatArray:
    """(n, 3) tdrot, tilt, narot to rot, tilt, psi, degrees."""
    tdrot, tilt, narot = np.asarray(angles, dtype=np.float64).reshape(-1, 3).T
    return np.stack([wrap_degrees(narot - 90.0), tilt, wrap_degrees(tdrot + 90.0)], axis=1)
