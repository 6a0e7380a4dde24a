"""OME-Zarr images, written with the installed release of zarr."""

from __future__ import annotations

import pytest


def open_group(folder, zarr_format=2):
    """Return a new group; the test is skipped if the installed zarr cannot write the format."""
    zarr = pytest.importorskip("zarr")
    if int(zarr.__version__.split(".")[0]) >= 3:
        return zarr.open_group(str(folder), mode="w", zarr_format=zarr_format)
    if zarr_format == 3:
        pytest.skip("zarr 2 writes format 2 alone")
    return zarr.open_group(str(folder), mode="w")


def add_array(group, path, array, chunks=None):
    """Write an array into a group, with the method that the installed zarr has for it."""
    create = getattr(group, "create_array", None) or group.create_dataset
    node = create(path, shape=array.shape, chunks=chunks or array.shape, dtype=array.dtype)
    node[...] = array
    return node


def write_image(folder, array, axes, version="0.4", transforms=(), zarr_format=2, path="0", **attributes):
    """Write an image of one level with the given axes (names, or dictionaries) and transformations."""
    group = open_group(folder, zarr_format)
    add_array(group, path, array)
    level = {"path": path} | ({"coordinateTransformations": list(transforms)} if transforms else {})
    image = {"version": version, "datasets": [level]} | ({"axes": axes} if axes else {})
    metadata = {"multiscales": [image], **attributes}
    group.attrs.update(metadata if zarr_format == 2 else {"ome": metadata})
    return group


def named_axes(names, unit="nanometer"):
    return [{"name": name, "type": "space", "unit": unit} for name in names]
