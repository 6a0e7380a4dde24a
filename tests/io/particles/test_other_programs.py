"""Particle files of programs whose formats are only read: positions, angles and scores."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from rotations import zxz
from t3ssfast.errors import ConfigError, ReadError, VoxelSizeError
from t3ssfast.io.particles import load_all_candidates, load_candidates
from t3ssfast.io.particles.poses import rotation_of

ANGLES = [(20.0, 40.0, 70.0), (-110.0, 130.0, 5.0)]  # phi, theta, psi
SHAPE = (80, 90, 101)


def assert_poses(found, angles=ANGLES):
    expected = [zxz(*each) for each in angles]
    np.testing.assert_allclose(rotation_of(found).as_matrix(), expected, atol=1e-5)
    np.testing.assert_allclose(found.normal_zyx[:, ::-1], [each[:, 2] for each in expected], atol=1e-6)


def write_cbox(path, rows):
    names = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "EstWidth"]
    names += ["EstHeight", "Confidence", "NumBoxes", "Angle"]
    header = "data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
    header += "".join(f"_{name} #{i}\n" for i, name in enumerate(names, 1))
    path.write_text(header + "\n".join(" ".join(map(str, row)) for row in rows) + "\n")


def test_cbox_positions_are_the_centres_of_boxes(tmp_path):
    # TomoTwin writes X - w / 2, Y - w / 2 and Z.
    x, y, z, width = 100.0, 50.0, 20.0, 37
    row = [x - width / 2, y - width / 2, z, width, width, width, "<NA>", "<NA>", 0.75, "nan", "<NA>"]
    write_cbox(tmp_path / "TS_1.cbox", [row])
    with pytest.raises(VoxelSizeError):
        load_candidates(tmp_path / "TS_1.cbox")
    found = load_candidates(tmp_path / "TS_1.cbox", voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[z, y, x]])
    assert (found.score[0], found.tomogram_name) == (0.75, "TS_1")
    in_angstrom = load_candidates(tmp_path / "TS_1.cbox", voxel_size_angstrom=10, angstrom=True)
    np.testing.assert_allclose(in_angstrom.centre_zyx, [[2, 5, 10]])


def test_boxes_of_micrographs_are_refused(tmp_path):
    write_cbox(tmp_path / "a.cbox", [[1, 2, "<NA>", 3, 3, "<NA>", 3, 3, 0.5, 1, 0]])
    with pytest.raises(ReadError, match="micrograph"):
        load_candidates(tmp_path / "a.cbox", voxel_size_angstrom=10)


def motive_list(**values):
    rows = np.zeros((2, 20), np.float32)
    rows[:, 0], rows[:, 4], rows[:, 19] = (0.5, 0.25), (7, 12), (1, 2)
    rows[:, 7:10] = (10, 20, 30)
    rows[:, 10:13] = (0.5, -1.5, 2)
    rows[:, [16, 18, 17]] = ANGLES
    for column, value in values.items():
        rows[:, int(column[1:]) - 1] = value
    return rows


def test_em_motive_list(tmp_path):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "motl.em", motive_list()[None])
    found = load_all_candidates(tmp_path / "motl.em", voxel_size_angstrom=8)
    assert [(one.tomogram_name, list(one.kind)) for one in found] == [("7", ["t3ss"]), ("12", ["class_2"])]
    for one, score, angles in zip(found, (0.5, 0.25), ANGLES, strict=True):
        np.testing.assert_allclose(one.centre_zyx, [[32, 18.5, 10.5]])
        assert one.score[0] == score
        assert_poses(one, [angles])
    assert len(load_all_candidates(tmp_path / "motl.em", voxel_size_angstrom=8)) == 2


def test_em_fields_that_are_not_used_may_hold_anything(tmp_path):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "motl.em", motive_list(c2=np.nan, c7=-1e30)[None])
    assert len(load_all_candidates(tmp_path / "motl.em", voxel_size_angstrom=8)) == 2


@pytest.mark.parametrize("change", [{"c14": 1.0}, {"c16": -0.5}, {"c8": np.nan}])
def test_em_shifts_before_the_rotation_are_refused(tmp_path, change):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "motl.em", motive_list(**change)[None])
    with pytest.raises(ReadError):
        load_all_candidates(tmp_path / "motl.em", voxel_size_angstrom=8)


def test_em_volumes_are_no_motive_lists(tmp_path, monkeypatch):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "volume.em", np.zeros((4, 5, 6), np.float32))
    with pytest.raises(ReadError, match="6 x 5 x 4"):
        load_all_candidates(tmp_path / "volume.em", voxel_size_angstrom=8)
    (tmp_path / "short.em").write_bytes((tmp_path / "volume.em").read_bytes()[:-1])
    with pytest.raises(ReadError, match="truncated"):
        load_all_candidates(tmp_path / "short.em", voxel_size_angstrom=8)
    monkeypatch.setitem(sys.modules, "emfile", None)
    with pytest.raises(ReadError, match=r"t3ssfast\[formats\]"):
        load_all_candidates(tmp_path / "volume.em", voxel_size_angstrom=8)


def test_eman_boxes_from_the_middle_of_the_unbinned_tomogram(tmp_path):
    boxes = [[-100, 40, 8, "manual", 0.0, 0], [0, 0, 0, "tm", 0.5, 1], [4, 4, 4]]
    info = {"apix_unbin": 2.5, "boxes_3d": boxes, "class_list": {"1": {"boxsize": 64, "name": "motor"}}}
    path = tmp_path / "TS_01_info.json"
    path.write_text(json.dumps(info))
    with pytest.raises(ReadError, match="middle"):
        load_candidates(path, voxel_size_angstrom=10)
    found = load_candidates(path, voxel_size_angstrom=10, tomogram_shape=SHAPE)
    # As e2spt_boxer.py: b / apix * apix_unbin + n // 2.
    expected = [[8 / 4 + 40, 40 / 4 + 45, -100 / 4 + 50], [40, 45, 50], [41, 46, 51]]
    np.testing.assert_allclose(found.centre_zyx, expected)
    assert list(found.kind) == ["t3ss", "motor", "t3ss"]
    assert (list(found.score), found.tomogram_name) == ([0.0, 0.5, 1.0], "TS_01")
    with pytest.raises(ConfigError, match="voxels"):
        load_candidates(path, voxel_size_angstrom=10, tomogram_shape=SHAPE, angstrom=True)


def test_eman_boxes_without_a_pixel_size_are_voxels(tmp_path):
    (tmp_path / "a_info.json").write_text(json.dumps({"boxes_3d": [[10, 20, 30, "manual", 0.0, 0]]}))
    found = load_candidates(tmp_path / "a_info.json", voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10]])
    (tmp_path / "b.json").write_text(json.dumps({"boxes_3d": [[10, 20]]}))
    with pytest.raises(ReadError):
        load_candidates(tmp_path / "b.json", voxel_size_angstrom=10)


def test_points_of_the_data_portal(tmp_path):
    lines = [
        {
            "type": "orientedPoint",
            "location": {"x": 10.5, "y": 20, "z": 30},
            "xyz_rotation_matrix": m.tolist(),
        }
        for m in (zxz(*ANGLES[0]), zxz(*ANGLES[1]))
    ]
    path = tmp_path / "TS_1-injectisome-1.0_orientedpoint.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = load_candidates(path, voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10.5]] * 2)
    assert_poses(found)
    del lines[1]["xyz_rotation_matrix"]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    with pytest.raises(ReadError, match="1 of 2 points"):
        load_candidates(path, voxel_size_angstrom=10)
    path.write_text('{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}\n')
    np.testing.assert_allclose(load_candidates(path, voxel_size_angstrom=10).centre_zyx, [[3, 2, 1]])
    mirrored = {"location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": np.diag([1, 1, -1]).tolist()}
    for line in ("{}", "[1]", "x", '{"location": {"x": 1}}', json.dumps(mirrored)):
        path.write_text(line)
        with pytest.raises(ReadError):
            load_candidates(path, voxel_size_angstrom=10)


def test_voxel_size_of_the_data_portal(tmp_path):
    folder = tmp_path / "VoxelSpacing20.000" / "Annotations" / "100"
    folder.mkdir(parents=True)
    (folder / "a.ndjson").write_text('{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}')
    assert load_candidates(folder / "a.ndjson").voxel_size_angstrom == 20
    found = load_candidates(folder / "a.ndjson", voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[6, 4, 2]])


PYTOM = """<!-- PyTom Version: 0.971 -->
<ParticleList>
  <Particle Filename="particle_0.em">
    <Rotation X="40.0" Paradigm="ZXZ" Z1="20.0" Z2="70.0"/>
    <Shift X="0.5" Y="-1.5" Z="2.0"/>
    <PickPosition Origin="volumes/TS_03.em" X="10" Y="20" Z="30"/>
    <Score Type="FLCFScore" RemoveAutocorrelation="False" Value="0.5"/>
    <Class Name="2"/>
  </Particle>
  <Particle Filename="particle_1.em">
    <Rotation X="130.0" Z1="-110.0" Z2="5.0"/>
    <Shift X="0" Y="0" Z="0"/>
    <PickPosition Origin="volumes/TS_03.em" X="1" Y="2" Z="3"/>
    <Score Type="FLCFScore" Value="0.25"/>
  </Particle>
