"""The search for a pose: its rotations, and a pose that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from simulated_particles import CPU, blobs
from t3ssfast.averaging.fourier import FourierShells, rotate_and_shift
from t3ssfast.averaging.search import RotatedReference, ShiftSearch, find_pose, rotation_grid
from t3ssfast.averaging.stack import zyx_matrices


def test_known_pose_is_found():
    volume = blobs(32, [(10.0, 0.0, 0.0), (-3.0, 9.0, 0.0), (-8.0, -3.0, 7.0)], 1.5)
    true = Rotation.from_euler("ZYZ", [70.0, 9.0, -31.0], degrees=True)
    moved = rotate_and_shift(volume, zyx_matrices(true, CPU), torch.tensor([1.2, -0.7, 0.4]))
    shells = FourierShells(32, 8, CPU)
    reference = RotatedReference(volume, torch.ones(9), shells, rotation_grid(12.0, 15.0, 1, CPU), 8)
    shifts = ShiftSearch(shells, 3.0)
    no_wedge = torch.ones(len(shells.frequency))
    pose = find_pose(reference, shells.transform(moved), no_wedge, shifts, shifts, 3)
    found = Rotation.from_matrix(pose.rotation.numpy()[::-1, ::-1])
    assert np.degrees((found.inv() * true).magnitude()) < 2
    np.testing.assert_allclose(pose.shift_zyx, [1.2, -0.7, 0.4], atol=0.15)
    assert pose.score > 0.98


@pytest.mark.parametrize(("step", "cone", "fold"), [(15.0, 15.0, 1), (8.0, 15.0, 6), (10.0, 0.0, 2)])
def test_rotation_grid_covers_the_cone_and_no_more(step, cone, fold):
    matrix = rotation_grid(step, cone, fold, CPU).matrix.numpy()
    tilt = np.degrees(np.arccos(np.clip(matrix[:, 0, 0], -1, 1)))
    assert tilt.max() <= cone + 0.1
    rng = np.random.default_rng(0)
    azimuth, tilt, spin = rng.uniform(0, 360, 300), cone * np.sqrt(rng.random(300)), rng.uniform(0, 360, 300)
    wanted = Rotation.from_euler("ZYZ", np.stack([azimuth, tilt, spin], axis=1), degrees=True)
    symmetric = Rotation.from_euler("Z", np.arange(fold)[:, None] * 360 / fold, degrees=True)
    grid = Rotation.from_matrix(matrix[:, ::-1, ::-1])
    nearest = [min(float((w.inv() * grid * one).magnitude().min()) for one in symmetric) for w in wanted]
    # Half the diagonal of a grid cell, in three angles.
    assert np.degrees(max(nearest)) < 0.9 * step
