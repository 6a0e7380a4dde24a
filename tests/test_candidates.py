"""Candidates, poses, tomograms, voxel sizes, the configuration of a detection, and exceptions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from t3ssfast import errors
from t3ssfast.candidates import Candidates, euler_zyz_from_normal, normal_from_euler_zyz
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, InputError, T3Error, VoxelSizeError
from t3ssfast.tomogram import Tomogram, check_voxel_size

directions = st.tuples(*[st.floats(-1, 1, allow_nan=False, width=32)] * 3).filter(
    lambda v: np.linalg.norm(v) > 1e-3
)


def angle_between(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b)))


@settings(deadline=None, max_examples=50)
@given(directions)
def test_round_trip_of_normals_through_angles(normal):
    found = normal_from_euler_zyz(euler_zyz_from_normal([normal]))[0]
    assert angle_between(normal, found) < 0.01


@pytest.mark.parametrize(
    "normal", [(1, 0, 0), (-1, 0, 0), (1, 1e-9, 0), (-1, 0, -1e-9), (0, 1, 0), (0, 0, 1)]
)
def test_angles_of_normals_along_the_axes(normal):
    euler = euler_zyz_from_normal([normal])
    assert np.isfinite(euler).all()
    assert angle_between(normal, normal_from_euler_zyz(euler)[0]) < 1e-4


def test_angles_follow_relion_convention():
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(50, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    rot, tilt, psi = euler_zyz_from_normal(normal).T
    nz, ny, nx = normal.T
    np.testing.assert_allclose(tilt, np.degrees(np.arccos(nz)), atol=1e-3)
    np.testing.assert_allclose(psi, np.degrees(np.arctan2(ny, -nx)), atol=1e-3)
    rotated = Rotation.from_euler("ZYZ", np.stack([rot, tilt, psi], 1), degrees=True).inv().apply([0, 0, 1])
    np.testing.assert_allclose(rotated[:, ::-1], normal, atol=1e-5)


@pytest.mark.parametrize("normal", [(0, 0, 0), (np.nan, 0, 1), (np.inf, 0, 1)])
def test_invalid_normals_raise(normal):
    with pytest.raises(InputError):
        euler_zyz_from_normal([normal])


def test_empty_input_gives_empty_output():
    assert euler_zyz_from_normal(np.zeros((0, 3))).shape == (0, 3)
    assert normal_from_euler_zyz(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf"), 0.1, 1e6, None, "x", [1.0, 2.0]])
def test_invalid_voxel_sizes_raise(size):
    with pytest.raises(VoxelSizeError, match="voxel_size_angstrom"):
        check_voxel_size(size, source="a.mrc")


def test_valid_voxel_sizes_are_returned_as_floats():
    assert check_voxel_size("13.6", source="a.mrc") == 13.6
    assert type(check_voxel_size(np.float32(10), source="a.mrc")) is float


def test_tomogram_validates_shape_and_voxel_size():
    tomogram = Tomogram(np.zeros((2, 3, 4)), 10)
    assert tomogram.shape == (2, 3, 4)
    assert tomogram.name == "tomogram"
    with pytest.raises(InputError, match="3 axes"):
        Tomogram(np.zeros((3, 4)), 10.0)
    with pytest.raises(VoxelSizeError):
        Tomogram(np.zeros((2, 3, 4)), 0.0)


def test_candidates_accept_lists():
    candidates = Candidates([[1, 2, 3]], [0.5], [[0, 0, 2]], 10.0)
    assert candidates.centre_zyx.dtype == np.float32
    np.testing.assert_array_equal(candidates.normal_zyx, [[0, 0, 1]])
    assert list(candidates.kind) == ["t3ss"]
    assert len(Candidates.empty(10.0)) == 0
    assert Candidates.empty(10.0).euler_zyz.shape == (0, 3)


@pytest.mark.parametrize(
    "field", [{"score": [1, 2]}, {"normal_zyx": [[0, 0, 0]]}, {"centre_zyx": [[np.nan, 0, 0]]}, {"kind": []}]
)
def test_invalid_candidates_raise(field):
    fields = {"centre_zyx": [[0, 0, 0]], "score": [1], "normal_zyx": [[1, 0, 0]], "voxel_size_angstrom": 10.0}
    with pytest.raises(InputError, match=next(iter(field))):
        Candidates(**(fields | field))


def test_indexing_and_sorting(make_candidates):
    candidates = make_candidates(10)[::-1]
    assert len(candidates[candidates.score > 0.5]) == (candidates.score > 0.5).sum()
    assert len(candidates[3]) == 1
    ordered = candidates.sorted_by_score()
    assert (np.diff(ordered.score) <= 0).all()
    np.testing.assert_array_equal(ordered.centre_zyx, candidates.centre_zyx[::-1])
    assert ordered.tomogram_name == "TS_007"


def test_to_dataframe(make_candidates):
    candidates = make_candidates(5)
    table = candidates.to_dataframe()
    expected = ["z", "y", "x", "score", "normal_z", "normal_y", "normal_x", "rot", "tilt", "psi"]
    assert list(table)[:10] == expected
    np.testing.assert_array_equal(table[["rot", "tilt", "psi"]].to_numpy(), candidates.euler_zyz)


@pytest.mark.parametrize(
    "option",
    [
        {"contrast": "grey"},
        {"membrane_threshold": 2},
        {"search_distance_nm": -1},
        {"min_distance_nm": float("nan")},
        {"max_candidates": 0},
        {"plan": "fast"},
        {"precision": "int8"},
        {"segmenter_engine": "abacus"},
        {"memory_budget_bytes": 1},
        {"slab_slices": 0},
        {"threads": 0},
    ],
)
def test_invalid_configuration_names_the_option(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        DetectConfig(**option)


def test_configuration_round_trip_through_a_dictionary():
    assert DetectConfig(**DetectConfig().to_dict()) == DetectConfig()


def test_exceptions_share_a_base_class():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), UserWarning if name.endswith("Warning") else T3Error)


def test_kinds_of_candidates():
    place = {
        "centre_zyx": np.eye(3),
        "score": [1, 0.5, 0.2],
        "normal_zyx": np.eye(3),
        "voxel_size_angstrom": 10,
    }
    assert Candidates(**place).kind.tolist() == ["t3ss"] * 3
    assert Candidates(**place, kind="flagellar_motor").kind.tolist() == ["flagellar_motor"] * 3
    mixed = Candidates(**place, kind=["flagellar_motor", "", "t3ss"])
    assert mixed.kind.tolist() == ["flagellar_motor", "t3ss", "t3ss"]
    assert mixed.of_kinds("t3ss").score.tolist() == pytest.approx([0.5, 0.2])
    assert len(mixed.of_kinds("t3ss", "flagellar_motor")) == 3
    assert len(mixed.of_kinds()) == 0
    assert mixed.sorted_by_score()[:1].kind.tolist() == ["flagellar_motor"]
    assert mixed.to_dataframe()["kind"].tolist() == mixed.kind.tolist()
    for kind in ([1, 2, 3], [["t3ss"]], ["t3ss"]):
        with pytest.raises(InputError, match="kind"):
            Candidates(**place, kind=kind)
