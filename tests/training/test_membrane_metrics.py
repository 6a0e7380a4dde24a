"""Metrics of membranes on sheets, where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.training.bundled.membrane_metrics import membrane_metrics, surface_normals


def sheet(axis: int, start: int, shape: tuple[int, int, int] = (40, 44, 48)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    np.moveaxis(mask, axis, 0)[start : start + 3] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_normals_of_a_sheet_are_along_its_axis(axis: int) -> None:
    voxels, normal = surface_normals(sheet(axis, 20))
    assert len(voxels) == sheet(axis, 20).sum()
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    assert (np.abs(normal[:, axis]) > 0.999).all()


def test_membrane_facing_the_beam_is_excluded_with_voxels_close_to_it() -> None:
    upright, facing = sheet(2, 30), sheet(0, 5)
    facing[:, :, 20:] = False
    true = upright | facing
    # The upright sheet is off by one voxel, the facing one by two.
    segmented = sheet(2, 31) | np.roll(facing, 2, axis=0)
    metrics = membrane_metrics([(segmented, true, 60.0)])
    for name in ("outside the wedge", "outside the caps"):
        np.testing.assert_allclose(metrics[name]["dice"], 2 / 3, atol=1e-9)
        assert metrics[name]["dice_within_a_voxel"] == 1
    everywhere = metrics["everywhere"]
    assert everywhere["dice"] < 2 / 3
    assert everywhere["dice_within_a_voxel"] < 1


def test_sheet_across_the_tilt_axis_is_not_excluded() -> None:
    mask = sheet(1, 20)
    assert membrane_metrics([(mask, mask, 40.0)])["outside the wedge"]["recall"] == 1


def test_voxels_far_from_the_membrane_are_false_everywhere() -> None:
    facing = sheet(0, 5)
    metrics = membrane_metrics([(facing | sheet(0, 30), facing, 60.0)])
    assert metrics["outside the wedge"]["precision"] == 0


def test_tomograms_are_pooled_and_can_be_empty() -> None:
    empty = np.zeros((8, 9, 10), bool)
    metrics = membrane_metrics([(empty, empty, 60.0), (sheet(2, 9), sheet(2, 9), 60.0)])
    assert metrics["everywhere"]["dice"] == 1
    assert membrane_metrics([(empty, empty, 60.0)])["everywhere"]["dice"] == 0
