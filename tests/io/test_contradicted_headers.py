"""MRC files whose content contradicts what is read from their header: checksums, and the sign of bytes."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest

from mrc_files import ramp, write_mrc
from t3ssfast.errors import ReadError
from t3ssfast.io import read, volume_layout, write


def test_damage_of_compressed_files_is_found_by_their_checksums(tmp_path):
    volume = np.random.default_rng(0).normal(size=(4, 48, 48)).astype(np.float32)
    write(tmp_path / "a.mrc", volume, 11.0)
    raw = (tmp_path / "a.mrc").read_bytes()
    rng = np.random.default_rng(1)
    for packed in (gzip.compress(raw, 0), gzip.compress(raw, 6), bz2.compress(raw)):
        for _ in range(25):
            damaged = bytearray(packed)
            damaged[int(rng.integers(20, len(packed)))] ^= 1 << int(rng.integers(8))
            (tmp_path / "b.mrc.gz").write_bytes(damaged)
            with pytest.raises(ReadError):
                read(tmp_path / "b.mrc.gz")


def test_data_after_a_compressed_volume(tmp_path):
    write(tmp_path / "a.mrc", ramp("f4"), 11.0)
    raw = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "b.mrc.gz").write_bytes(gzip.compress(raw + bytes(1000)))
    np.testing.assert_array_equal(read(tmp_path / "b.mrc.gz").data, ramp("f4"))
    (tmp_path / "c.mrc.gz").write_bytes(gzip.compress(raw + bytes(65 << 20), 1))
    with pytest.raises(ReadError, match="more data"):
        read(tmp_path / "c.mrc.gz")


@pytest.mark.parametrize(
    ("dmin", "dmax", "code"),
    [
        (96, 159, "u1"),
        (0, 255, "u1"),
        (141, 163, "u1"),
        (0, 128, "u1"),
        (-128, 127, "i1"),
        (-3, 159, "i1"),
        (0, 127, "i1"),
        (0, 0, "i1"),
        (0, -1, "i1"),
        (0, 300, "i1"),
        (np.nan, 159, "i1"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_sign_of_bytes_follows_the_maximum_in_the_header(tmp_path, dmin, dmax, code, order):
    array = ramp("u1")
    path = write_mrc(tmp_path / "a.mrc", array.view("i1"), order, mode=0, dmin=dmin, dmax=dmax)
    assert read(path).data.dtype == np.dtype(code)
    assert volume_layout(path).sign_from.name == ("STATISTICS" if dmin < dmax else "STANDARD")


def test_bytes_that_look_unsigned_without_any_sign_are_refused(tmp_path):
    z, y, x = np.mgrid[:4, :30, :40]
    unsigned = (128 + 32 * np.sin(x / 7.0) * np.cos(y / 9.0) + z).astype(np.uint8)
    path = write_mrc(tmp_path / "a.mrc", unsigned.view("i1"), mode=0)
    with pytest.raises(ReadError, match="look unsigned"):
        read(path)
    path = write_mrc(tmp_path / "b.mrc", (unsigned.astype(int) - 128).astype("i1"), mode=0)
    assert read(path).data.dtype == np.int8
    # A mask of 0 and 255 means the same either way.
    path = write_mrc(tmp_path / "c.mrc", np.where(unsigned > 130, 255, 0).astype("u1").view("i1"), mode=0)
    assert read(path).data.dtype == np.int8
