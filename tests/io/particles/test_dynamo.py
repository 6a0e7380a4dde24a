"""Dynamo tables: columns, angles, and tables of other programs."""

from __future__ import annotations

import dynamotable
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from formats import angles_between
from t3ssfast.errors import ConfigError, ReadError, VoxelSizeError
from t3ssfast.io.particles import export, load_all_candidates, load_candidates
from t3ssfast.io.particles.dynamo import dynamo_from_relion, relion_from_dynamo
from t3ssfast.io.particles.poses import rotation_from_relion, rotation_of


def test_dynamo_and_relion_angles_of_one_reconstruction():
    # Angles that gave identical reconstructions in both programs (from the tests of the package eulerangles).
    dynamo, relion = [-47.2730, 1.1777, -132.3000], [137.7000, 1.1777, 42.7270]
    np.testing.assert_allclose(relion_from_dynamo([dynamo]), [relion], atol=1e-4)
    np.testing.assert_allclose(dynamo_from_relion([relion]), [dynamo], atol=1e-4)
    clockwise = Rotation.from_euler("zxz", dynamo, degrees=True).inv()
    assert (clockwise.inv() * rotation_from_relion([relion])).magnitude()[0] < 1e-5


def test_columns_of_exported_tables(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.tbl", "dynamo")
    columns = np.loadtxt(tmp_path / "a.tbl").T
    np.testing.assert_array_equal(columns[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(columns[1], 1)
    np.testing.assert_allclose(columns[23:26].T[:, ::-1], candidates.centre_zyx, rtol=1e-6)
    np.testing.assert_allclose(columns[9], candidates.score, rtol=1e-6)
    np.testing.assert_array_equal(columns[19], 1)
    np.testing.assert_array_equal(columns[35], 13.6)
    assert (tmp_path / "a.doc").read_text() == "1 TS_007\n"
    assert list(dynamotable.read(tmp_path / "a.tbl")["tomo"]) == [1] * 4
    with pytest.raises(ConfigError, match=r"\.tbl"):
        export(candidates, tmp_path / "a.txt", "dynamo")


def test_table_of_dynamo(data):
    with pytest.raises(VoxelSizeError):
        load_all_candidates(data / "dynamo.tbl")
    found = load_all_candidates(data / "dynamo.tbl", voxel_size_angstrom=10)
    assert [(one.tomogram_name, len(one)) for one in found] == [("1", 150), ("2", 150)]
    table = np.loadtxt(data / "dynamo.tbl")
    np.testing.assert_allclose(found[0].centre_zyx[0, ::-1], table[0, 23:26] + table[0, 3:6], rtol=1e-6)
    expected = Rotation.from_euler("zxz", table[:150, 6:9], degrees=True).inv()
    assert angles_between(rotation_of(found[0]), expected).max() < 0.01


def test_tables_of_26_to_42_columns(tmp_path):
    row = [1, 1, 0, 0.5, -1, 2, 10, 20, 30, 0.7, 0, 0, 1, -60, 60, 0, 0, 0, 0, 4, 0, 2, 0, 100, 200, 300]
    row += [0] * 9 + [7.5] + [0] * 6
    for width in range(26, 43):
        (tmp_path / "a.tbl").write_text(" ".join(map(str, row[:width])) + "\n")
        (found,) = load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=15)
        scale = 0.5 if width >= 36 else 1.0
        np.testing.assert_allclose(found.centre_zyx, [[302 * scale, 199 * scale, 100.5 * scale]])
        assert (found.tomogram_name, found.kind[0]) == ("4", "class_2")
    (tmp_path / "a.tbl").write_text(" ".join(map(str, row[:25])) + "\n")
    with pytest.raises(ReadError, match="25 columns"):
        load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=15)


def row_of_a_table(**values):
    """Return a line of 36 columns, in which the given 1-based columns (c1 ...) are set."""
    row = ["0"] * 36
    row[0] = row[1] = "1"
    row[19], row[23:26], row[35] = "4", ["10", "20", "30"], "10.6"
    for column, value in values.items():
        row[int(column[1:]) - 1] = str(value)
    return " ".join(row) + "\n"


def test_shifts_are_added_to_positions(tmp_path):
    (tmp_path / "a.tbl").write_text(row_of_a_table(c4=1.5, c5=-2, c6=0.25))
    np.testing.assert_allclose(load_candidates(tmp_path / "a.tbl").centre_zyx, [[30.25, 18, 11.5]])


@pytest.mark.parametrize("column", [3, 11, 13, 21, 23, 27, 36])
@pytest.mark.parametrize("text", ["NaN", "Inf", "text"])
def test_columns_that_are_not_used_may_hold_anything(tmp_path, column, text):
    if (column, text) == (36, "text"):
        pytest.skip("the voxel size is a number")
    (tmp_path / "a.tbl").write_text(row_of_a_table(**{f"c{column}": text}))
    found = load_candidates(tmp_path / "a.tbl", voxel_size_angstrom=10.6)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10]])


@pytest.mark.parametrize("column", [4, 7, 10, 20, 22, 24])
def test_nan_in_a_column_that_is_used_is_refused(tmp_path, column):
    (tmp_path / "a.tbl").write_text(row_of_a_table(**{f"c{column}": "NaN"}))
    with pytest.raises(ReadError):
        load_candidates(tmp_path / "a.tbl", voxel_size_angstrom=10.6)
