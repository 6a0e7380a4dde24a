"""A tomogram: a volume and its voxel size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from t3ssfast.errors import InputError, VoxelSizeError

if TYPE_CHECKING:
    import torch

__all__ = ["Array", "StrPath", "Tomogram", "TomogramSource", "check_voxel_size"]

StrPath: TypeAlias = str | os.PathLike[str]
Array: TypeAlias = "npt.NDArray[Any] | torch.Tensor"
# What public functions take as a tomogram: a path, a `Tomogram`, or a (z, y, x) array.
TomogramSource: TypeAlias = "StrPath | Tomogram | Array"

# Voxels of a usable tomogram lie far inside these bounds; outside them the header is nonsense.
MIN_VOXEL_SIZE_ANGSTROM = 0.5
MAX_VOXEL_SIZE_ANGSTROM = 200.0


def check_voxel_size(value: object, *, source: str) -> float:
    """Return `value` as a float if it can be a voxel size in Angstrom.

    Parameters
    ----------
    value
        Number to check.
    source
        Where it came from, for the message (a file's name, "voxel_size_angstrom" ...).

    Raises
    ------
    VoxelSizeError
        If it is not a finite number between 0.5 and 200 A.
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


@dataclass(frozen=True)
class Tomogram:
    """A volume and what one voxel of it measures.

    Parameters
    ----------
    data
        (z, y, x) array, any real dtype; may be memory-mapped. Never copied whole by the stages.
    voxel_size_angstrom
        Edge of a voxel.
    name
        The tomogram's name in star files; text, leading zeros kept.
    """

    data: npt.NDArray[Any]
    voxel_size_angstrom: float
    name: str = "tomogram"

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise InputError(
                f"{self.name}: a tomogram has 3 axes (z, y, x), but the array has shape "
                f"{tuple(self.data.shape)}; give one volume."
            )
        size = check_voxel_size(self.voxel_size_angstrom, source=self.name)
        object.__setattr__(self, "voxel_size_angstrom", size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxels."""
        z, y, x = self.data.shape
        return int(z), int(y), int(x)