</ParticleList>"""


def test_pytom_list(tmp_path):
    (tmp_path / "list.xml").write_text(PYTOM)
    found = load_candidates(tmp_path / "list.xml", voxel_size_angstrom=10)
    np.testing.assert_allclose(found.centre_zyx, [[32, 18.5, 10.5], [3, 2, 1]])
    assert_poses(found)
    assert (list(found.score), list(found.kind)) == ([0.5, 0.25], ["class_2", "t3ss"])
    assert found.tomogram_name == "TS_03"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('Paradigm="ZXZ"', 'Paradigm="ZYZ"', "paradigm"),
        ('X="10" Y', 'Binning="4" X="10" Y', "Binning"),
        ('X="10" Y', 'X="ten" Y', "not a number"),
        ('<PickPosition Origin="volumes/TS_03.em" X="1" Y="2" Z="3"/>', "", "PickPosition"),
        ("ParticleList", "Filter", "neither"),
        ("</Particle>", "", "not an XML"),
        ("<!-- PyTom", '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><!-- PyTom', "DTD"),
    ],
)
def test_unclear_or_hostile_xml_is_refused(tmp_path, old, new, words):
    (tmp_path / "list.xml").write_text(PYTOM.replace(old, new))
    with pytest.raises(ReadError, match=words):
        load_candidates(tmp_path / "list.xml", voxel_size_angstrom=10)


def test_deepfinder_list(tmp_path):
    rows = "".join(
        f'<object tomo_idx="{tomogram}" class_label="{label}" x="10.000" y="20.000" z="{z}.000" '
        f'psi="{psi}" phi="{phi}" the="{theta}" cluster_size="12"/>'
        for (phi, theta, psi), tomogram, label, z in zip(ANGLES, (0, 1), (1, 3), (30, 31), strict=True)
    )
    (tmp_path / "objl.xml").write_text(f"<objlist>{rows}</objlist>")
    found = load_all_candidates(tmp_path / "objl.xml", voxel_size_angstrom=10)
    assert [(one.tomogram_name, list(one.kind)) for one in found] == [("0", ["t3ss"]), ("1", ["class_3"])]
    np.testing.assert_allclose(found[1].centre_zyx, [[31, 20, 10]])
    for one, angles in zip(found, ANGLES, strict=True):
        assert_poses(one, [angles])
    (tmp_path / "TS_9.xml").write_text('<objlist><object class_label="1" x="1" y="2" z="3"/></objlist>')
    plain = load_candidates(tmp_path / "TS_9.xml", voxel_size_angstrom=10)
    assert plain.tomogram_name == "TS_9"
    np.testing.assert_allclose(plain.normal_zyx, [[1, 0, 0]])


def test_empty_lists(tmp_path):
    (tmp_path / "a.xml").write_text("<objlist/>")
    (tmp_path / "a.ndjson").write_text("")
    (tmp_path / "a.json").write_text('{"boxes_3d": []}')
    for name in ("a.xml", "a.ndjson", "a.json"):
        assert len(load_candidates(tmp_path / name, voxel_size_angstrom=10)) == 0
