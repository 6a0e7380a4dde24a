"""Tables of other programs: names, separators, units; and columns that the caller names."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.candidates import normal_from_euler_zyz
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io.particles import export, load_all_candidates, load_candidates

SIZE = {"voxel_size_angstrom": 10.0}
TABLES = {
    "napari": ("index,axis-0,axis-1,axis-2\n0.0,30,20,10.5\n", [30, 20, 10.5]),
    "upper case": ("X,Y,Z\n10.5,20,30\n", [30, 20, 10.5]),
    "semicolons": ("x;y;z\n10.5;20;30\n", [30, 20, 10.5]),
    "decimal commas": ("x;y;z\n10,5;20,0;30\n", [30, 20, 10.5]),
    "names with commas": ("x;y;z;note\n10,5;20;30;TS,1\n", [30, 20, 10.5]),
    "tabs": ("x\ty\tz\n10.5\t20\t30\n", [30, 20, 10.5]),
    "blanks": ("x y z\n10.5  20 30\n", [30, 20, 10.5]),
    "comments": ("# made by hand\nz,y,x\n# first\n30,20,10.5\n", [30, 20, 10.5]),
    "byte order mark": ("\ufeffz,y,x\n30,20,10.5\n", [30, 20, 10.5]),
    "windows": ("z,y,x\r\n30,20,10.5\r\n", [30, 20, 10.5]),
    "czii": ("id,experiment,particle_type,x,y,z\n0,a,ribosome,105,200,300\n", [30, 20, 10.5]),
    "unused text": ("name,z,y,x,note\nTS 1,30,20,10.5,nan\n", [30, 20, 10.5]),
    "unused NaN": ("x,y,z,ccc\n10.5,20,30,NaN\n", [30, 20, 10.5]),
    "both cases": ("X,x,y,z\n99,10.5,20,30\n", [30, 20, 10.5]),
}


@pytest.mark.parametrize("name", TABLES)
def test_known_tables(tmp_path, name):
    text, centre = TABLES[name]
    (tmp_path / "a.csv").write_bytes(text.encode())
    found = load_candidates(tmp_path / "a.csv", **SIZE)
    np.testing.assert_allclose(found.centre_zyx, [centre])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".coords"])
def test_a_line_of_names_counts_in_every_text_file(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_text("score\tz\ty\tx\n0.5\t30\t20\t10.5\n")
    found = load_candidates(tmp_path / f"a{suffix}", **SIZE)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10.5]])
    assert found.score[0] == 0.5


def test_commas_in_names_are_no_decimal_commas(tmp_path):
    (tmp_path / "a.csv").write_text("x;y;z;tomogram\n1,5;2;3;TS,1\n")
    found = load_candidates(tmp_path / "a.csv", **SIZE)
    assert (found.tomogram_name, found.centre_zyx[0, 2]) == ("TS,1", 1.5)


def test_picks_of_czii_are_in_angstrom_and_of_several_tomograms(tmp_path):
    text = "experiment,particle_type,x,y,z\nTS_5_4,apo-ferritin,100.12,200.24,300.36\nTS_6_6,ribosome,0,0,0\n"
    (tmp_path / "a.csv").write_text(text)
    found = load_all_candidates(tmp_path / "a.csv", voxel_size_angstrom=10.012)
    assert [(one.tomogram_name, one.kind[0]) for one in found] == [
        ("TS_5_4", "apo-ferritin"),
        ("TS_6_6", "ribosome"),
    ]
    np.testing.assert_allclose(found[0].centre_zyx, [[30, 20, 10]], atol=1e-5)
    in_voxels = load_all_candidates(tmp_path / "a.csv", voxel_size_angstrom=10.012, angstrom=False)
    np.testing.assert_allclose(in_voxels[0].centre_zyx, [[300.36, 200.24, 100.12]])


def test_flagellar_motors_of_byu(tmp_path):
    text = "row_id,tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,Voxel spacing,Number of motors\n"
    text += "0,tomo_1,30.0,20.0,10.0,13.1,1\n1,tomo_2,-1.0,-1.0,-1.0,15.6,0\n"
    (tmp_path / "a.csv").write_text(text)
    (found,) = load_all_candidates(tmp_path / "a.csv")
    assert (found.tomogram_name, found.voxel_size_angstrom, found.kind[0]) == (
        "tomo_1",
        13.1,
        "flagellar_motor",
    )
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index,axis-0,axis-1,axis-2,axis-3\n0,1,30,20,10\n", "4 axes"),
        ("index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,path,0,1,2,3\n", "shapes"),
        ("10,20,30\n", "--columns"),
        ("a,b,c\n1,2,3\n", "--columns"),
        ("x,y\n1,2\n", "--columns"),
        ("x,y,z\n1,2,3,4\n", "more values than names"),
        ("x,y,z\n1,2,3\n1,2,3,4\n", "failed"),
        ("x,y,z\n1,2,nan\n", "not finite"),
        ("x,y,z\n1,2,three\n", "not a number"),
        ("", "empty"),
    ],
)
def test_unclear_tables_are_refused(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ReadError, match=words):
        load_candidates(tmp_path / "a.csv", **SIZE)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("10.5,20,30\n", "x,y,z"),
        ("30 20 10.5\n", ["z", "y", "x"]),
        ("id,Px,Py,Pz\n7,10.5,20,30\n", "x=Px,y=Py,z=Pz"),
        ("id,Px,Py,Pz\n7,10.5,20,30\n", {"x": 2, "y": 3, "z": 4}),
        ("7 10.5 20 30\n", "x=2 y=3 z=4"),
        ("a,b,c,d\n7,10.5,20,30\n", "-,x,y,z"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_columns_of_the_caller(tmp_path, text, columns, suffix):
    (tmp_path / f"a{suffix}").write_text(text)
    found = load_candidates(tmp_path / f"a{suffix}", columns=columns, **SIZE)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10.5]])


def test_angles_of_six_columns_are_only_read_where_they_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("10.5 20 30 10 50 70\n")
    with pytest.raises(ReadError, match="--columns"):
        load_candidates(tmp_path / "a.txt", **SIZE)
    found = load_candidates(tmp_path / "a.txt", columns="x,y,z,rot,tilt,psi", **SIZE)
    np.testing.assert_allclose(found.normal_zyx, normal_from_euler_zyz([[10, 50, 70]]), atol=1e-6)
    assert found.rot_degrees[0] == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize("columns", ["x,y", "x,y,z,u", "x,x,y,z", "x=1,y=2", "x=1,y,z", "x=,y=2,z=3"])
def test_invalid_columns(tmp_path, columns):
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(ConfigError, match="columns"):
        load_candidates(tmp_path / "a.txt", columns=columns, **SIZE)


def test_columns_that_the_file_does_not_have(tmp_path, make_candidates):
    (tmp_path / "a.txt").write_text("1 2 3\n")
    for columns in ("x,y,z,score", "x=1,y=2,z=4", "x=a,y=b,z=c"):
        with pytest.raises(ReadError):
            load_candidates(tmp_path / "a.txt", columns=columns, **SIZE)
    export(make_candidates(2), tmp_path / "a.star")
    with pytest.raises(ConfigError, match="columns"):
        load_candidates(tmp_path / "a.star", columns="x,y,z")


@pytest.mark.parametrize(
    ("line", "centre"),
    [
        ("10.5 20 30", [30, 20, 10.5]),
        ("2 10.5 20 30", [30, 20, 10.5]),
        ("1 1 10.5 20.5 30", [30, 20, 10]),
        ("2;10.5;20;30", [30, 20, 10.5]),
        ("2\t10.5\t20\t30", [30, 20, 10.5]),
        ("20 30", None),
        ("10.5 20 30 0.9", None),
        ("120 230 45 0.5", None),
        ("1200 230 45 30", None),
        ("1.5 1 10 20 30", None),
        ("1 2 3 4 5 6", None),
        ("1 2 3 4 5 6 7 8", None),
    ],
)
def test_widths_of_text_points(tmp_path, line, centre):
    (tmp_path / "a.txt").write_text(f"{line}\n")
    if centre is None:
        with pytest.raises(ReadError, match="x y z"):
            load_candidates(tmp_path / "a.txt", **SIZE)
        return
    np.testing.assert_allclose(load_candidates(tmp_path / "a.txt", **SIZE).centre_zyx, [centre])


def test_numbers_of_lines_are_no_classes(tmp_path):
    (tmp_path / "a.txt").write_text("1 10 20 30\n2 11 20 30\n3 12 20 30\n")
    with pytest.raises(ReadError, match="--columns"):
        load_candidates(tmp_path / "a.txt", **SIZE)
    found = load_candidates(tmp_path / "a.txt", columns="-,x,y,z", **SIZE)
    assert list(found.kind) == ["t3ss"] * 3
    (tmp_path / "a.txt").write_text("1 10 20 30\n2 11 20 30\n1 12 20 30\n")
    assert list(load_candidates(tmp_path / "a.txt", **SIZE).kind) == ["t3ss", "class_2", "t3ss"]


def test_lines_of_different_widths_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3\n1 2 3 4\n")
    with pytest.raises(ReadError, match="3 and 4 values"):
        load_candidates(tmp_path / "a.txt", **SIZE)


def test_angstrom_of_text_points(tmp_path):
    (tmp_path / "a.txt").write_text("105 200 300\n")
    found = load_candidates(tmp_path / "a.txt", angstrom=True, **SIZE)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10.5]])


def test_angstrom_where_the_format_says_otherwise(tmp_path, make_candidates):
    export(make_candidates(2), tmp_path / "a.mod", "imod")
    export(make_candidates(2), tmp_path / "run", "copick")
    with pytest.raises(ConfigError, match="voxels"):
        load_candidates(tmp_path / "a.mod", angstrom=True)
    with pytest.raises(ConfigError, match="Angstrom"):
        load_candidates(tmp_path / "run", angstrom=False)


def test_decimal_commas_beside_text_with_points(tmp_path):
    path = tmp_path / "picks.csv"
    path.write_text("x;y;z;tomogram\n1,5;2,25;3;TS_01.mrc\n4;5,5;6;TS_01.mrc\n")
    found = load_candidates(path, voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[3, 2.25, 1.5], [6, 5.5, 4]])
    # Where numbers have points, a comma separates thousands.
    path.write_text("x;y;z\n1,500;2.25;3\n1,400;5.5;6\n")
    with pytest.raises(ReadError, match="not a number"):
        load_candidates(path, voxel_size_angstrom=10)
