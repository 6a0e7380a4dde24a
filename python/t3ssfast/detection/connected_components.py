"""Connected components of a mask."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

__all__ = ["label_components"]


def label_components(mask: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Label the 26-connected components of a (z, y, x) mask.

    Returns
    -------
    (z, y, x) labels, C-contiguous, 0 where the mask is 0 and from 1 elsewhere, and their number.
    """
    # Without the empty row and column, cc3d underestimates the number of labels of the smallest masks.
    padded = np.pad(mask != 0, ((0, 0), (0, 1), (0, 1)))
    labels, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    return np.ascontiguousarray(labels[:, :-1, :-1]), int(count)
