"""Reading of OME-Zarr images and Zarr arrays."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from mrc_files import SHAPE, ramp
from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io import read, volume_layout


def multiscales(unit, scale):
    """Return the metadata of an image with two resolution levels."""
    return [
        {
            "version": "0.4",
            "axes": [{"name": axis, "type": "space", "unit": unit} for axis in "zyx"],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [scale] * 3}]},
                {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [9, 9, 9]}]},
            ],
        }
    ]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("unit", "scale"), [("angstrom", 13.6), ("nanometer", 1.36), ("micrometer", 1.36e-3)]
)
def test_finest_level_is_read(tmp_path, zarr_format, unit, scale):
    zarr = pytest.importorskip("zarr")
    if zarr_format == 3 and int(zarr.__version__.split(".")[0]) < 3:
        pytest.skip("zarr 2 writes format 2")
    array = ramp("f4")
    options = {} if int(zarr.__version__.split(".")[0]) < 3 else {"zarr_format": zarr_format}
    group = zarr.open_group(str(tmp_path / "TS_1.zarr"), mode="w", **options)
    for level in "01":
        node = group.create_array(level, shape=SHAPE, chunks=(2, 2, 2), dtype="f4")
        node[...] = array if level == "0" else 0
    metadata = multiscales(unit, scale)
    group.attrs.update({"multiscales": metadata} if zarr_format == 2 else {"ome": {"multiscales": metadata}})
    tomogram = read(tmp_path / "TS_1.zarr")
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == pytest.approx(13.6)
    assert tomogram.name == "TS_1"
    assert volume_layout(tmp_path / "TS_1.zarr").format == "OME-Zarr"


def test_plain_array_needs_a_voxel_size(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.open_array(
        str(tmp_path / "a.zarr"), mode="w", shape=(1, *SHAPE), dtype="i2", chunks=(1, 2, 2, 2)
    )
    array[...] = ramp("i2")[None]
    with pytest.raises(VoxelSizeError):
        read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", voxel_size_angstrom=10).data, ramp("i2"))


def test_unusable_zarr_folders_raise_read_error(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.open_array(str(tmp_path / "flat.zarr"), mode="w", shape=(4, 5), dtype="i2")
    zarr.open_array(str(tmp_path / "huge.zarr"), mode="w", shape=(10**6,) * 3, chunks=(64,) * 3, dtype="f4")
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    for name in ("flat", "huge", "group", "broken"):
        with pytest.raises(ReadError) as caught:
            read(tmp_path / f"{name}.zarr", voxel_size_angstrom=10)
        assert "\n" not in str(caught.value)


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    (tmp_path / "zarr.json").write_text(json.dumps({}))
    with pytest.raises(ReadError, match=r"t3ssfast\[zarr\]"):
        read(tmp_path)
