"""Rotations as the programs write them."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from formats import rotation
from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.poses import (
    dynamo_from_relion,
    normal_and_rot,
    relion_from_dynamo,
    rotation_from_relion,
)


def test_dynamo_and_relion_angles_of_one_reconstruction():
    # A pair that gave identical reconstructions in the two programs (tests of the eulerangles package).
    dynamo, relion = [-47.2730, 1.1777, -132.3000], [137.7000, 1.1777, 42.7270]
    np.testing.assert_allclose(relion_from_dynamo([dynamo]), [relion], atol=1e-4)
    np.testing.assert_allclose(dynamo_from_relion([relion]), [dynamo], atol=1e-4)
    clockwise = Rotation.from_euler("zxz", dynamo, degrees=True).inv()
    assert (clockwise.inv() * rotation_from_relion([relion])).magnitude()[0] < 1e-5


def test_normal_and_rot_hold_the_whole_rotation():
    rotations = Rotation.random(200, random_state=0)
    normal, rot = normal_and_rot(rotations)
    candidates = Candidates(np.zeros((200, 3)), np.ones(200), normal, 10.0, rot_degrees=rot)
    assert np.degrees((rotation(candidates).inv() * rotations).magnitude()).max() < 0.01
