"""copick files of picks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t3ssfast.errors import ConfigError
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
