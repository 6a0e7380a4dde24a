"""Tomograms from paths, `Tomogram` objects or arrays."""

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
    """Return the tomogram that a caller passed as a path, a `Tomogram` or a (z, y, x) array.

    The voxel size overrides that of a file or `Tomogram`, and is required for an array, which gets `name`.
    """
    if isinstance(source, str | os.PathLike):
        return read(source, voxel_size_angstrom=voxel_size_angstrom)
    if isinstance(source, Tomogram):
        if voxel_size_angstrom is None:
            return source
        size = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
        return replace(source, voxel_size_angstrom=size)
    if not isinstance(source, np.ndarray) and not hasattr(source, "detach"):
        given = type(source).__name__
        raise InputError(f"tomogram: the type is {given}; give a path, a Tomogram or an array.")
    if voxel_size_angstrom is None:
        raise VoxelSizeError("tomogram: an array has no voxel size; give voxel_size_angstrom.")
    return Tomogram(as_numpy(source), voxel_size_angstrom, name)


def as_numpy(array: Array) -> npt.NDArray[Any]:
    """Convert an array or tensor to NumPy, without a copy if it is on the CPU."""
    values: npt.NDArray[Any] = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
    return values
