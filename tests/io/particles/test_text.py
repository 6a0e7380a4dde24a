"""csv files and coordinate lists."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.candidates import normal_from_euler_zyz
from t3ssfast.errors import VoxelSizeError
from t3ssfast.io.particles import export, load_candidates


def test_csv_columns(tmp_path, make_candidates):
    export(make_candidates(2), tmp_path / "a.csv", "csv")
    header = (tmp_path / "a.csv").read_text().split("\n")[0]
    assert header.startswith("z,y,x,score,normal_z,normal_y,normal_x,rot,tilt,psi")


def test_voxel_size_of_1_angstrom_means_unknown(tmp_path):
    (tmp_path / "a.csv").write_text("z,y,x,voxel_size_angstrom\n1,2,3,1.0\n")
    with pytest.raises(VoxelSizeError):
        load_candidates(tmp_path / "a.csv")
    found = load_candidates(tmp_path / "a.csv", voxel_size_angstrom=10)
    np.testing.assert_array_equal(found.centre_zyx, [[1, 2, 3]])


def test_tables_of_other_programs(tmp_path):
    (tmp_path / "a.csv").write_text("kind, z,y,x\n007,1,2,3\nb,4,5,6\n")
    with pytest.raises(VoxelSizeError):
        load_candidates(tmp_path / "a.csv")
    table = load_candidates(tmp_path / "a.csv", voxel_size_angstrom=10, tomogram_shape=(9, 9, 9))
    assert (list(table.kind), table.tomogram_name, table.tomogram_shape) == (["007", "b"], "a", (9, 9, 9))
    np.testing.assert_array_equal(table.centre_zyx, [[1, 2, 3], [4, 5, 6]])
    (tmp_path / "b.csv").write_text("z,y,x,rot,tilt,psi\n1,2,3,10,90,0\n")
    rotated = load_candidates(tmp_path / "b.csv", voxel_size_angstrom=10)
    np.testing.assert_allclose(rotated.normal_zyx, normal_from_euler_zyz([[10, 90, 0]]), atol=1e-6)
    (tmp_path / "c.txt").write_text("1 2 3\n\n4, 5, 6 # seen\n")
    points = load_candidates(tmp_path / "c.txt", voxel_size_angstrom=10)
    np.testing.assert_array_equal(points.centre_zyx, [[3, 2, 1], [6, 5, 4]])
