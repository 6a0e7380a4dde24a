"""Results of a detection in a folder."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest

from t3ssfast.detection.result import Detection
from t3ssfast.errors import ConfigError, OutputError
from t3ssfast.io.particles import load_candidates


def test_folder_of_results(tmp_path, make_candidates):
    candidates = make_candidates(6, tomogram_shape=None)
    membrane = np.zeros((8, 9, 10), np.uint8)
    membrane[2:4] = 1
    provenance = {"n": np.int64(3), "path": tmp_path, "times": np.array([1.5])}
    Detection(candidates, membrane, provenance).save(tmp_path / "new" / "out")
    names = sorted(p.name for p in (tmp_path / "new" / "out").iterdir())
    tables = [f"candidates.{suffix}" for suffix in ("csv", "doc", "mod", "star", "tbl")]
    assert names == [*tables, "membrane.mrc", "provenance.json"]
    with mrcfile.open(tmp_path / "new" / "out" / "membrane.mrc") as file:
        np.testing.assert_array_equal(file.data, membrane)
        assert file.voxel_size.x == pytest.approx(13.6)
    assert json.loads((tmp_path / "new" / "out" / "provenance.json").read_text())["n"] == 3
    for name in ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl"):
        assert len(load_candidates(tmp_path / "new" / "out" / name)) == 6


def test_results_without_membrane_and_without_folder(tmp_path, make_candidates):
    Detection(make_candidates(0), None, {}).save(tmp_path)
    assert not (tmp_path / "membrane.mrc").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Detection(make_candidates(1), None, {}).save(tmp_path / "file")


def test_failed_save_leaves_no_provenance(tmp_path, make_candidates):
    Detection(make_candidates(2), None, {}).save(tmp_path)
    with pytest.raises(ConfigError):
        Detection(make_candidates(2, tomogram_shape=None), None, {}).save(tmp_path)
    assert not (tmp_path / "provenance.json").exists()
