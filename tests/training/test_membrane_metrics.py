"""Figures of membranes, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.training.bundled.membrane_metrics import membrane_figures, surface_normals


def sheet(axis: int, at: int, shape: tuple[int, int, int] = (40, 44, 48)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    np.moveaxis(mask, axis, 0)[at : at + 3] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_normals_of_a_sheet_are_its_axis(axis: int) -> None:
    where, normal = surface_normals(sheet(axis, 20))
    assert len(where) == sheet(axis, 20).sum()
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    assert (np.abs(normal[:, axis]) > 0.999).all()


def test_what_faces_the_beam_is_left_out_with_what_was_found_beside_it() -> None:
    upright, facing = sheet(2, 30), sheet(0, 5)
    facing[:, :, 20:] = False
    true = upright | facing
    # The sheet along the beam is found one voxel off; of the one that faces it, a piece two voxels off.
    found = sheet(2, 31) | np.roll(facing, 2, axis=0)
    figures = membrane_figures([(found, true, 60.0)])
    for name in ("outside the wedge", "outside the caps"):
        np.testing.assert_allclose(figures[name]["dice"], 2 / 3, atol=1e-9)
        assert figures[name]["dice_within_a_voxel"] == 1
    everywhere = figures["everywhere"]
    assert everywhere["dice"] < 2 / 3
    assert everywhere["dice_within_a_voxel"] < 1
    # A sheet across the tilt axis is sampled by every projection.
    along = sheet(1, 20)
    assert membrane_figures([(along, along, 40.0)])["outside the wedge"]["recall"] == 1
    # Far from any true membrane, what is found is false wherever the membrane is.
    far = facing | sheet(0, 30)
    assert membrane_figures([(far, facing, 60.0)])["outside the wedge"]["precision"] == 0


def test_tomograms_are_pooled_and_may_be_empty() -> None:
    nothing = np.zeros((8, 9, 10), bool)
    figures = membrane_figures([(nothing, nothing, 60.0), (sheet(2, 9), sheet(2, 9), 60.0)])
    assert figures["everywhere"]["dice"] == 1
    assert membrane_figures([(nothing, nothing, 60.0)])["everywhere"]["dice"] == 0
