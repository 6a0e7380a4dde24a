"""A tomogram: a volume and its voxel size."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from t3ssfast.errors import InputError, VoxelSizeError

if TYPE_CHECKING:
    import torch

__all__ = [
    "PLACEHOLDER_VOXEL_SIZE_ANGSTROM",
    "Array",
    "StrPath",
    "Tomogram",
    "TomogramSource",
    "check_voxel_size",
    "isotropic_voxel_size",
]

StrPath: TypeAlias = str | os.PathLike[str]
Array: TypeAlias = "npt.NDArray[Any] | torch.Tensor"
# What public functions accept as a tomogram: a path, a `Tomogram`, or a (z, y, x) array.
TomogramSource: TypeAlias = "StrPath | Tomogram | Array"

# Tomograms have voxels of 1 to 50 A; a header value outside these wider bounds is nonsense.
MIN_VOXEL_SIZE_ANGSTROM = 0.5
MAX_VOXEL_SIZE_ANGSTROM = 200.0
# Programs that do not know the voxel size write 1 A; no tomogram is reconstructed at 1 A.
PLACEHOLDER_VOXEL_SIZE_ANGSTROM = 1.0
# Above 1% anisotropy, distances and angles would be visibly wrong.
MAX_ANISOTROPY = 0.01


def check_voxel_size(value: object, *, source: str) -> float:
    """Return a voxel size in Angstrom as a float.

    Parameters
    ----------
    value
        Number to check.
    source
        File or argument that the value comes from, for the error message.

    Raises
    ------
    VoxelSizeError
        If the value is not a finite number between 0.5 and 200 A.
    """
    try:
        size = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        size = float("nan")
    if not MIN_VOXEL_SIZE_ANGSTROM <= size <= MAX_VOXEL_SIZE_ANGSTROM:
        raise VoxelSizeError(
            f"{source}: the voxel size is {value!r}, not a length between {MIN_VOXEL_SIZE_ANGSTROM:g} and "
            f"{MAX_VOXEL_SIZE_ANGSTROM:g} Angstrom; give it as voxel_size_angstrom (--voxel-size)."
        )
    return size


def isotropic_voxel_size(sizes_angstrom: tuple[float, ...], *, source: str) -> float:
    """Return the common voxel size of the three axes (x, y, z) of a file.

    Raises
    ------
    VoxelSizeError
        If the sizes are missing (NaN), invalid or the placeholder 1 A, or differ by more than 1%.
    """
    if all(math.isnan(size) for size in sizes_angstrom):
        raise VoxelSizeError(
            f"{source}: the file states no voxel size; give it as voxel_size_angstrom (--voxel-size)."
        )
    sizes = [check_voxel_size(size, source=source) for size in sizes_angstrom]
    if max(sizes) > min(sizes) * (1 + MAX_ANISOTROPY):
        listed = ", ".join(f"{size:.4g}" for size in sizes)
        raise VoxelSizeError(
            f"{source}: the voxel sizes along x, y, z differ ({listed} Angstrom); resample to cubic voxels, "
            "or give voxel_size_angstrom (--voxel-size) if the header is wrong."
        )
    size = round(sorted(sizes)[1], 5)  # float32 in the header: 13.6000004 is 13.6
    if abs(size - PLACEHOLDER_VOXEL_SIZE_ANGSTROM) < 1e-4:
        raise VoxelSizeError(
            f"{source}: the voxel size in the header is 1 Angstrom, which means that it is unknown; give it "
            "as voxel_size_angstrom (--voxel-size)."
        )
    return size


@dataclass(frozen=True)
class Tomogram:
    """A volume with its voxel size.

    Parameters
    ----------
    data
        (z, y, x) array of any real dtype; may be memory-mapped.
    voxel_size_angstrom
        Voxel size in Angstrom.
    name
        Name of the tomogram in star files.
    """

    data: npt.NDArray[Any]
    voxel_size_angstrom: float
    name: str = "tomogram"

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise InputError(
                f"{self.name}: the array has shape {tuple(self.data.shape)}, and a tomogram has 3 axes "
                "(z, y, x); give one volume."
            )
        size = check_voxel_size(self.voxel_size_angstrom, source=self.name)
        object.__setattr__(self, "voxel_size_angstrom", size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y, x."""
        z, y, x = self.data.shape
        return int(z), int(y), int(x)
