"""Files for viewers: marker files, motive lists for ArtiaX, picks of RELION 5's napari picker."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from t3ssfast.io.particles import export, load_candidates
from t3ssfast.io.particles.relion import read_star


def test_markers_stand_on_particles_and_link_to_the_tips_of_needles(tmp_path, make_candidates):
    hostile = 'a"<b>&\n'
    candidates = make_candidates(5, tomogram_name=hostile, kind=["t3ss", "flagellar_motor", *["t3ss"] * 3])
    export(candidates, tmp_path / "a.cmm", "cmm")
    root = ET.parse(tmp_path / "a.cmm").getroot()
    assert root.get("name") == 'a"<b>&_'
    markers = {m.get("id"): np.array([float(m.get(axis)) for axis in "zyx"]) for m in root.iter("marker")}
    notes = [m.get("note") for m in root.iter("marker") if m.get("note")]
    assert notes == [f"{k} {s:.3f}" for k, s in zip(candidates.kind, candidates.score, strict=True)]
    links = list(root.iter("link"))
    assert len(links) == 5
    for row, link in enumerate(links):
        base, tip = markers[link.get("id1")], markers[link.get("id2")]
        np.testing.assert_allclose(base, candidates.centre_zyx[row] * 13.6, atol=0.01)
        direction = (tip - base) / np.linalg.norm(tip - base)
        np.testing.assert_allclose(direction, candidates.normal_zyx[row], atol=1e-3)
    colours = [tuple(m.get(c) for c in "rgb") for m in root.iter("marker")]
    assert colours[0] == colours[1]
    assert len(set(colours)) == 5, "scores and kinds differ in colour"


def test_marker_file_without_particles(tmp_path, make_candidates):
    export(make_candidates(0), tmp_path / "b.cmm", "cmm")
    assert list(ET.parse(tmp_path / "b.cmm").getroot()) == []


@pytest.mark.parametrize(("name", "number"), [("TS_007", 7), ("12", 12), ("grid2_TS_031_rec", 31), ("x", 1)])
def test_motive_lists_for_artiax(tmp_path, make_candidates, name, number):
    pytest.importorskip("emfile")
    candidates = make_candidates(9, tomogram_name=name)
    export(candidates, tmp_path / "a.em", "em")
    found = load_candidates(tmp_path / "a.em", voxel_size_angstrom=13.6)
    assert found.tomogram_name == str(number)
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx, atol=1e-3)
    np.testing.assert_allclose(found.normal_zyx, candidates.normal_zyx, atol=1e-5)
    np.testing.assert_allclose(found.score, candidates.score, atol=1e-6)
    turn = (found.rot_degrees - candidates.rot_degrees + 180) % 360 - 180
    np.testing.assert_allclose(turn[2:], 0, atol=1e-2)


def test_picks_go_to_the_picker_of_relion_and_back(tmp_path, make_candidates):
    candidates = make_candidates(6)
    folder = tmp_path / "annotations"
    folder.mkdir()
    path = folder / "TS_007_particles.star"
    export(candidates, path, "relion-picks")
    (table,) = read_star(path).values()
    assert list(table) == ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    found = load_candidates(path, voxel_size_angstrom=13.6)
    assert found.tomogram_name == "TS_007"
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx, atol=1e-3)


def test_picks_as_the_picker_writes_them(tmp_path):
    text = "data_\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\n"
    (tmp_path / "TS_01_particles.star").write_text(text + "TS_01 10.5 20.25 30\nTS_01 1 2 3\n")
    found = load_candidates(tmp_path / "TS_01_particles.star", voxel_size_angstrom=10)
    assert found.tomogram_name == "TS_01"
    np.testing.assert_allclose(found.centre_zyx, [[30, 20.25, 10.5], [3, 2, 1]])
