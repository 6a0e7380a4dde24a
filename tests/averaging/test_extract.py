"""Extracted boxes compared with slices of the tomogram, and their files."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.averaging.extract import box_positions, box_voxels, extract
from t3ssfast.averaging.subtomogram_files import save_subtomograms
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, OutputError, VoxelSizeError
from t3ssfast.io import write
from t3ssfast.io.particles import load_candidates
from t3ssfast.tomogram import Tomogram

SHAPE = (30, 32, 34)
UNCHANGED = {"contrast": "light", "normalise": "none"}


def candidates(*centres):
    n = len(centres)
    normals = np.tile([0, 0, 1.0], (n, 1))
    return Candidates(np.reshape(centres, (n, 3)), np.linspace(1, 0.5, n), normals, 10.0, SHAPE, "TS_01")


MIDDLE = candidates([15, 16, 17])


@pytest.fixture
def tomogram():
    return Tomogram(np.random.default_rng(0).normal(3, 2, SHAPE).astype(np.float32), 10.0, "TS_01")


@pytest.mark.parametrize("box", [8, 9])
def test_box_inside_the_tomogram_is_a_slice(tomogram, box):
    cut = extract(tomogram, MIDDLE, box, **UNCHANGED)
    z, y, x = (slice(c - box // 2, c - box // 2 + box) for c in (15, 16, 17))
    np.testing.assert_array_equal(cut[0], tomogram.data[z, y, x])
    assert cut.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(0, n - 1) for n in SHAPE]), st.sampled_from([4, 7, 10, 40]))
def test_candidate_is_in_the_middle_voxel(centre, box):
    data = np.zeros(SHAPE, np.float32)
    nearest = np.floor(np.array(centre) + 0.5).astype(int)
    data[tuple(nearest)] = 1
    tomogram = Tomogram(data, 10.0)
    offset = box_positions(tomogram, candidates(centre), box).offset_zyx[0]
    assert extract(tomogram, candidates(centre), box, **UNCHANGED)[0][(box // 2,) * 3] == 1
    np.testing.assert_allclose(nearest + offset, centre, atol=1e-5)
    assert np.abs(offset).max() <= 0.5 + 1e-5


def test_contrast_and_normalisation(tomogram):
    plain = extract(tomogram, MIDDLE, 8, **UNCHANGED)
    np.testing.assert_array_equal(extract(tomogram, MIDDLE, 8, normalise="none"), -plain)
    centred = extract(tomogram, MIDDLE, 8, contrast="light", normalise="mean")
    np.testing.assert_allclose(centred, plain - plain.mean(), atol=1e-5)
    scored = extract(tomogram, MIDDLE, 8)
    assert scored.mean() == pytest.approx(0, abs=1e-5)
    assert scored.std() == pytest.approx(1, abs=1e-5)
    assert not extract(Tomogram(np.ones((9, 9, 9)), 10.0), candidates([4, 4, 4]), 8).any()


def test_boxes_beyond_the_tomogram(tomogram):
    corner = candidates([0, 0, 0], [15, 16, 17])
    inside = tomogram.data[:4, :4, :4]
    reflected = extract(tomogram, corner, 8, **UNCHANGED)[0]
    np.testing.assert_array_equal(reflected[4:, 4:, 4:], inside)
    np.testing.assert_array_equal(reflected[3, 4:, 4:], inside[0])
    filled = extract(tomogram, corner, 8, edge="mean", **UNCHANGED)
    assert filled[0][:4] == pytest.approx(inside.mean(), rel=1e-5)
    np.testing.assert_array_equal(box_positions(tomogram, corner, 8, edge="drop").index, [1])
    assert len(extract(tomogram, corner, 8, edge="drop", **UNCHANGED)) == 1
    with pytest.raises(InputError, match="1 of 2 boxes"):
        extract(tomogram, corner, 8, edge="error")
    assert extract(tomogram, MIDDLE, 100, **UNCHANGED).shape == (1, 100, 100, 100)


def smooth(z, y, x):
    """A smooth function of the position in Angstrom."""
    return (np.sin(z / 90)[:, None, None] + np.cos(y / 110)[:, None] + np.sin(x / 100)).astype(np.float32)


@pytest.mark.parametrize(("tomogram_size", "box_size"), [(5.0, 10.0), (10.0, 5.0)])
def test_interpolated_boxes_of_another_voxel_size(tomogram_size, box_size):
    shape = (np.array([450, 480, 500]) / tomogram_size).astype(int)
    tomogram = Tomogram(smooth(*(np.arange(n) * tomogram_size for n in shape)), tomogram_size)
    centre = candidates([22.3, 24.6, 25.1])
    expected = smooth(*(c * 10 + (np.arange(12) - 6) * box_size for c in centre.centre_zyx[0]))
    found = extract(tomogram, centre, 12, voxel_size_angstrom=box_size, **UNCHANGED)[0]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_centres_are_scaled_to_the_voxel_size_of_the_tomogram():
    tomogram = Tomogram(smooth(*(np.arange(n) * 5.0 for n in (90, 96, 100))), 5.0)
    box = extract(tomogram, candidates([22, 24, 25]), 8, **UNCHANGED)[0]
    np.testing.assert_array_equal(box, tomogram.data[40:48, 44:52, 46:54])


def test_box_sizes():
    assert box_voxels(64, None, 13.6) == 64
    assert box_voxels(None, 60.0, 13.6) == 44
    for box, nm in ((None, None), (64, 60.0), (3, None), (5000, None), (8.5, None), (None, 1e6)):
        with pytest.raises(ConfigError, match="box"):
            box_voxels(box, nm, 10.0)


def test_invalid_arguments(tomogram):
    with pytest.raises(InputError, match="outside"):
        extract(tomogram, candidates([30, 16, 17]), 8)
    with pytest.raises(ConfigError, match="edge"):
        extract(tomogram, MIDDLE, 8, edge="wrap")
    with pytest.raises(ConfigError, match="contrast"):
        extract(tomogram, MIDDLE, 8, contrast="grey")
    with pytest.raises(VoxelSizeError):
        extract(tomogram, MIDDLE, 8, voxel_size_angstrom=0)
    data = np.array(tomogram.data)
    data[15, 16, 17] = np.nan
    with pytest.raises(InputError, match="not finite"):
        extract(data, MIDDLE, 8)
    assert extract(tomogram, candidates(), 8).shape == (0, 8, 8, 8)


def test_boxes_of_a_file_equal_those_of_an_array(tmp_path, tomogram):
    write(tmp_path / "TS_01.mrc", tomogram.data, 10.0)
    from_file = extract(tmp_path / "TS_01.mrc", MIDDLE, 8)
    np.testing.assert_array_equal(from_file, extract(tomogram, MIDDLE, 8))


@pytest.mark.parametrize("format", ["stack", "relion"])
def test_saved_subtomograms_can_be_read(tmp_path, tomogram, format):
    some = candidates([15.3, 16.2, 17.4], [2.1, 3.2, 4.4])
    boxes, positions = extract(tomogram, some, 8), box_positions(tomogram, some, 8)
    files = save_subtomograms(tmp_path, [boxes], [some], [positions], 10.0, format=format)
    assert all(file.is_file() for file in files)
    back = load_candidates(tmp_path / "particles.star")
    np.testing.assert_allclose(back.centre_zyx, some.centre_zyx, atol=0.01)
    assert back.tomogram_name == "TS_01"
    table = starfile.read(tmp_path / "particles.star")["particles"]
    # The coordinate is the middle voxel of the box, the origin the remaining offset.
    np.testing.assert_allclose(table["rlnCoordinateX"], [17, 4], atol=1e-4)
    np.testing.assert_allclose(table["rlnOriginXAngst"], [-4, -4], atol=1e-3)
    if format == "stack":
        with mrcfile.open(tmp_path / "subtomograms.mrcs") as file:
            np.testing.assert_array_equal(file.data, boxes)
            assert file.is_volume_stack()
            assert file.voxel_size.x == pytest.approx(10)
        assert list(table["rlnImageName"]) == ["000001@subtomograms.mrcs", "000002@subtomograms.mrcs"]
    else:
        with mrcfile.open(tmp_path / table["rlnImageName"][1]) as file:
            np.testing.assert_array_equal(file.data, boxes[1])
        with mrcfile.open(tmp_path / table["rlnCtfImage"][0]) as file:
            assert file.data.shape == (8, 8, 5)
            assert file.data[0, 1, 0] == 1
            assert file.data[3, 0, 0] == 0


def test_subtomograms_that_cannot_be_saved(tmp_path, tomogram):
    boxes, positions = extract(tomogram, MIDDLE, 8), box_positions(tomogram, MIDDLE, 8)

    def save(folder=tmp_path, copies=1, **options):
        save_subtomograms(folder, [boxes] * copies, [MIDDLE] * copies, [positions] * copies, 10.0, **options)

    with pytest.raises(ConfigError, match="format"):
        save(format="tiff")
    with pytest.raises(InputError, match="same name"):
        save(copies=2)
    with pytest.raises(ConfigError, match="tilt range"):
        save(tilt_range_degrees=(60, -60))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder"):
        save(tmp_path / "file")
