"""Reading of TIFF stacks with the package tifffile: plain, ImageJ, OME-TIFF and BigTIFF."""

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
from t3ssfast.io.volumes.units import angstrom_per_unit

__all__ = ["MAGIC", "read_tiff"]

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Axes of one series that can be the sections of a volume (tifffile's letters: depth, pages, time, channels).
SECTION_AXES = "ZIQTCR"
# The orientation in which the first row is the top and the first column the left side.
TOP_LEFT = 1


def read_tiff(path: Path) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    """Return the (z, y, x) array of a stack, memory-mapped if possible, and its voxel sizes x, y, z."""
    name = display_path(path)
    try:
        import tifffile
    except ImportError as error:
        raise missing_package(name, "tifffile", "formats") from error
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            shape, axes = tuple(map(int, series.shape)), str(series.axes)
            if len(shape) != 3 or axes[1:] != "YX" or axes[0] not in SECTION_AXES:
                raise ReadError(f"{name}: the axes are {axes} of {shape}; give one stack of grey slices.")
            if len(tif.series) > 1:
                raise ReadError(f"{name}: the file has {len(tif.series)} images; give one stack.")
            orientation = tif.pages[0].tags.get("Orientation")
            if orientation is not None and int(orientation.value) != TOP_LEFT:
                raise ReadError(f"{name}: the slices are stored rotated or flipped; save them upright.")
            sizes = _voxel_sizes(tif)
            dtype = np.dtype(series.dtype)
            check_memory(name, math.prod(shape) * dtype.itemsize if series.dataoffset is None else 0)
            data: npt.NDArray[Any]
            if series.dataoffset is None:
                data = series.asarray()
            else:
                data = np.memmap(path, dtype.newbyteorder(tif.byteorder), "r", series.dataoffset, shape)
    except ReadError:
        raise
    except Exception as error:  # tifffile and its codecs raise errors of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{name}: reading TIFF failed: {reason[:200]}; check the file.") from error
    return data.reshape(shape), sizes


def _voxel_sizes(tif: Any) -> tuple[float, ...]:
    """Return the voxel sizes x, y, z in Angstrom that ImageJ or OME metadata state, NaN if undefined."""
    unknown = (math.nan,) * 3
    if tif.ome_metadata:
        import tifffile

        pixels = tifffile.xml2dict(tif.ome_metadata).get("OME", {}).get("Image", {})
        pixels = (pixels[0] if isinstance(pixels, list) else pixels).get("Pixels", {})
        # Micrometres are OME's default.
        return tuple(
            float(pixels.get(f"PhysicalSize{axis}", math.nan))
            * angstrom_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "micrometer"))
            for axis in "XYZ"
        )
    if tif.imagej_metadata:
        unit = angstrom_per_unit(tif.imagej_metadata.get("unit"))
        tags = tif.pages[0].tags
        in_plane = []
        for tag in ("XResolution", "YResolution"):
            pixels_per_unit, per = tags[tag].value if tag in tags else (0, 1)
            in_plane.append(per / pixels_per_unit * unit if pixels_per_unit else math.nan)
        return (*in_plane, float(tif.imagej_metadata.get("spacing", math.nan)) * unit)
    return unknown
