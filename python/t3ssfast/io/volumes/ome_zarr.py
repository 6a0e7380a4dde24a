"""Reading of OME-Zarr images (0.4 and 0.5) and plain Zarr arrays."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io.files import display_path, tomogram_name
from t3ssfast.io.volumes.compressed import memory_limit
from t3ssfast.tomogram import Tomogram, isotropic_voxel_size

__all__ = ["read_ome_zarr"]

ANGSTROM_PER_UNIT = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "millimeter": 1e7, "meter": 1e10}
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def read_ome_zarr(path: Path, voxel_size_angstrom: float | None) -> Tomogram:
    """Read the highest resolution level of an image into memory."""
    name = display_path(path)
    if not any((path / file).exists() for file in ZARR_FILES):
        raise ReadError(f"{name}: a folder without Zarr data; give an MRC file or an OME-Zarr folder.")
    try:
        import zarr
    except ImportError as error:
        raise ReadError(f"{name}: zarr is not installed; run `pip install 't3ssfast[zarr]'`.") from error
    try:
        node: Any = zarr.open(str(path), mode="r")
        sizes_zyx: tuple[float, ...] = (math.nan,) * 3
        if hasattr(node, "shape"):
            array = node
        else:
            attributes = dict(node.attrs)
            multiscale = attributes.get("ome", attributes)["multiscales"][0]
            array = node[multiscale["datasets"][0]["path"]]
            sizes_zyx = _voxel_sizes_zyx(multiscale)
        dtype = np.dtype(array.dtype)
        if len(array.shape) < 3 or any(n != 1 for n in array.shape[:-3]) or 0 in array.shape:
            raise ReadError(f"{name}: the shape is {tuple(array.shape)}; give one (z, y, x) volume.")
        if dtype.kind not in "iuf":
            raise ReadError(f"{name}: the dtype is {dtype}; give real numbers.")
        size = math.prod(array.shape) * dtype.itemsize
        if size > memory_limit():
            size_text = f"{size / 2**30:.1f} GiB, more than half of the memory"
            raise ReadError(f"{name}: the image has {size_text}; convert it to MRC, which is memory-mapped.")
        data = np.asarray(array[...]).reshape(array.shape[-3:])
    except (ReadError, VoxelSizeError):
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{name}: reading OME-Zarr failed: {reason[:200]}; check the folder.") from error
    data.flags.writeable = False
    voxel_size = voxel_size_angstrom or isotropic_voxel_size(sizes_zyx[::-1], source=name)
    return Tomogram(data, voxel_size, tomogram_name(path))


def _voxel_sizes_zyx(multiscale: dict[str, Any]) -> tuple[float, ...]:
    """Return the voxel sizes of the highest resolution level in Angstrom, NaN if undefined."""
    transforms = itertools.chain(
        multiscale["datasets"][0].get("coordinateTransformations", ()),
        multiscale.get("coordinateTransformations", ()),
    )
    scales = [t["scale"][-3:] for t in transforms if t.get("type") == "scale"]
    units = [axis.get("unit") for axis in multiscale.get("axes", ()) if axis.get("type", "space") == "space"]
    if not scales or len(units) != 3:
        return (math.nan,) * 3
    return tuple(
        math.prod(map(float, axis_scales)) * ANGSTROM_PER_UNIT.get(unit, math.nan)
        for unit, *axis_scales in zip(units, *scales, strict=True)
    )
