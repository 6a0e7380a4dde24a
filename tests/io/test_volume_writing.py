"""Writing of MRC files."""

from __future__ import annotations

import sys

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrc_files import SHAPE, ramp
from t3ssfast.errors import InputError, OutputError
from t3ssfast.io import read, write


@settings(deadline=None, max_examples=50)
@given(
    array=hnp.arrays(
        st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "f2", "f4", ">f4", "f8"]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    ),
    voxel_size=st.floats(1.25, 100, width=32),
)
def test_round_trip_of_arbitrary_arrays(tmp_path_factory, array, voxel_size):
    path = tmp_path_factory.mktemp("round_trip") / "a.mrc"
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            write(path, array, voxel_size)
            expected = array.astype(np.float32) if array.dtype.itemsize == 8 else array
    except InputError:
        assert array.dtype.kind == "i"
        assert np.abs(array.astype(np.int64)).max() > 1 << 24
        return
    tomogram = read(path)
    np.testing.assert_array_equal(tomogram.data, expected)
    assert tomogram.voxel_size_angstrom == pytest.approx(voxel_size, rel=1e-5)


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.ones(SHAPE, bool), 0),
        (np.ones(SHAPE, np.uint8), 0),
        (np.full(SHAPE, 200, np.uint8), 1),
        (ramp("i2"), 1),
        (ramp("u2"), 6),
        (ramp("f2"), 12),
        (ramp("f4"), 2),
        (ramp("f8"), 2),
        (ramp("i8"), 0),
        (ramp("i8") - 1000, 1),
        (ramp("i8") + 100_000, 2),
        (ramp("f4")[::-1, :, ::2], 2),
        (np.asfortranarray(ramp("f4")), 2),
        (ramp(">f4"), 2),
    ],
)
def test_written_files_are_valid_mrc(tmp_path, array, mode):
    path = tmp_path / "a.mrc"
    write(path, array, 13.6)
    assert mrcfile.validate(path, print_file=sys.stderr)
    with mrcfile.open(path) as reference:
        assert reference.header.mode == mode
        np.testing.assert_array_equal(reference.data, array)
        assert reference.voxel_size.x == pytest.approx(13.6, rel=1e-6)
        assert reference.voxel_size.z == pytest.approx(13.6, rel=1e-6)
        assert int(reference.header.nsymbt) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]


@pytest.mark.parametrize(
    ("array", "voxel_size"),
    [
        (np.zeros((3, 4)), 10),
        (np.zeros((0, 3, 4)), 10),
        (np.zeros(SHAPE, complex), 10),
        (np.full(SHAPE, 2**40), 10),
        (np.zeros(SHAPE), 0),
    ],
)
def test_invalid_input_raises_and_leaves_no_file(tmp_path, array, voxel_size):
    with pytest.raises(InputError):
        write(tmp_path / "a.mrc", array, voxel_size)
    assert list(tmp_path.iterdir()) == []


def test_invalid_path_raises_and_leaves_no_file(tmp_path):
    for name in ("missing/a.mrc", "a.mrc.gz", "a.zarr", "."):
        with pytest.raises(OutputError):
            write(tmp_path / name, np.zeros(SHAPE), 10.0)
    assert list(tmp_path.iterdir()) == []
