"""Reading of OME-Zarr images (0.1 to 0.5) and plain Zarr arrays, in folders and zip archives.

Axes are put into the order z, y, x by their names; axes of other names must have the size 1. Scales give the
voxel size. A translation, an affine transformation or a rotation moves the image in the coordinates in which
other programs pick particles; such images are refused. Specification: https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import math
import zipfile
from contextlib import closing, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io.files import display_path, read_error, tomogram_name
from t3ssfast.io.volumes.compressed import check_memory
from t3ssfast.io.volumes.packages import missing_package
from t3ssfast.io.volumes.units import angstrom_per_unit
from t3ssfast.tomogram import Tomogram, isotropic_voxel_size

__all__ = ["ZIP_MAGIC", "read_ome_zarr"]

ZIP_MAGIC = b"PK\x03\x04"
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
SPACE = ("z", "y", "x")
# Images before 0.3 have these axes, without naming them.
OLDEST_AXES = ("t", "c", *SPACE)
# Shifts below this fraction of a voxel come from rounding.
MAX_TRANSLATION_VOXELS = 1e-3


def read_ome_zarr(path: Path, voxel_size_angstrom: float | None) -> Tomogram:
    """Read the highest resolution level of an image into memory."""
    name = display_path(path)
    root = "" if path.is_dir() else _root_in_archive(path)
    if path.is_dir() and not any((path / file).exists() for file in ZARR_FILES):
        raise ReadError(f"{name}: a folder without Zarr data; give an MRC file or an OME-Zarr folder.")
    try:
        import zarr
    except ImportError as error:
        raise missing_package(name, "zarr", "zarr") from error
    if int(zarr.__version__.split(".")[0]) < 3 and (path / "zarr.json").exists():
        raise ReadError(
            f"{name}: Zarr format 3 (OME-Zarr 0.5) requires zarr 3, and {zarr.__version__} is installed; run "
            "`pip install 'zarr>=3'`."
        )
    try:
        archive: Any = nullcontext(str(path)) if path.is_dir() else closing(_zip_store(path))
        with archive as store:
            node: Any = zarr.open(store, mode="r", path=root)
            data, sizes_zyx = _read_node(name, node)
    except (ReadError, VoxelSizeError):
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{name}: reading OME-Zarr failed: {reason[:200]}; check the folder.") from error
    data.flags.writeable = False
    voxel_size = voxel_size_angstrom or isotropic_voxel_size(sizes_zyx[::-1], source=name)
    return Tomogram(data, voxel_size, tomogram_name(path))


def _zip_store(path: Path) -> Any:
    import zarr

    return zarr.storage.ZipStore(str(path), mode="r")


def _root_in_archive(path: Path) -> str:
    """Return the path of the uppermost Zarr group or array in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [PurePosixPath(name) for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise read_error(path, error) from error
    roots = {file.parent for file in files if file.name in ZARR_FILES}
    if not roots:
        raise ReadError(f"{display_path(path)}: a zip archive without Zarr data; unpack it.")
    uppermost = min(roots, key=lambda root: (len(root.parts), str(root)))
    return "/".join(uppermost.parts)


def _read_node(name: str, node: Any) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    """Return the (z, y, x) array of an image or array, and its voxel sizes z, y, x in Angstrom."""
    sizes_by_axis: dict[str, float] = {}
    if hasattr(node, "shape"):
        array = node
        axes = _axes_of_array(array)
    else:
        node = _image_of_group(name, node)
        attributes = dict(node.attrs)
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        array = node[multiscale["datasets"][0]["path"]]
        axes, units = _axes_and_units(multiscale)
        sizes_by_axis = _sizes_by_axis(name, multiscale, axes, units)
    shape = tuple(map(int, array.shape))
    if axes is None:
        axes = tuple("?" * (len(shape) - 3)) + SPACE
    if len(shape) < 3 or len(axes) != len(shape) or 0 in shape:
        raise ReadError(f"{name}: the shape is {shape}; give one (z, y, x) volume.")
    others = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis not in SPACE]
    if sorted(axis for axis in axes if axis in SPACE) != sorted(SPACE) or any(n != 1 for _, n in others):
        listed = ", ".join(f"{axis} {n}" for axis, n in zip(axes, shape, strict=True))
        raise ReadError(f"{name}: the axes are {listed}; give one volume of z, y and x.")
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biuf":
        raise ReadError(f"{name}: the dtype is {dtype}; give real numbers.")
    check_memory(name, math.prod(shape) * dtype.itemsize)
    data = np.asarray(array[...])
    single = tuple(i for i, axis in enumerate(axes) if axis not in SPACE)
    data = data.reshape([n for i, n in enumerate(shape) if i not in single])
    space = [axis for axis in axes if axis in SPACE]
    data = np.ascontiguousarray(data.transpose([space.index(axis) for axis in SPACE]))
    return data, tuple(sizes_by_axis.get(axis, math.nan) for axis in SPACE)


