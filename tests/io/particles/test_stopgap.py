"""STOPGAP motive lists."""

from __future__ import annotations

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from formats import angles_between, assert_equal_candidates
from rotations import zxz
from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io.particles import export, load_all_candidates
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


HEADER = "data_stopgap_motivelist\n\nloop_\n_motl_idx\n_tomo_num\n_orig_x\n_orig_y\n_orig_z\n"


def test_tomogram_numbers_of_matlab(tmp_path):
    (tmp_path / "a.star").write_text(HEADER + "1 7.000000 1 2 3\n2 7 4 5 6\n3 007 7 8 9\n")
    found = load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=8)
    assert [(one.tomogram_name, len(one)) for one in found] == [("7", 2), ("007", 1)]


def test_incomplete_shifts_and_angles_are_refused(tmp_path):
    for column in ("x_shift", "psi"):
        (tmp_path / "a.star").write_text(HEADER + f"_{column}\n1 7 1 2 3 0.5\n")
        with pytest.raises(ReadError, match=r"y_shift|phi"):
            load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=8)


def test_written_motive_list(tmp_path, make_candidates):
    several = [make_candidates(4, 1, tomogram_name="12"), make_candidates(3, 2, tomogram_name="7")]
    export(several, tmp_path / "a.star", "stopgap")
    table = starfile.read(tmp_path / "a.star")
    assert list(table)[:6] == ["motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "orig_x"]
    assert list(table["tomo_num"]) == [12] * 4 + [7] * 3
    assert (table["orig_x"] == table["orig_x"].round()).all()
    position = table[["orig_x", "orig_y", "orig_z"]].to_numpy() + table[["x_shift", "y_shift", "z_shift"]]
    np.testing.assert_allclose(position[:4], several[0].centre_zyx[:, ::-1], atol=1e-3)
    for row, expected in zip(
        table[["phi", "the", "psi"]].to_numpy()[:4], rotation_of(several[0]), strict=True
    ):
        np.testing.assert_allclose(zxz(*row), expected.as_matrix(), atol=1e-5)
    found = load_all_candidates(tmp_path / "a.star")
    assert [one.tomogram_name for one in found] == ["12", "7"]
    assert_equal_candidates(found[1], several[1], "stopgap")


def test_names_that_are_no_numbers_are_kept(tmp_path, make_candidates):
    export(
        [make_candidates(2, tomogram_name=name) for name in ("TS 01", "007")], tmp_path / "a.star", "stopgap"
    )
    assert [one.tomogram_name for one in load_all_candidates(tmp_path / "a.star")] == ["TS 01", "007"]
