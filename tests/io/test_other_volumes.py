"""Volumes in TIFF, EM and HDF5 files."""

from __future__ import annotations

import sys
import zipfile

import numpy as np
import pytest

from mrc_files import SHAPE, ramp
from t3ssfast.errors import OutputError, ReadError, VoxelSizeError
from t3ssfast.io import read, volume_layout, write


def assert_read(path, array, format, voxel_size=None):
    """Check data, format and name; and the voxel size, or that it has to be given if it is None."""
    if voxel_size is None:
        with pytest.raises(VoxelSizeError):
            read(path)
    tomogram = read(path, voxel_size_angstrom=None if voxel_size else 12.0)
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == pytest.approx(voxel_size or 12.0, rel=1e-3)
    assert (tomogram.name, volume_layout(path).format) == ("TS_1", format)


@pytest.mark.parametrize("code", ["u1", "i2", "u2", "f4"])
@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"bigtiff": True}, {"compression": "zlib"}, {"metadata": None}],
    ids=["plain", "big-endian", "bigtiff", "compressed", "separate pages"],
)
def test_tiff(tmp_path, code, options):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "TS_1.tif", ramp(code), photometric="minisblack", **options)
    assert_read(tmp_path / "TS_1.tif", ramp(code), "TIFF")


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("A", 10.0), ("um", 1e-3), ("micron", 1e-3)])
def test_voxel_size_of_imagej(tmp_path, unit, factor):
    tifffile = pytest.importorskip("tifffile")
    metadata = {"spacing": 1.36 * factor, "unit": unit, "axes": "ZYX"}
    resolution = (1 / (1.36 * factor),) * 2
    path = tmp_path / "TS_1.tif"
    tifffile.imwrite(path, ramp("f4"), imagej=True, resolution=resolution, metadata=metadata)
    assert_read(path, ramp("f4"), "TIFF", 13.6)


def test_voxel_size_of_ome_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    sizes = {f"PhysicalSize{axis}": 1.36 for axis in "XYZ"}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    path = tmp_path / "TS_1.ome.tif"
    tifffile.imwrite(path, ramp("f4"), metadata={"axes": "ZYX", **sizes, **units})
    assert_read(path, ramp("f4"), "TIFF", 13.6)


@pytest.mark.parametrize("orientation", [1, 4])
def test_orientation_of_tiff(tmp_path, orientation):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "TS_1.tif"
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(path, ramp("u1"), photometric="minisblack", extratags=[tag])
    if orientation == 1:
        assert_read(path, ramp("u1"), "TIFF")
        return
    with pytest.raises(ReadError, match="flipped"):
        read(path, voxel_size_angstrom=10)


def test_anisotropic_tiff_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    metadata = {"spacing": 5.0, "unit": "nm"}
    tifffile.imwrite(tmp_path / "a.tif", ramp("f4"), imagej=True, resolution=(1, 1), metadata=metadata)
    with pytest.raises(VoxelSizeError, match="differ"):
        read(tmp_path / "a.tif")


def test_tiff_mask_of_bits(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", ramp("u1") % 2 == 1)
    mask = read(tmp_path / "a.tif", voxel_size_angstrom=10).data
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, ramp("u1") % 2)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((4, 5), {}), ((6, 7, 3), {"photometric": "rgb"}), ((2, 3, 4, 5), {}), ((2, 3, 4), {"dtype": "c8"})],
)
def test_tiff_that_is_no_volume_of_grey_values(tmp_path, shape, options):
    tifffile = pytest.importorskip("tifffile")
    array = np.zeros(shape, options.pop("dtype", "u1"))
    tifffile.imwrite(tmp_path / "a.tif", array, **{"photometric": "minisblack", **options})
    with pytest.raises(ReadError):
        read(tmp_path / "a.tif", voxel_size_angstrom=10)


@pytest.mark.parametrize("code", ["i1", "i2", "i4", "f4", "f8"])
def test_em(tmp_path, code):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "TS_1.em", ramp(code))
    assert_read(tmp_path / "TS_1.em", ramp(code), "EM")


def test_damaged_and_big_endian_em(tmp_path):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "a.em", ramp("f4"))
    raw = bytearray((tmp_path / "a.em").read_bytes())
    (tmp_path / "short.em").write_bytes(raw[:-1])
    with pytest.raises(ReadError):
        read(tmp_path / "short.em", voxel_size_angstrom=10)
    raw[0] = 3
    raw[4:16] = np.frombuffer(bytes(raw[4:16]), "<i4").astype(">i4").tobytes()
    (tmp_path / "sgi.em").write_bytes(raw)
    with pytest.raises(ReadError, match="big-endian"):
        read(tmp_path / "sgi.em", voxel_size_angstrom=10)


def write_eman(path, arrays, **attributes):
    """Write images as EMAN2 does: /MDF/images/n/image, and headers as attributes of the groups."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number, array in enumerate(arrays):
            group = file.create_group(f"MDF/images/{number}")
            group["image"] = array
            for name, value in attributes.items():
                group.attrs[f"EMAN.{name}"] = value


def test_eman_volume(tmp_path):
    sizes = {f"apix_{axis}": 13.6 for axis in "xyz"}
    write_eman(tmp_path / "TS_1.hdf", [ramp("f4")], **sizes, nx=5)
    assert_read(tmp_path / "TS_1.hdf", ramp("f4"), "HDF5", 13.6)
    write_eman(tmp_path / "TS_1.hdf", [ramp("u1")])
    assert_read(tmp_path / "TS_1.hdf", ramp("u1"), "HDF5")


def test_stack_of_eman_volumes_is_refused(tmp_path):
    write_eman(tmp_path / "a.hdf", [ramp("f4")] * 2)
    with pytest.raises(ReadError, match="2 volumes"):
        read(tmp_path / "a.hdf", voxel_size_angstrom=10)


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (*SHAPE, 1), (1, 1, *SHAPE)])
def test_single_volume_in_hdf5(tmp_path, shape):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "TS_1.h5", "w") as file:
        file["exported_data"] = ramp("i2").reshape(shape)
        file["table"] = np.zeros((4, 5))
    assert_read(tmp_path / "TS_1.h5", ramp("i2"), "HDF5")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n", b"II*\0", b"MM\0+", b"PK\x03\x04"])
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.mrc").write_bytes(content + bytes(2000))
    with pytest.raises(ReadError) as caught:
        read(tmp_path / "a.mrc", voxel_size_angstrom=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "content"), [("h5py", b"\x89HDF\r\n\x1a\n"), ("tifffile", b"II*\0"), ("zarr", None)]
)
def test_missing_packages_are_named(tmp_path, monkeypatch, package, content):
    if content is None:
        with zipfile.ZipFile(tmp_path / "a", "w") as archive:
            archive.writestr("zarr.json", "{}")
    else:
        (tmp_path / "a").write_bytes(content + bytes(2000))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ReadError, match=rf"{package} is not installed.*t3ssfast\["):
        read(tmp_path / "a")


@pytest.mark.parametrize("suffix", [".tif", ".em", ".hdf", ".zarr"])
def test_volumes_are_only_written_as_mrc(tmp_path, suffix):
    with pytest.raises(OutputError, match=r"\.mrc"):
        write(tmp_path / f"a{suffix}", ramp("f4"), 10.0)