def _image_of_group(name: str, group: Any) -> Any:
    """Return the group of an image: the group itself, or its only image (bioformats2raw's layout)."""
    attributes = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    if "multiscales" in attributes:
        return group
    if "plate" in attributes or "well" in attributes:
        raise ReadError(f"{name}: a plate or well of several images; give the folder of one image.")
    images = sorted(key for key in group.group_keys() if "multiscales" in _attributes(group[key]))
    if len(images) != 1:
        listed = ", ".join(images[:5]) or "none"
        raise ReadError(f"{name}: the folder has {len(images)} images ({listed}); give the folder of one.")
    return group[images[0]]


def _attributes(group: Any) -> dict[str, Any]:
    attributes = dict(group.attrs)
    inner: dict[str, Any] = attributes.get("ome", attributes)
    return inner


def _axes_of_array(array: Any) -> tuple[str, ...] | None:
    """Return the names of the axes of a plain array (Zarr 3, or xarray's attribute); None without names."""
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    names = names or dict(array.attrs).get("_ARRAY_DIMENSIONS")
    if not names or not all(isinstance(name, str) for name in names):
        return None
    lower = tuple(str(name).lower() for name in names)
    # Names such as dim_0 say nothing about the order.
    return lower if set(SPACE) <= set(lower) else None


def _axes_and_units(multiscale: dict[str, Any]) -> tuple[tuple[str, ...] | None, dict[str, Any]]:
    """Return the names of the axes of an image, None if it has none, and the units by name."""
    version = str(multiscale.get("version", ""))
    axes = multiscale.get("axes")
    if not axes:
        return (OLDEST_AXES if version in ("0.1", "0.2") else None), {}
    if all(isinstance(axis, str) for axis in axes):  # 0.3
        return tuple(axis.lower() for axis in axes), {}
    return tuple(str(a["name"]).lower() for a in axes), {str(a["name"]).lower(): a.get("unit") for a in axes}


def _sizes_by_axis(
    name: str, multiscale: dict[str, Any], axes: tuple[str, ...] | None, units: dict[str, Any]
) -> dict[str, float]:
    """Return the voxel sizes of the highest resolution level in Angstrom, NaN if undefined."""
    transforms = [
        *(multiscale["datasets"][0].get("coordinateTransformations") or ()),
        *(multiscale.get("coordinateTransformations") or ()),
    ]
    if axes is None or not transforms:
        return {}
    scale = np.ones(len(axes))
    translation = np.zeros(len(axes))
    for transform in transforms:
        kind = transform.get("type")
        if kind not in ("scale", "translation", "identity") or (kind != "identity" and kind not in transform):
            raise ReadError(
                f"{name}: a transformation has the type {kind!r}; resample to scales, or use MRC."
            )
        if kind == "scale":
            factor = np.array(transform["scale"], dtype=np.float64)
            scale, translation = scale * factor, translation * factor
        elif kind == "translation":
            translation = translation + np.array(transform["translation"], dtype=np.float64)
    space = [i for i, axis in enumerate(axes) if axis in SPACE]
    if any(scale[i] < 0 for i in space):
        raise ReadError(f"{name}: a scale is negative ({scale.tolist()}), which flips the image; use MRC.")
    moved = {axes[i]: float(translation[i]) for i in space}
    if any(abs(translation[i]) > MAX_TRANSLATION_VOXELS * abs(scale[i]) for i in space):
        listed = ", ".join(f"{axis} {moved[axis]:g}" for axis in SPACE if axis in moved)
        raise ReadError(
            f"{name}: the image is translated ({listed}), and positions here count from its first voxel; set "
            "the translation to 0, and subtract it from picks."
        )
    if not any(transform.get("type") == "scale" for transform in transforms):
        return {}
    return {axes[i]: float(scale[i]) * angstrom_per_unit(units.get(axes[i])) for i in space}
