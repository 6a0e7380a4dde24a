"""Reading of OME-Zarr images and Zarr arrays."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest

from mrc_files import SHAPE, ramp
from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io import read, volume_layout
from zarr_files import add_array, named_axes, open_group, write_image


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
    array = ramp("f4")
    group = open_group(tmp_path / "TS_1.zarr", zarr_format)
    add_array(group, "0", array, chunks=(2, 2, 2))
    add_array(group, "1", np.zeros_like(array), chunks=(2, 2, 2))
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
    with pytest.raises(VoxelSizeError, match="states no voxel size"):
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


SCALES = {"z": 1.36, "y": 1.36, "x": 1.36, "t": 1.0, "c": 1.0}


@pytest.mark.parametrize("names", ["zyx", "xyz", "yzx", "xzy", "tczyx", "czyx", "zyxc", "ZYX"])
@pytest.mark.parametrize("version", ["0.3", "0.4", "0.5"])
def test_axes_are_ordered_by_their_names(tmp_path, names, version):
    array = ramp("f4")
    size = dict(zip("zyx", array.shape, strict=True))
    present = [name for name in names.lower() if name in "zyx"]
    stored = array.transpose(["zyx".index(name) for name in present])
    stored = stored.reshape([size.get(name, 1) for name in names.lower()])
    axes = list(names) if version == "0.3" else named_axes(names)
    scale = {"type": "scale", "scale": [SCALES[name] for name in names.lower()]}
    transforms = () if version == "0.3" else [scale]
    write_image(tmp_path / "a.zarr", stored, axes, version, transforms, 3 if version == "0.5" else 2)
    tomogram = read(tmp_path / "a.zarr", voxel_size_angstrom=10.0 if version == "0.3" else None)
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == pytest.approx(10.0 if version == "0.3" else 13.6)


def test_images_before_axes_had_names(tmp_path):
    write_image(tmp_path / "a.zarr", ramp("f4")[None, None], None, version="0.1")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", voxel_size_angstrom=10).data, ramp("f4"))


@pytest.mark.parametrize(
    ("names", "shape"), [("tzyx", (2, *SHAPE)), ("czyx", (2, *SHAPE)), ("tyx", SHAPE), ("zyxq", (*SHAPE, 2))]
)
def test_images_of_several_volumes_are_refused(tmp_path, names, shape):
    write_image(tmp_path / "a.zarr", np.zeros(shape, "u1"), named_axes(names))
    with pytest.raises(ReadError, match="axes"):
        read(tmp_path / "a.zarr", voxel_size_angstrom=10)


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ([{"type": "scale", "scale": [1, 1, 1]}, {"type": "translation", "translation": [0, 5, 0]}], "y 5"),
        ([{"type": "affine", "affine": [[1, 0, 0, 0]]}], "affine"),
        ([{"type": "scale", "path": "scales"}], "scale"),
        ([{"type": "scale", "scale": [1, 1, -1]}], "negative"),
    ],
)
def test_transformations_that_move_an_image_are_refused(tmp_path, transforms, words):
    write_image(tmp_path / "a.zarr", ramp("f4"), named_axes("zyx"), transforms=transforms)
    with pytest.raises(ReadError, match=words):
        read(tmp_path / "a.zarr", voxel_size_angstrom=10)


def test_translation_of_the_extent_is_scaled_with_it(tmp_path):
    scale = {"type": "scale", "scale": [1.36] * 3}
    still = {"type": "translation", "translation": [0.0] * 3}
    write_image(tmp_path / "a.zarr", ramp("f4"), named_axes("zyx"), transforms=[scale, still])
    assert read(tmp_path / "a.zarr").voxel_size_angstrom == pytest.approx(13.6)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_layout_of_bioformats2raw(tmp_path, zarr_format):
    root = open_group(tmp_path / "a.zarr", zarr_format)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if zarr_format == 2 else {"ome": layout})
    root.create_group("OME")
    scale = {"type": "scale", "scale": [1, 1, 1.36, 1.36, 1.36]}
    stored = ramp("f4")[None, None]
    write_image(tmp_path / "a.zarr" / "0", stored, named_axes("tczyx"), "0.4", [scale], zarr_format)
    tomogram = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(tomogram.data, ramp("f4"))
    assert tomogram.voxel_size_angstrom == pytest.approx(13.6)
    write_image(tmp_path / "a.zarr" / "1", stored, named_axes("tczyx"), "0.4", [scale], zarr_format)
    with pytest.raises(ReadError, match="2 images"):
        read(tmp_path / "a.zarr")


def test_plates_are_refused(tmp_path):
    group = pytest.importorskip("zarr").open_group(str(tmp_path / "a.zarr"), mode="w")
    group.attrs.update({"plate": {}})
    with pytest.raises(ReadError, match="plate"):
        read(tmp_path / "a.zarr", voxel_size_angstrom=10)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("folder", ["", "TS_1.zarr/"])
def test_zip_archive(tmp_path, zarr_format, folder):
    scale = {"type": "scale", "scale": [1.36] * 3}
    source = tmp_path / "source"
    write_image(source, ramp("f4"), named_axes("zyx"), transforms=[scale], zarr_format=zarr_format)
    with zipfile.ZipFile(tmp_path / "TS_1.zarr.zip", "w") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, folder + path.relative_to(source).as_posix())
    tomogram = read(tmp_path / "TS_1.zarr.zip")
    np.testing.assert_array_equal(tomogram.data, ramp("f4"))
    assert (tomogram.name, tomogram.voxel_size_angstrom) == ("TS_1", pytest.approx(13.6))
    assert volume_layout(tmp_path / "TS_1.zarr.zip").format == "OME-Zarr"


def test_archive_without_zarr_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.mrc", b"")
    with pytest.raises(ReadError, match="unpack"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_named_dimensions_of_plain_arrays(tmp_path, zarr_format):
    stored = ramp("i2").transpose(2, 1, 0)
    group = open_group(tmp_path / "a.zarr", zarr_format)
    if zarr_format == 2:
        add_array(group, "b", stored).attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    else:
        names = {"dimension_names": ("x", "y", "z")}
        group.create_array("b", shape=stored.shape, dtype="i2", chunks=stored.shape, **names)[...] = stored
    np.testing.assert_array_equal(read(tmp_path / "a.zarr" / "b", voxel_size_angstrom=10).data, ramp("i2"))


def test_old_zarr_and_new_format(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    (tmp_path / "zarr.json").write_text("{}")
    monkeypatch.setattr(zarr, "__version__", "2.18.0")
    with pytest.raises(ReadError, match="zarr>=3"):
        read(tmp_path)
