"""Slices in a row about one."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["slices_about"]

# The last is for callers that hold either.
Slices = TypeVar("Slices", npt.NDArray[np.float32], torch.Tensor, npt.NDArray[np.float32] | torch.Tensor)


def slices_about(slab: Slices, z: int, count: int) -> Slices:
    """`count` slices in a row about slice z of a slab, an odd number; beyond a face the slice of the face.

    A view where the slab holds them all.
    """
    first, end = z - count // 2, z + count // 2 + 1
    if first >= 0 and end <= len(slab):
        return slab[first:end]
    return slab[[min(max(n, 0), len(slab) - 1) for n in range(first, end)]]
