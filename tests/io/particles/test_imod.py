"""IMOD models and text points."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from imodmodel.models import ImodModel

from t3ssfast.errors import ReadError
from t3ssfast.io.particles import export, load_candidates


def test_exported_model_in_imod_coordinates(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.mod", "imod")
    model = ImodModel.from_file(tmp_path / "a.mod")
    assert [item.header.name for item in model.objects] == ["t3ss", "normals"]
    expected = candidates.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0]
    np.testing.assert_allclose(model.objects[0].contours[0].points, expected, rtol=1e-6)
    assert model.header.pixelsize == pytest.approx(1.36)
    assert (model.header.units, model.header.xmax) == (-9, 1023)
    assert int(model.header.flags) == 1 << 10


def test_model_of_imod_equals_imodmodel(data):
    model = load_candidates(data / "imod_objects.mod")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = ImodModel.from_file(data / "imod_objects.mod")
    points = np.concatenate([c.points for item in reference.objects for c in item.contours])
    np.testing.assert_allclose(model.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0], points, rtol=1e-5)
    assert model.voxel_size_angstrom == pytest.approx(19.73333)


def test_points_below_the_first_section(tmp_path, make_candidates):
    below = make_candidates(4, centre_zyx=[[-12.5, 3, 4], [-1, -2, -3], [0, 0, 0], [7, 8, 9]])
    export(below, tmp_path / "a.mod", "imod")
    np.testing.assert_allclose(load_candidates(tmp_path / "a.mod").centre_zyx, below.centre_zyx, atol=1e-4)
    points = ImodModel.from_file(tmp_path / "a.mod").objects[0].contours[0].points
    np.testing.assert_allclose(points[:, 2], [-12.5, -1, 0, 7], atol=1e-4)


def test_text_points(tmp_path, make_candidates):
    candidates = make_candidates(5)
    export(candidates, tmp_path / "a.txt", "imod")
    assert np.loadtxt(tmp_path / "a.txt")[0, 0] == pytest.approx(candidates.centre_zyx[0, 2] + 0.5, abs=1e-3)
    found = load_candidates(tmp_path / "a.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx, atol=1e-3)
    (tmp_path / "b.txt").write_text("1 1 10.5 20.5 30\n1 2 1.5 2.5 -3\n")
    two = load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(two.centre_zyx, [[30, 20, 10], [-3, 2, 1]])
    (tmp_path / "b.txt").write_text("1 2\n")
    with pytest.raises(ReadError, match="2 values"):
        load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)
