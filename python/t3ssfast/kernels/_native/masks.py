"""Masks of 8 bits on the CPU: connected components, the voxels near a mask, counts of levels, thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["MaskComponents", "count_levels", "near_mask", "threshold_levels"]

Mask = npt.NDArray[np.uint8]


class MaskComponents:
    """Connected components (26-connectivity) of a mask whose slices come in order.

    Held are a label for each run of voxels along x, and numbers for each label: of a membrane's mask, little.

    Parameters
    ----------
    shape_yx
        Of the slices.
    above
        Values over this one are inside of the mask.
    """

    def __init__(self, shape_yx: tuple[int, int], above: int = 0) -> None:
        self._shape = shape_yx
        self._components = core.MaskComponents(*shape_yx, above)

    def add(self, slices: Mask, *, threads: int | None = None) -> None:
        """Add (n, y, x) slices, with so many OpenMP threads; PyTorch's number where None.

        If memory runs out, make a new object and add all of them again.
        """
        slices = _checked(slices, self._shape)
        self._components.add(slices.ctypes.data, len(slices), threads or torch.get_num_threads())

    def faces(self) -> npt.NDArray[np.int64]:
        """Return how many voxel faces each component exposes, in the order of their first voxels.

        Outside of the slices nothing covers a face.
        """
        return np.array(self._components.faces(), np.int64)

    def lower(
        self, slices: Mask, first: int, kept: npt.NDArray[np.bool_], *, threads: int | None = None
    ) -> None:
        """Lower the voxels of components that are not `kept` to `above`, in place.

        Parameters
        ----------
        slices
            (n, y, x), as they were added from slice number `first` on.
        first
            Number of the first slice.
        kept
            An entry for each component of the last `faces`.
        threads
            OpenMP threads; PyTorch's number where None.
        """
        if _checked(slices, self._shape) is not slices:
            raise ValueError("expected C-contiguous slices, which are written to")
        flags = np.ascontiguousarray(kept, np.uint8)
        threads = threads or torch.get_num_threads()
        self._components.lower(slices.ctypes.data, first, len(slices), flags.ctypes.data, len(flags), threads)


def near_mask(mask: Mask, first: int, end: int, limit: int, out: Mask, *, threads: int | None = None) -> None:
    """Find the voxels whose squared distance from the centre of a voxel of a mask is at most `limit`.

    Parameters
    ----------
    mask
        (z, y, x), non-zero inside.
    first, end
        Slices that are asked for.
    out
        (end - first, y, x), C-contiguous; set to 0 and 1.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    mask = _checked(mask, mask.shape[1:])
    depth, height, width = mask.shape
    if not 0 <= first <= end <= depth or limit < 0:
        raise ValueError(f"slices {first} to {end} of {depth}, within a squared distance of {limit}")
    if out.shape != (end - first, height, width) or _checked(out, (height, width)) is not out:
        raise ValueError(f"expected a C-contiguous array of {end - first} slices, got shape {out.shape}")
    # So that it fits into the kernel's numbers: nothing in the volume is farther.
    limit = min(limit, depth * depth + height * height + width * width)
    if out.size:
        given = (mask.ctypes.data, depth, height, width)
        core.near_mask_cpu(given, first, end, limit, out.ctypes.data, threads or torch.get_num_threads())


def count_levels(levels: Mask, counts: npt.NDArray[np.int64], *, threads: int | None = None) -> None:
    """Add to each of 256 counts how many values of an array have that level."""
    levels = _checked(levels, levels.shape[1:])
    if counts.shape != (256,) or counts.dtype != np.int64 or not counts.flags.c_contiguous:
        raise ValueError(f"expected 256 counts of int64, got {counts.dtype} and shape {counts.shape}")
    threads = threads or torch.get_num_threads()
    core.count_levels_cpu(levels.ctypes.data, levels.size, counts.ctypes.data, threads)


def threshold_levels(levels: Mask, lower: int, upper: int, *, threads: int | None = None) -> None:
    """Replace each level of an array by 0, 1 or 2: how many of two thresholds in [0, 255] it exceeds.

    In place; takes no memory, so that it never stops halfway.
    """
    if _checked(levels, levels.shape[1:]) is not levels:
        raise ValueError("expected C-contiguous levels, which are written to")
    threads = threads or torch.get_num_threads()
    core.threshold_levels_cpu(levels.ctypes.data, levels.size, lower, upper, threads)


def _checked(slices: npt.NDArray[Any], shape_yx: tuple[int, ...]) -> Mask:
    """Return slices, C-contiguous; themselves if they are."""
    if slices.dtype != np.uint8 or slices.ndim != 3 or slices.shape[1:] != shape_yx:
        raise ValueError(
            f"expected uint8 slices of shape {shape_yx}, got {slices.dtype} and shape {slices.shape}"
        )
    return np.ascontiguousarray(slices)
