"""Connected components of a mask."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

__all__ = ["label_components"]


def label_components(mask: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Return C-contiguous labels, from 1, of the 26-connected components of a mask, and their number."""
    # Without the empty row and column, cc3d underestimates the number of labels of the smallest masks.
    padded = np.pad(mask != 0, ((0, 0), (0, 1), (0, 1)))
    labels, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    return np.ascontiguousarray(labels[:, :-1, :-1]), int(count)
