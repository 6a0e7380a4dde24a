"""The voxels of a mask on the CPU: how many, where, and those in marked squares; where sums are high."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["count_nonzero", "flat_nonzero", "keep_in_squares", "mark_high_sums", "mark_near"]

Mask = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.int64]

# Values that a thread lists at a time.
VALUES_AT_A_TIME = 1 << 17


def count_nonzero(slices: npt.NDArray[Any], *, threads: int | None = None) -> IndexArray:
    """Return how many values of each of (n, y, x) slices of a mask are not 0.

    `threads` are OpenMP threads; PyTorch's number where None.
    """
    mask = _bytes_of(slices)
    if mask.ndim != 3:
        raise ValueError(f"expected (n, y, x) slices, got shape {mask.shape}")
    return _counts(mask, mask.shape[1] * mask.shape[2], len(mask), threads)


def flat_nonzero(mask: npt.NDArray[Any], *, threads: int | None = None) -> IndexArray:
    """Return the flat indices of the values of a mask that are not 0, ascending, as `numpy.flatnonzero` does.

    `threads` are OpenMP threads; PyTorch's number where None.
    """
    mask = _bytes_of(mask)
    counts = _counts(mask, VALUES_AT_A_TIME, -(-mask.size // VALUES_AT_A_TIME), threads)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    index = np.empty(starts[-1], np.int64)
    core.list_nonzero_cpu(
        mask.ctypes.data,
        mask.size,
        VALUES_AT_A_TIME,
        starts.ctypes.data,
        index.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return index


def keep_in_squares(
    mask: npt.NDArray[Any],
    squares: Sequence[tuple[Sequence[npt.NDArray[np.bool_]], int]],
    offset: int,
    thickness: int,
    *,
    threads: int | None = None,
) -> Mask:
    """Return the voxels, 0 or 1, of a mask that lie in marked squares.

    Parameters
    ----------
    mask
        (z, y, x), non-zero inside.
    squares
        Marks (rows, columns) of squares of side x side pixels, which cover a slice, for each plane, and their
        side. A voxel must be in a marked one of each entry.
    offset, thickness
        Slice z belongs to plane (z + offset) // thickness.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    mask = _bytes_of(mask)
    depth, height, width = mask.shape
    if not (0 <= offset < thickness):
        raise ValueError(f"expected an offset within the thickness of {thickness}, got {offset}")
    marked = [([np.ascontiguousarray(marks, bool) for marks in planes], side) for planes, side in squares]
    count = -(-(depth + offset) // thickness)
    for planes, side in marked:
        shape = (-(-height // side), -(-width // side))
        if [marks.shape for marks in planes] != [shape] * count:
            shapes = [marks.shape for marks in planes]
            raise ValueError(f"expected marks of shape {shape} for each of {count} planes, got {shapes}")
    kept = np.empty(mask.shape, np.uint8)
    core.keep_in_squares_cpu(
        (mask.ctypes.data, depth, height, width),
        offset,
        thickness,
        [([marks.ctypes.data for marks in planes], side) for planes, side in marked],
        kept.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return kept


def mark_high_sums(
    images: Sequence[npt.NDArray[np.float32]],
    weights: Sequence[float],
    limit: float,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Return where the weighted sum of images of one shape is at least `limit`.

    Images are added in their order, in double precision. `threads` are OpenMP threads; PyTorch's number where
    None.
    """
    if len({image.shape for image in images}) != 1 or len(images) != len(weights):
        shapes = [image.shape for image in images]
        raise ValueError(
            f"expected images of one shape and their weights, got {shapes}, {len(weights)} weights"
        )
    images = [np.ascontiguousarray(image, np.float32) for image in images]
    marks = np.empty(images[0].shape, bool)
    core.mark_high_sums_cpu(
        [image.ctypes.data for image in images],
        list(weights),
        marks.size,
        limit,
        marks.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return marks


def mark_near(
    planes: Sequence[npt.NDArray[np.bool_]], *, threads: int | None = None
) -> npt.NDArray[np.bool_]:
    """Return what is marked, or has a marked neighbour among eight, in one of (y, x) planes of one shape.

    `threads` are OpenMP threads; PyTorch's number where None.
    """
    if len({plane.shape for plane in planes}) != 1 or planes[0].ndim != 2:
        raise ValueError(f"expected (y, x) planes of one shape, got {[plane.shape for plane in planes]}")
    planes = [np.ascontiguousarray(plane, bool) for plane in planes]
    height, width = planes[0].shape
    marks = np.empty((height, width), bool)
    core.widen_columns_cpu(
        [plane.ctypes.data for plane in planes],
        height,
        width,
        1,
        marks.ctypes.data,
        threads or torch.get_num_threads(),
    )
    return marks


def _bytes_of(mask: npt.NDArray[Any]) -> Mask:
    """Return a mask, C-contiguous, as bytes that are 0 outside."""
    if mask.dtype not in (np.bool_, np.uint8):
        mask = mask != 0
    return np.ascontiguousarray(mask).view(np.uint8)


def _counts(mask: Mask, length: int, parts: int, threads: int | None) -> IndexArray:
    """How many values are not 0 in each part of `length` values."""
    counts = np.zeros(parts, np.int64)
    if mask.size:
        core.count_nonzero_cpu(
            mask.ctypes.data, mask.size, length, counts.ctypes.data, threads or torch.get_num_threads()
        )
    return counts
