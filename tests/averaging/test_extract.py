"""Boxes are what slicing gives, whatever the voxel size, the edge and the sign; and the wedge is a wedge."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.averaging.extract import box_voxels, extract, place, wedge_weight
from t3ssfast.averaging.subtomogram_files import save_subtomograms
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, OutputError, VoxelSizeError
from t3ssfast.io import write
from t3ssfast.io.particles import load_candidates
from t3ssfast.tomogram import Tomogram


def candidates(centre, voxel_size=10.0, shape=(30, 32, 34)):
    centre = np.atleast_2d(np.asarray(centre, float))
    n = len(centre)
    return Candidates(
        centre, np.linspace(1, 0.5, n), np.tile([0, 0, 1.0], (n, 1)), voxel_size, shape, "TS_01"
    )


@pytest.fixture
def tomogram():
    data = np.random.default_rng(0).normal(3, 2, (30, 32, 34)).astype(np.float32)
    return Tomogram(data, 10.0, "TS_01")


@pytest.mark.parametrize("box", [8, 9])
def test_a_box_inside_is_a_slice(tomogram, box):
    cut = extract(tomogram, candidates([[15, 16, 17]]), box, contrast="light", normalise="none")
    low = np.array([15, 16, 17]) - box // 2
    z, y, x = (slice(a, a + box) for a in low)
    np.testing.assert_array_equal(cut[0], tomogram.data[z, y, x])
    assert cut.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(st.tuples(st.floats(0, 29), st.floats(0, 31), st.floats(0, 33)), st.sampled_from([4, 7, 10, 40]))
def test_the_candidate_is_in_the_middle_voxel(centre, box):
    data = np.zeros((30, 32, 34), np.float32)
    nearest = np.floor(np.array(centre) + 0.5).astype(int)
    data[tuple(nearest)] = 1
    tomogram = Tomogram(data, 10.0)
    found = place(tomogram, candidates([centre]), box)
    cut = extract(tomogram, candidates([centre]), box, contrast="light", normalise="none")
    assert cut[0][(box // 2,) * 3] == 1
    np.testing.assert_allclose(nearest + found.offset_zyx[0], centre, atol=1e-5)
    assert np.abs(found.offset_zyx).max() <= 0.5 + 1e-5


def test_contrast_and_normalisation(tomogram):
    plain = extract(tomogram, candidates([[15, 16, 17]]), 8, contrast="light", normalise="none")
    dark = extract(tomogram, candidates([[15, 16, 17]]), 8, normalise="none")
    np.testing.assert_array_equal(dark, -plain)
    centred = extract(tomogram, candidates([[15, 16, 17]]), 8, contrast="light", normalise="mean")
    np.testing.assert_allclose(centred, plain - plain.mean(), atol=1e-5)
    scored = extract(tomogram, candidates([[15, 16, 17]]), 8)
    assert scored.mean() == pytest.approx(0, abs=1e-5)
    assert scored.std() == pytest.approx(1, abs=1e-5)
    flat = extract(Tomogram(np.ones((9, 9, 9)), 10.0), candidates([[4, 4, 4]]), 8)
    assert not flat.any()


def test_boxes_beyond_the_tomogram(tomogram):
    corner = candidates([[0, 0, 0], [15, 16, 17]])
    plain = {"contrast": "light", "normalise": "none"}
    mirrored = extract(tomogram, corner, 8, **plain)
    inside = tomogram.data[:4, :4, :4]
    np.testing.assert_array_equal(mirrored[0][4:, 4:, 4:], inside)
    np.testing.assert_array_equal(mirrored[0][3, 4:, 4:], inside[0])
    filled = extract(tomogram, corner, 8, edge="mean", **plain)
    assert filled[0][:4] == pytest.approx(inside.mean(), rel=1e-5)
    kept = place(tomogram, corner, 8, edge="drop")
    np.testing.assert_array_equal(kept.index, [1])
    assert len(extract(tomogram, corner, 8, edge="drop", **plain)) == 1
    with pytest.raises(InputError, match="1 of 2 boxes"):
        extract(tomogram, corner, 8, edge="error")
    huge = extract(tomogram, candidates([[15, 16, 17]]), 100, **plain)
    assert huge.shape == (1, 100, 100, 100)


def test_other_voxel_sizes():
    # A smooth function of the position in Angstrom, sampled on two grids: the boxes must agree.
    def sampled(shape, size):
        z, y, x = (np.arange(n) * size for n in shape)
        return (np.sin(z / 90)[:, None, None] + np.cos(y / 110)[:, None] + np.sin(x / 100)).astype(np.float32)

    fine, coarse = Tomogram(sampled((90, 96, 100), 5.0), 5.0), Tomogram(sampled((45, 48, 50), 10.0), 10.0)
    at = candidates([[22.3, 24.6, 25.1]])
    plain = {"contrast": "light", "normalise": "none"}
    z, y, x = (c * 10 + (np.arange(12) - 6) * 10.0 for c in at.centre_zyx[0])
    expected = np.sin(z / 90)[:, None, None] + np.cos(y / 110)[:, None] + np.sin(x / 100)
    from_fine = extract(fine, at, 12, voxel_size_angstrom=10.0, **plain)[0]
    np.testing.assert_allclose(from_fine, expected, atol=0.02)
    z, y, x = (c * 10 + (np.arange(12) - 6) * 5.0 for c in at.centre_zyx[0])
    expected = np.sin(z / 90)[:, None, None] + np.cos(y / 110)[:, None] + np.sin(x / 100)
    from_coarse = extract(coarse, at, 12, voxel_size_angstrom=5.0, **plain)[0]
    np.testing.assert_allclose(from_coarse, expected, atol=0.02)
    # Candidates may come in another tomogram's voxels.
    whole = extract(fine, candidates([[22, 24, 25]]), 8, **plain)
    np.testing.assert_array_equal(whole[0], fine.data[40:48, 44:52, 46:54])


def test_box_sizes():
    assert box_voxels(64, None, 13.6) == 64
    assert box_voxels(None, 60.0, 13.6) == 44
    for box, nm in ((None, None), (64, 60.0), (3, None), (5000, None), (8.5, None), (None, 1e6)):
        with pytest.raises(ConfigError, match="box"):
            box_voxels(box, nm, 10.0)


def test_what_cannot_be_cut(tomogram):
    with pytest.raises(InputError, match="outside"):
        extract(tomogram, candidates([[30, 16, 17]]), 8)
    with pytest.raises(ConfigError, match="edge"):
        extract(tomogram, candidates([[15, 16, 17]]), 8, edge="wrap")
    with pytest.raises(ConfigError, match="contrast"):
        extract(tomogram, candidates([[15, 16, 17]]), 8, contrast="grey")
    with pytest.raises(VoxelSizeError):
        extract(tomogram, candidates([[15, 16, 17]]), 8, voxel_size_angstrom=0)
    holed = np.array(tomogram.data)
    holed[15, 16, 17] = np.nan
    with pytest.raises(InputError, match="not finite"):
        extract(holed, candidates([[15, 16, 17]]), 8)
    assert extract(tomogram, candidates(np.zeros((0, 3))), 8).shape == (0, 8, 8, 8)


def test_only_the_boxes_are_read_from_a_file(tmp_path, tomogram):
    write(tmp_path / "TS_01.mrc", tomogram.data, 10.0)
    from_file = extract(tmp_path / "TS_01.mrc", candidates([[15, 16, 17]]), 8)
    np.testing.assert_array_equal(from_file, extract(tomogram, candidates([[15, 16, 17]]), 8))


# ------------------------------------------------------------------------------------------------- the wedge


def test_the_wedge_is_what_the_tilts_have_seen():
    axis = torch.arange(-20.0, 21.0)
    k = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    for low, high in ((-60.0, 60.0), (-40.0, 55.0), (-90.0, 90.0)):
        weight = wedge_weight(k, (low, high)).numpy()
        kz, kx = k[..., 0].numpy(), k[..., 2].numpy()
        flip = np.where(kx < 0, -1, 1)
        angle = np.degrees(np.arctan2(kz * flip, kx * flip))
        radius = np.hypot(kz, kx)
        # Away from the edge it is all or nothing.
        margin = np.degrees(np.arcsin(np.clip(1.01 / np.maximum(radius, 1e-9), 0, 1)))
        seen = (angle >= low) & (angle <= high)
        unseen = ((angle > high + margin) | (angle < low - margin)) & (radius > 3)
        # The ray along kz is both +90 and -90 degrees.
        unseen &= kx != 0
        np.testing.assert_allclose(weight[seen], 1, atol=1e-4)
        assert (weight[unseen] == 0).all()
        # Real volumes have symmetric transforms, but for the plane between the two signs.
        inner = kx != 0
        np.testing.assert_allclose(weight[inner], weight[::-1, ::-1, ::-1][inner])
    assert wedge_weight(torch.tensor([0.0, 7.0, 0.0]), (-60.0, 60.0)) == 1
    assert wedge_weight(torch.tensor([9.0, 0.0, 0.0]), (-60.0, 60.0)) == 0


# ----------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("format", ["stack", "relion"])
def test_saved_boxes_are_found_again(tmp_path, tomogram, format):
    some = candidates([[15.3, 16.2, 17.4], [2.1, 3.2, 4.4]])
    boxes, placed = extract(tomogram, some, 8), place(tomogram, some, 8)
    files = save_subtomograms(tmp_path / "out", [boxes], [some], [placed], 10.0, format=format)
    assert all(file.is_file() for file in files)
    back = load_candidates(tmp_path / "out" / "particles.star")
    np.testing.assert_allclose(back.centre_zyx, some.centre_zyx, atol=0.01)
    assert back.tomogram_name == "TS_01"
    table = starfile.read(tmp_path / "out" / "particles.star")["particles"]
    # Coordinate and origin: the box's middle voxel, and what is left.
    np.testing.assert_allclose(table["rlnCoordinateX"], [17, 4], atol=1e-4)
    np.testing.assert_allclose(table["rlnOriginXAngst"], [-4, -4], atol=1e-3)
    if format == "stack":
        with mrcfile.open(tmp_path / "out" / "subtomograms.mrcs") as file:
            np.testing.assert_array_equal(file.data, boxes)
            assert file.is_volume_stack()
            assert file.voxel_size.x == pytest.approx(10)
        assert list(table["rlnImageName"]) == ["000001@subtomograms.mrcs", "000002@subtomograms.mrcs"]
    else:
        with mrcfile.open(tmp_path / "out" / table["rlnImageName"][1]) as file:
            np.testing.assert_array_equal(file.data, boxes[1])
        with mrcfile.open(tmp_path / "out" / table["rlnCtfImage"][0]) as file:
            assert file.data.shape == (8, 8, 5)
            assert file.data[0, 1, 0] == 1
            assert file.data[3, 0, 0] == 0


def test_boxes_that_cannot_be_saved(tmp_path, tomogram):
    some = candidates([[15, 16, 17]])
    boxes, placed = extract(tomogram, some, 8), place(tomogram, some, 8)
    with pytest.raises(ConfigError, match="format"):
        save_subtomograms(tmp_path, [boxes], [some], [placed], 10.0, format="tiff")
    with pytest.raises(InputError, match="same name"):
        save_subtomograms(tmp_path, [boxes] * 2, [some] * 2, [placed] * 2, 10.0)
    with pytest.raises(ConfigError, match="tilt range"):
        save_subtomograms(tmp_path, [boxes], [some], [placed], 10.0, tilt_range_degrees=(60, -60))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder"):
        save_subtomograms(tmp_path / "file", [boxes], [some], [placed], 10.0)
