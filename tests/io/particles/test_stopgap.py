"""STOPGAP motive lists."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from formats import angles_between
from t3ssfast.errors import VoxelSizeError
from t3ssfast.io.particles import load_all_candidates
from t3ssfast.io.particles.dynamo import relion_from_dynamo
from t3ssfast.io.particles.poses import rotation_from_relion, rotation_of


def test_positions_and_angles_of_a_motive_list(tmp_path):
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 180, (3, 3))  # phi, psi, the
    rows = [
        f"{i + 1} {tomogram} 1 {i + 1} A {100 + i} 200 300 0.{i + 1} 0.25 -0.5 1.5 "
        + " ".join(f"{a:.6f}" for a in angles[i])
        + " 1"
        for i, tomogram in enumerate((7, 7, 12))
    ]
    names = "motl_idx tomo_num object subtomo_num halfset orig_x orig_y orig_z score "
    names += "x_shift y_shift z_shift phi psi the class"
    header = "\ndata_stopgap_motivelist\n\nloop_\n" + "".join(f"_{name}\n" for name in names.split())
    (tmp_path / "motl.star").write_text(header + "\n" + "\n".join(rows) + "\n")
    with pytest.raises(VoxelSizeError):
        load_all_candidates(tmp_path / "motl.star")
    found = load_all_candidates(tmp_path / "motl.star", voxel_size_angstrom=8)
    assert [(one.tomogram_name, len(one)) for one in found] == [("7", 2), ("12", 1)]
    np.testing.assert_allclose(found[0].centre_zyx[1], [301.5, 199.5, 101.25])
    np.testing.assert_allclose(found[1].score, [0.3])
    phi, psi, theta = angles[2]
    about_z, about_x, about_new_z = (
        Rotation.from_euler("zxz"[i], a, True) for i, a in enumerate((psi, theta, phi))
    )
    expected = about_z * about_x * about_new_z
    assert angles_between(rotation_of(found[1])[0], expected) < 0.01
    # The same pose in Dynamo's convention: tdrot = -psi, tilt = -the, narot = -phi.
    same = rotation_from_relion(relion_from_dynamo([[-psi, -theta, -phi]]))
    assert angles_between(same[0], expected) < 0.01
