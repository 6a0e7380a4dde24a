"""Masks as a detection takes them."""

from __future__ import annotations

import numpy as np
import pytest

from mrc_files import SHAPE, write_mrc
from t3ssfast.errors import InputError
from t3ssfast.io import read_mask, write
from t3ssfast.io.volumes.masks import check_mask
from t3ssfast.tomogram import Tomogram

TOMOGRAM = Tomogram(np.zeros(SHAPE, np.float32), 10.0, "TS_1")
MEMBRANE = np.zeros(SHAPE, bool)
MEMBRANE[1, :2] = True


@pytest.mark.parametrize(
    ("background", "membrane", "dtype"),
    [(0, 1, "i1"), (0, 1, "f4"), (0, -1, "i1"), (0, 7, "i2"), (-128, -127, "i1"), (-128, 127, "i1")],
)
def test_mask_of_any_program(tmp_path, background, membrane, dtype):
    values = np.where(MEMBRANE, membrane, background).astype(dtype)
    write(tmp_path / "mask.mrc", values, 1.7)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.mrc", TOMOGRAM) != 0, MEMBRANE)


def test_mask_of_bytes_that_imod_saved_as_signed(tmp_path):
    imod = np.zeros(84, "S1")
    stamp = np.array([1146047817, 1], "<i4").tobytes()
    imod[40:48] = np.frombuffer(stamp, "S1")
    values = np.where(MEMBRANE, -127, -128).astype("i1")
    write_mrc(tmp_path / "mask.mrc", values, mode=0, extra2=imod.tobytes())
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.mrc", TOMOGRAM) != 0, MEMBRANE)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(SHAPE, "i1"), "empty"),
        (np.full(SHAPE, -128, "i1"), "empty"),
        (np.zeros((3, 4, 6), "i1"), "shape"),
        (np.where(MEMBRANE, 2, 1).astype("i1"), "none is 0"),
        (np.where(MEMBRANE, 0.9, 1e-3).astype("f4"), "none is 0"),
    ],
)
def test_unusable_masks_are_refused(tmp_path, array, words):
    write(tmp_path / "mask.mrc", array, 10.0)
    with pytest.raises(InputError, match=words):
        read_mask(tmp_path / "mask.mrc", TOMOGRAM)


def test_arrays_are_taken_like_files():
    values = np.where(MEMBRANE, -127, -128).astype("i1")
    np.testing.assert_array_equal(check_mask(values, TOMOGRAM) != 0, MEMBRANE)
    with pytest.raises(InputError, match="membrane mask"):
        check_mask(values[1:], TOMOGRAM)


def test_empty_mask_for_training(tmp_path):
    write(tmp_path / "mask.mrc", np.full(SHAPE, -128, "i1"), 10.0)
    assert not read_mask(tmp_path / "mask.mrc", TOMOGRAM, allow_empty=True).any()


def test_mask_of_the_whole_tomogram(tmp_path):
    write(tmp_path / "mask.mrc", np.ones(SHAPE, "i1"), 10.0)
    assert read_mask(tmp_path / "mask.mrc", TOMOGRAM).all()


def test_zarr_mask_of_bool(tmp_path):
    zarr = pytest.importorskip("zarr")
    node = zarr.open_array(str(tmp_path / "mask.zarr"), mode="w", shape=SHAPE, dtype="bool", chunks=SHAPE)
    node[...] = MEMBRANE
    mask = read_mask(tmp_path / "mask.zarr", TOMOGRAM)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MEMBRANE)
