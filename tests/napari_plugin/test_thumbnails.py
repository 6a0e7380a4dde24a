"""Sources, axes of new picks, and pictures turned to the axis."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.napari_plugin.sources import axis_at, source_of_arrays
from t3ssfast.napari_plugin.thumbnails import SECTION, ThumbnailCache, framed
from t3ssfast.reporting.views import VIEW_PIXELS
from t3ssfast.tomogram import Tomogram

SIZE = 20.0  # Angstrom


@pytest.fixture(scope="module")
def sphere():
    """Return a membrane sphere of 80 nm radius around the middle, and its distance map."""
    z, y, x = np.indices((100, 100, 100)) - 50
    radius = np.sqrt(z**2 + y**2 + x**2)
    return np.abs(radius - 40) < 1.8, radius


def candidates_at(centre, normal):
    return Candidates(np.array([centre]), np.ones(1), np.array([normal]), SIZE, (100, 100, 100))


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, -1, 0), (1, 0, 0), (0.5, 0.7, -0.5)])
def test_the_axis_of_a_new_pick_is_the_normal_out_of_the_cell(sphere, direction):
    unit = np.array(direction) / np.linalg.norm(direction)
    tomogram = Tomogram(np.zeros((100, 100, 100), np.float32), SIZE)
    source = source_of_arrays(Candidates.empty(SIZE), tomogram, sphere[0])
    axis = axis_at(source, 50 + 40 * unit)
    assert axis @ unit > np.cos(np.radians(4))


def test_a_pick_outside_or_without_membrane_is_refused(sphere):
    tomogram = Tomogram(np.zeros((100, 100, 100), np.float32), SIZE, "T")
    source = source_of_arrays(Candidates.empty(SIZE), tomogram, sphere[0])
    with pytest.raises(InputError, match="outside of the tomogram"):
        axis_at(source, (50, 120, 50))
    # A mask of another tomogram does not count.
    without = source_of_arrays(Candidates.empty(SIZE), tomogram, np.ones((3, 3, 3)))
    with pytest.raises(InputError, match="no membrane"):
        axis_at(without, (50, 50, 50))


def test_candidates_of_another_voxel_size_are_converted():
    tomogram = Tomogram(np.zeros((10, 10, 10), np.float32), 10.0)
    source = source_of_arrays(candidates_at((4, 4, 4), (1, 0, 0)), tomogram, None)
    np.testing.assert_allclose(source.candidates.centre_zyx, [[8, 8, 8]])
    assert source.candidates.voxel_size_angstrom == 10.0


def test_pictures_are_turned_to_the_axis(sphere):
    _, radius = sphere
    # Dark inside the sphere: the lower half of every section is dark, wherever the candidate sits.
    tomogram = Tomogram((radius > 25).astype(np.float32), SIZE)
    for direction in ((0, 0, 1), (0, 1, 0), (-1, 0, 0)):
        one = candidates_at(50 + 25 * np.array(direction), direction)
        cache = ThumbnailCache([source_of_arrays(one, tomogram, None)])
        section = cache.cut(0, one, 0)[SECTION].astype(float)
        assert section.shape == (VIEW_PIXELS, VIEW_PIXELS)
        middle = slice(VIEW_PIXELS // 3, 2 * VIEW_PIXELS // 3)
        assert section[:15, middle].mean() > 200
        assert section[-15:, middle].mean() < 50


def test_a_missing_tomogram_gives_grey_and_a_reason():
    one = candidates_at((1, 2, 3), (1, 0, 0))
    cache = ThumbnailCache([source_of_arrays(one, None, None)])
    assert len(np.unique(cache.cut(0, one, 0))) == 1
    assert "open its file" in cache.problems[0]


def test_frames_have_the_colour_of_the_verdict():
    view = np.full((20, 20), 100, np.uint8)
    assert (framed(view, "") == 100).all()
    accepted, rejected = framed(view, "accepted"), framed(view, "rejected")
    assert (accepted[10, 10] == 100).all()
    assert not (accepted[0, 0] == rejected[0, 0]).all()
