"""Masks from files, with the background that other programs write."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError
from t3ssfast.io.files import display_path
from t3ssfast.io.volumes.reading import read
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["check_mask", "read_mask"]

# IMOD stores unsigned bytes as signed ones after subtracting 128.
LOWEST_SIGNED_BYTE = -128
REMEDY = "set the membranes to 1, or leave it out to have them segmented"


def read_mask(
    path: StrPath, tomogram: Tomogram, *, allow_empty: bool = False, remedy: str = REMEDY
) -> npt.NDArray[Any]:
    """Read a mask of a tomogram; whatever is not 0 belongs to it.

    A mask that IMOD saved as signed bytes, with -128 for 0, becomes 0 and 1.

    Parameters
    ----------
    path
        File or OME-Zarr folder, of any format that `read` reads. Its voxel size is not used.
    tomogram
        The tomogram that the mask belongs to.
    allow_empty
        Accept a mask without any voxel, as for training on a tomogram without membranes.
    remedy
        What to do about an empty mask, for the error message.

    Returns
    -------
    (z, y, x) array of the tomogram's shape; may be memory-mapped.

    Raises
    ------
    InputError
        If the mask has another shape, is empty, or has a background other than 0 and -128.
    ReadError
        If the file cannot be read.
    """
    mask = read(path, voxel_size_angstrom=tomogram.voxel_size_angstrom).data
    return check_mask(mask, tomogram, display_path(path), allow_empty=allow_empty, remedy=remedy)


def check_mask(
    mask: npt.NDArray[Any],
    tomogram: Tomogram,
    name: str = "The membrane mask",
    *,
    allow_empty: bool = False,
    remedy: str = REMEDY,
) -> npt.NDArray[Any]:
    """Return an array as a mask of a tomogram; see `read_mask`, which reads it from the file `name`."""
    if mask.shape != tomogram.shape:
        raise InputError(
            f"{name} has shape {tuple(mask.shape)} and not the size of the tomogram {tomogram.name}, "
            f"{tomogram.shape}; give a mask of the tomogram's shape."
        )
    # Section by section, so that a mapped file is not read into memory as a whole.
    if mask.dtype == np.int8 and not any(bool((section == 0).any()) for section in mask):
        lowest = min(int(section.min()) for section in mask)
        if lowest == LOWEST_SIGNED_BYTE:
            mask = (mask != lowest).view(np.uint8)
    if not allow_empty and not any(bool(section.any()) for section in mask):
        raise InputError(f"{name} is empty; {remedy}.")
    low, high = (float(bound([bound(section) for section in mask])) for bound in (np.min, np.max))
    if low != high and not any(bool((section == 0).any()) for section in mask):
        raise InputError(
            f"{name} has values from {low:g} to {high:g} and none is 0, so that every voxel would belong to "
            "the mask; set the background to 0, or threshold a map of probabilities."
        )
    return mask
