"""Curation files: round trips, reading as particles, and hostile or odd files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, ReadError, VoxelSizeError
from t3ssfast.io.particles.curation import load_all_curations, load_curation, save_curation

SUFFIXES = [".json", ".csv", ".star"]


@pytest.fixture
def judged(make_candidates):
    """Candidates of one tomogram with every label, and details."""
    labels = np.resize(["accepted", "rejected", "unsure", ""], 20)
    kinds = np.resize(["t3ss", "flagellar_motor"], 20)
    details = {
        "classifier_score": np.linspace(0, 1, 20, dtype=np.float32),
        "chosen_by": np.resize(["random", "uncertain", ""], 20),
    }
    return make_candidates(label=labels, kind=kinds, details=details)


def row(**changes):
    return {"tomogram": "a", "z": 1, "y": 2, "x": 3, "label": "accepted"} | changes


def document(*rows, **changes):
    tomograms = [{"name": "a", "voxel_size_angstrom": 10.0, "shape_zyx": [8, 9, 10]}]
    content = {"format": "t3ssfast-curation", "version": 1, "tomograms": tomograms, "candidates": list(rows)}
    return json.dumps(content | changes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(suffix, judged, tmp_path):
    path = save_curation(judged, tmp_path / f"verdicts{suffix}")
    back = load_curation(path)
    assert back.label.tolist() == judged.label.tolist()
    assert back.kind.tolist() == judged.kind.tolist()
    assert back.details["chosen_by"].tolist() == judged.details["chosen_by"].tolist()
    np.testing.assert_allclose(
        back.details["classifier_score"], judged.details["classifier_score"], atol=1e-6
    )
    np.testing.assert_allclose(back.centre_zyx, judged.centre_zyx, atol=1e-3)
    np.testing.assert_allclose(back.normal_zyx, judged.normal_zyx, atol=1e-6)
    np.testing.assert_allclose(back.rot_degrees, judged.rot_degrees, atol=1e-3)
    np.testing.assert_allclose(back.score, judged.score, atol=1e-6)
    assert (back.tomogram_name, back.voxel_size_angstrom) == ("TS_007", pytest.approx(13.6))
    if suffix != ".csv":
        assert back.tomogram_shape == judged.tomogram_shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_tomograms(suffix, make_candidates, tmp_path):
    names = ["007", "=HYPERLINK(1)", "Bakterie é", "</script><b>", "none"]
    several = [
        make_candidates(3, seed=i, tomogram_name=n, label=["accepted"] * 3) for i, n in enumerate(names)
    ]
    path = save_curation(several, tmp_path / f"v{suffix}")
    back = load_all_curations(path)
    assert [some.tomogram_name for some in back] == names
    with pytest.raises(ReadError, match="5 tomograms"):
        load_curation(path)
    assert len(load_curation(path, tomogram="007")) == 3
    with pytest.raises(ReadError, match="no verdicts on 'x'"):
        load_curation(path, tomogram="x")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_accepted_candidates_are_particles(suffix, judged, tmp_path):
    path = save_curation(judged, tmp_path / f"v{suffix}")
    particles = t3.load_candidates(path, tomogram_shape=judged.tomogram_shape)
    accepted = judged[judged.label == "accepted"]
    assert len(particles) == len(accepted) == 5
    np.testing.assert_allclose(particles.centre_zyx, accepted.centre_zyx, atol=1e-3)


def test_relion_finds_the_accepted_particles_in_a_star_file(judged, tmp_path):
    path = save_curation(judged, tmp_path / "v.star")
    text = path.read_text()
    block = text.split("data_particles")[1].split("data_t3ssfast")[0]
    rows = [line for line in block.splitlines() if line.startswith("TS_007")]
    assert len(rows) == 5
    assert "rlnCenteredCoordinateXAngst" in block


def test_size_of_voxels_can_be_given(judged, tmp_path):
    path = save_curation(judged, tmp_path / "v.json")
    back = load_curation(path, voxel_size_angstrom=6.8)
    np.testing.assert_allclose(back.centre_zyx, 2 * judged.centre_zyx, rtol=1e-6)
    assert back.tomogram_shape is None
    (tmp_path / "hand.csv").write_text("z,y,x,label\n1,2,3,Accept\n4,5,6,\n")
    with pytest.raises(VoxelSizeError):
        load_curation(tmp_path / "hand.csv")
    by_hand = load_curation(tmp_path / "hand.csv", voxel_size_angstrom=10)
    assert by_hand.label.tolist() == ["accepted", ""]
    np.testing.assert_array_equal(by_hand.normal_zyx, [[1, 0, 0], [1, 0, 0]])


def test_a_candidate_at_one_position_counts_once(tmp_path):
    (tmp_path / "v.json").write_text(document(row(label=""), row(), row(), row(z=2)))
    back = load_curation(tmp_path / "v.json")
    assert back.label.tolist() == ["accepted", "accepted"]
    (tmp_path / "v.json").write_text(document(row(), row(label="rejected")))
    with pytest.raises(ReadError, match="both accepted and rejected"):
        load_curation(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a curation file"),
        ("[]", "not a curation file"),
        ("{" * 100_000, "not a curation file"),
        ("[" * 100_000, "not a curation file"),
        (document(row(), format="other"), "not a curation file"),
        (document(row(), version=2), "update t3ssfast"),
        (document(row(), version=None), "update t3ssfast"),
        (document(row(), tomograms=None), "not a curation file"),
        (document(row(tomogram=None)), "not a curation file"),
        (document(row(label="perhaps")), "label 'perhaps' is unknown"),
        (document(row(z=float("nan"))), "not finite"),
        (document(row(z=1e30)), "exceeds"),
        (document(row(z="here")), "not a number"),
        (document(row(z=10**400)), "not a number"),
        (document(row(score=float("inf"))), "not finite"),
        (document(row(normal_z=0)), "length 0"),
        (document({"label": "accepted"}), "not a curation file"),
    ],
)
def test_bad_json_is_refused_in_one_sentence(text, reason, tmp_path):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(ReadError, match=reason):
        load_curation(tmp_path / "v.json")


def test_halves_of_characters_are_replaced(tmp_path):
    (tmp_path / "v.json").write_text(document(row(kind="\ud800x")))
    back = load_curation(tmp_path / "v.json")
    assert back.kind.tolist() == ["_x"]
    for suffix in SUFFIXES:
        assert load_curation(save_curation(back, tmp_path / f"again{suffix}")).kind.tolist() == ["_x"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("v.csv", "", "empty"),
        ("v.csv", "z,y,x\n1,2,3\n", "no column is called label"),
        ("v.csv", "z,y,x,label\n1,2,3,maybe\n", "'maybe' is unknown"),
        ("v.csv", "z,y,x,label,curation_version\n1,2,3,accepted,9\n", "update t3ssfast"),
        ("v.star", "data_x\n_a 1\n", "no block t3ssfast_verdicts"),
        ("v.star", "nothing", "star file"),
    ],
)
def test_bad_tables_are_refused(name, text, reason, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ReadError, match=reason):
        load_curation(tmp_path / name, voxel_size_angstrom=10)


def test_other_suffixes_are_refused(judged, tmp_path):
    with pytest.raises(ConfigError, match="suffix"):
        save_curation(judged, tmp_path / "v.txt")
    with pytest.raises(ConfigError, match="suffix"):
        load_curation(tmp_path / "v.txt")
    with pytest.raises(ReadError, match="no file"):
        load_curation(tmp_path / "missing.json")
    with pytest.raises(InputError, match="different names"):
        save_curation([judged, judged], tmp_path / "v.json")


def test_tables_for_spreadsheets_hold_no_formula(make_candidates, tmp_path):
    hostile = make_candidates(1, tomogram_name="=1+1", label=["accepted"], details={"chosen_by": ["@x"]})
    save_curation(hostile, tmp_path / "v.csv")
    table = pd.read_csv(tmp_path / "v.csv", dtype=str)
    assert not table.map(lambda value: str(value)[0] in "=+@").to_numpy().any()


def test_labels_of_other_programs_in_csv_files_are_no_verdicts(tmp_path):
    (tmp_path / "napari.csv").write_text("index,axis-0,axis-1,axis-2,label\n0,1,2,3,7\n1,4,5,6,9\n")
    found = t3.load_candidates(tmp_path / "napari.csv", voxel_size_angstrom=10)
    assert found.label.tolist() == ["", ""]


def test_labels_are_checked_and_selected():
    arrays = {
        "centre_zyx": np.eye(3),
        "score": np.ones(3),
        "normal_zyx": np.eye(3),
        "voxel_size_angstrom": 10.0,
    }
    some = Candidates(**arrays, label=["accepted", "", "unsure"], details={"verifier_score": [1, 2, 3]})
    assert some[1:].label.tolist() == ["", "unsure"]
    assert some[[True, False, True]].details["verifier_score"].tolist() == [1, 3]
    assert list(some.to_dataframe())[-2:] == ["verifier_score", "label"]
    assert "label" not in Candidates(**arrays).to_dataframe()
    with pytest.raises(InputError, match="'good' is unknown"):
        Candidates(**arrays, label=["good", "", ""])
    with pytest.raises(InputError, match="2 entries for 3"):
        Candidates(**arrays, details={"a": [1, 2]})
