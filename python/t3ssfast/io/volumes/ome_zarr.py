"""Images of OME-Zarr, read into memory."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io.names import display_path, tomogram_name
from t3ssfast.io.volumes.unpacking import memory_limit
from t3ssfast.io.volumes.voxel_size import isotropic_voxel_size
from t3ssfast.tomogram import Tomogram

__all__ = ["read_ome_zarr"]

ANGSTROM_PER_UNIT = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "millimeter": 1e7, "meter": 1e10}
ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def read_ome_zarr(path: Path, given: float | None) -> Tomogram:
    """The finest level of an OME-Zarr image (0.4 or 0.5), or a plain 3D Zarr array."""
    if not any((path / marker).exists() for marker in ZARR_MARKERS):
        raise ReadError(
            f"{display_path(path)} is a folder without Zarr data; give an MRC file or an OME-Zarr folder."
        )
    try:
        zarr: Any = importlib.import_module("zarr")
    except ImportError as error:
        raise ReadError(
            f"{display_path(path)} is OME-Zarr, which needs the package zarr; install it with "
            "`pip install 't3ssfast[zarr]'` or convert the file to MRC."
        ) from error
    try:
        node = zarr.open(str(path), mode="r")
        attributes = dict(node.attrs)
        sizes: tuple[float, ...] = (math.nan,) * 3
        if hasattr(node, "shape"):
            array = node
        else:
            multiscale = attributes.get("ome", attributes)["multiscales"][0]
            array = node[multiscale["datasets"][0]["path"]]
            sizes = _zarr_voxel_sizes(multiscale)
        if len(array.shape) < 3 or any(n != 1 for n in array.shape[:-3]) or 0 in array.shape:
            raise ReadError(
                f"{display_path(path)}: the image has shape {tuple(array.shape)}; give one (z, y, x) volume."
            )
        if np.dtype(array.dtype).kind not in "iuf":
            raise ReadError(f"{display_path(path)}: the image holds {array.dtype}; give real numbers.")
        needed = math.prod(array.shape) * np.dtype(array.dtype).itemsize
        if needed > memory_limit():
            raise ReadError(
                f"{display_path(path)} would unpack to {needed / 2**30:.1f} GiB, more than "
                "half of this machine's "
                "memory; convert it to MRC, which is read piece by piece."
            )
        data = np.asarray(array[...]).reshape(array.shape[-3:])
    except (ReadError, VoxelSizeError):
        raise
    except Exception as error:  # zarr raises its own and its codecs' errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            f"{display_path(path)} cannot be read as OME-Zarr: {reason[:200]}; check the folder."
        ) from error
    data.flags.writeable = False
    size = given if given is not None else isotropic_voxel_size(sizes[::-1], source=display_path(path))
    return Tomogram(data=data, voxel_size_angstrom=size, name=tomogram_name(path))


def _zarr_voxel_sizes(multiscale: dict[str, Any]) -> tuple[float, ...]:
    """Voxel sizes along z, y, x of the finest level, in Angstrom; NaN where scale or unit are missing."""
    scales = [1.0] * 3
    found = False
    transforms = itertools.chain(
        multiscale["datasets"][0].get("coordinateTransformations", ()),
        multiscale.get("coordinateTransformations", ()),
    )
    for transform in transforms:
        if transform.get("type") == "scale":
            found = True
            scales = [a * float(b) for a, b in zip(scales, transform["scale"][-3:], strict=True)]
    units = [axis.get("unit") for axis in multiscale.get("axes", ()) if axis.get("type", "space") == "space"]
    if not found or len(units) != 3:
        return (math.nan,) * 3
    return tuple(s * ANGSTROM_PER_UNIT.get(u, math.nan) for s, u in zip(scales, units, strict=True))
