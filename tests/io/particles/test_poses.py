"""Rotations of particles."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from formats import angles_between
from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of


def test_normal_and_rot_define_the_rotation():
    rotations = Rotation.random(200, random_state=0)
    normal, rot = normal_and_rot(rotations)
    candidates = Candidates(np.zeros((200, 3)), np.ones(200), normal, 10.0, rot_degrees=rot)
    assert angles_between(rotation_of(candidates), rotations).max() < 0.01
