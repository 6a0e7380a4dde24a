"""Views of candidates in their own frames."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.candidates import Candidates
from t3ssfast.detection.cylindrical_sections import INNER_FRACTION
from t3ssfast.reporting.views import OUTSIDE, PIXEL_NM, VIEW_PIXELS, views_of_candidates
from t3ssfast.tomogram import Tomogram

CENTRE_ROW = VIEW_PIXELS - 1 - int(VIEW_PIXELS * INNER_FRACTION)


def candidate(normal, centre=(50, 50, 50), size=13.6):
    return Candidates([centre], [1.0], [normal], size)


def needle(normal, size=13.6):
    """A volume with a dark line from the centre along the normal, and a dark plane across it."""
    n = round(72 * 13.6 / size)
    grid = np.stack(np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij"), -1) * size / 13.6
    unit = np.asarray(normal, float) / np.linalg.norm(normal)
    along = grid @ unit
    across = np.linalg.norm(grid - along[..., None] * unit, axis=-1)
    volume = np.zeros((n, n, n), np.float32)
    volume[(across < 3) & (along > 0)] = -1
    volume[np.abs(along) < 1.5] = -1
    return Tomogram(volume, size, "a"), candidate(normal, (n // 2,) * 3, size)


@pytest.mark.parametrize(
    ("normal", "size"),
    [
        ((0, 1, 0), 13.6),
        ((1, 0, 0), 13.6),
        ((-1, 0, 0), 13.6),
        ((0.3, -0.8, 0.5), 13.6),
        ((0.3, 0.8, 0.5), 6.7),
    ],
)
def test_needle_points_up_from_a_flat_membrane(normal, size):
    (views,) = views_of_candidates(*needle(normal, size))
    assert views.shape == (4, VIEW_PIXELS, VIEW_PIXELS)
    for view in views[[0, 1, 3]]:
        dark = view < 100
        middle = VIEW_PIXELS // 2
        assert dark[CENTRE_ROW, 4:-4].all(), "the membrane is not flat"
        assert dark[4:CENTRE_ROW, middle - 1 : middle + 1].all(), "the needle does not point up"
        assert not dark[CENTRE_ROW + 6 :].any()
        assert not dark[: CENTRE_ROW - 6, : middle - 8].any()


def test_contrast_is_that_of_dark_protein():
    tomogram, some = needle((0, 1, 0))
    (dark,) = views_of_candidates(tomogram, some, 1)
    bright = Tomogram(-tomogram.data, tomogram.voxel_size_angstrom, "a")
    (inverted,) = views_of_candidates(bright, some, -1)
    np.testing.assert_array_equal(dark, inverted)


def test_what_lies_outside_of_the_tomogram_is_grey():
    rng = np.random.default_rng(0)
    volume = Tomogram(rng.normal(size=(60, 60, 60)).astype(np.float32), 13.6, "a")
    (views,) = views_of_candidates(volume, candidate((0, 1, 0), (30, 59, 30)))
    outside = views[0][: CENTRE_ROW - 6]
    assert (outside == OUTSIDE).all()
    assert views[0][CENTRE_ROW + 6 :].std() > 10
    (views,) = views_of_candidates(volume, candidate((0, 1, 0), (900, 900, 900)))
    assert (views == OUTSIDE).all()


def test_odd_volumes_have_pictures():
    for data in (np.zeros((9, 9, 9), np.int8), np.full((1, 80, 80), np.nan, np.float32)):
        (views,) = views_of_candidates(Tomogram(data, 13.6, "a"), candidate((0, 0, 1), (0, 4, 4)))
        assert (views == OUTSIDE).all()
    assert list(views_of_candidates(Tomogram(data, 13.6, "a"), candidate((0, 0, 1))[:0])) == []


def test_scale_is_in_nanometres():
    """A shell of a known radius has this radius in the section across the axis."""
    n, radius_nm, size = 80, 20.0, 13.6
    grid = np.stack(np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij"), -1) * size / 10
    shell = -(np.abs(np.linalg.norm(grid, axis=-1) - radius_nm) < 1.5).astype(np.float32)
    (views,) = views_of_candidates(Tomogram(shell, size, "a"), candidate((0, 0, 1), (n // 2,) * 3))
    y, x = np.nonzero(views[2] < 90)
    radius = np.hypot(y - (VIEW_PIXELS - 1) / 2, x - (VIEW_PIXELS - 1) / 2) * PIXEL_NM
    assert radius.mean() == pytest.approx(radius_nm, abs=1)


def test_a_gold_bead_leaves_contrast_to_the_particle_beside_it():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(72, 72, 72)).astype(np.float32)
    (plain,) = views_of_candidates(Tomogram(data, 13.6, "a"), candidate((0, 1, 0), (36, 36, 36)))
    data[33:40, 46:52, 33:40] = -100
    (beside,) = views_of_candidates(Tomogram(data, 13.6, "a"), candidate((0, 1, 0), (36, 36, 36)))
    assert (beside[0] == 0).sum() > 20, "the bead is not in the view"
    corner = np.s_[0, -30:, :20]
    assert beside[corner].std() > 0.4 * plain[corner].std()
