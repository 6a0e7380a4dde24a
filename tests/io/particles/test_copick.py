"""copick files of picks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io.particles import export, load_candidates


def test_copick_json_and_file_names(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "TS_007", "copick")
    content = json.loads((tmp_path / "TS_007" / "Picks" / "t3ssfast_1_t3ss.json").read_text())
    assert content["run_name"] == "TS_007"
    assert content["points"][0]["location"]["x"] == pytest.approx(candidates.centre_zyx[0, 2] * 13.6)
    matrix = np.array(content["points"][3]["transformation_"])
    np.testing.assert_allclose(matrix[:3, 2], candidates.normal_zyx[3, ::-1], atol=1e-5)
    export(candidates, tmp_path / "me_2_needle.json", "copick")
    assert load_candidates(tmp_path / "me_2_needle.json").kind[0] == "needle"
    with pytest.raises(ConfigError, match="underscores"):
        export(candidates, tmp_path / "my_needle_complex_1.json", "copick")


def picks(path, **point):
    point = {"location": {"x": 400.0, "y": 500.0, "z": 600.0}, **point}
    content = {"run_name": "R", "voxel_spacing": 10.0, "unit": "angstrom", "points": [point]}
    path.write_text(json.dumps(content | {"pickable_object_name": "inj"}))
    return path


def test_translation_of_a_point_is_added_to_its_location(tmp_path):
    matrix = [[0, 0, 1, 30.0], [0, 1, 0, -20.0], [-1, 0, 0, 50.0], [0, 0, 0, 1.0]]
    found = load_candidates(picks(tmp_path / "a_1_inj.json", transformation_=matrix))
    # As copick.util.relion.picks_to_df_relion: location + translation, in Angstrom.
    np.testing.assert_allclose(found.centre_zyx, [[65, 48, 43]])
    np.testing.assert_allclose(found.normal_zyx, [[0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([2.0, 2, 2, 1]),
        np.diag([1.0, 1, -1, 1]),
        np.diag([1.0, 1, 1, 2]),
        np.eye(4) + np.eye(4, k=1) * [0, 0.2, 0, 0],
        np.eye(4) * np.nan,
    ],
)
def test_transformations_other_than_rotation_and_translation_are_refused(tmp_path, matrix):
    path = picks(tmp_path / "a_1_inj.json", transformation_=matrix.tolist())
    with pytest.raises(ReadError):
        load_candidates(path)
