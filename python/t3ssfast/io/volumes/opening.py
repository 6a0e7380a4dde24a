"""A tomogram from whatever a caller gives: a path, a `Tomogram` or an array."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, VoxelSizeError
from t3ssfast.io.volumes.reading import read
from t3ssfast.tomogram import Array, Tomogram, TomogramSource, check_voxel_size

__all__ = ["as_numpy", "open_tomogram"]


def open_tomogram(
    source: TomogramSource, voxel_size_angstrom: float | None = None, name: str = "tomogram"
) -> Tomogram:
    """Open what a caller gave as a tomogram.

    Parameters
    ----------
    source
        Path of an MRC file or OME-Zarr folder, a `Tomogram`, or a (z, y, x) array.
    voxel_size_angstrom
        Replaces that of the file or `Tomogram`; required for an array.
    name
        Of an array.

    Raises
    ------
    ReadError, InputError, VoxelSizeError
        If it cannot be read, is of another type, or is an array without a voxel size.
    """
    if isinstance(source, str | os.PathLike):
        return read(source, voxel_size_angstrom=voxel_size_angstrom)
    if isinstance(source, Tomogram):
        if voxel_size_angstrom is None:
            return source
        size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
        return replace(source, voxel_size_angstrom=size)
    if not isinstance(source, np.ndarray) and not hasattr(source, "detach"):
        raise InputError(
            f"A {type(source).__name__} was given as tomogram; give a path, a Tomogram or an array."
        )
    if voxel_size_angstrom is None:
        raise VoxelSizeError("An array has no voxel size of its own; give voxel_size_angstrom.")
    return Tomogram(as_numpy(source), voxel_size_angstrom, name)


def as_numpy(array: Array) -> npt.NDArray[Any]:
    """An array as NumPy's, without a copy where it is on the CPU."""
    if isinstance(array, np.ndarray):
        return array
    values: npt.NDArray[Any] = array.detach().cpu().numpy()
    return values
