"""Reading of HDF5 volumes with the package h5py: EMAN2 (.hdf), and files with a single volume (.h5)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path
from t3ssfast.io.volumes.compressed import check_memory
from t3ssfast.io.volumes.packages import missing_package

__all__ = ["MAGIC", "read_hdf5"]

MAGIC = b"\x89HDF\r\n\x1a\n"
# EMAN2 keeps image n in /MDF/images/n/image, and its header in attributes of the group.
EMAN_IMAGES = "MDF/images"


def read_hdf5(path: Path) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    """Return the (z, y, x) array of the only volume in a file, and its voxel sizes x, y, z."""
    name = display_path(path)
    try:
        import h5py
    except ImportError as error:
        raise missing_package(name, "h5py", "formats") from error
    try:
        with h5py.File(path, "r") as file:
            volumes: list[Any] = []
            file.visititems(lambda _, node: volumes.append(node) if _is_volume(node) else None)
            if len(volumes) != 1:
                listed = ", ".join(str(volume.name) for volume in volumes[:5]) or "none"
                raise ReadError(f"{name}: the file has {len(volumes)} volumes ({listed}); give one volume.")
            dataset = volumes[0]
            shape = tuple(map(int, dataset.shape))
            while len(shape) > 3 and 1 in (shape[0], shape[-1]):  # time and channel
                shape = shape[1:] if shape[0] == 1 else shape[:-1]
            if len(shape) != 3 or 0 in shape:
                raise ReadError(f"{name}: the shape is {dataset.shape}; give one (z, y, x) volume.")
            check_memory(name, math.prod(shape) * dataset.dtype.itemsize)
            sizes: tuple[float, ...] = (math.nan,) * 3
            if str(dataset.name).startswith(f"/{EMAN_IMAGES}/"):
                header = dataset.parent.attrs
                sizes = tuple(float(header.get(f"EMAN.apix_{axis}", math.nan)) for axis in "xyz")
            data = np.asarray(dataset[...]).reshape(shape)
    except ReadError:
        raise
    except Exception as error:  # h5py raises errors of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{name}: reading HDF5 failed: {reason[:200]}; check the file.") from error
    return data, sizes


def _is_volume(node: Any) -> bool:
    """Return whether a node of a file is an array of at least three axes of numbers."""
    shape = getattr(node, "shape", None)
    return shape is not None and len(shape) >= 3 and node.dtype.kind in "biuf"
