"""Pieces of a mask that hang together."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

__all__ = ["label_components"]


def label_components(mask: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Label what hangs together by faces, edges or corners.

    Parameters
    ----------
    mask
        (z, y, x), non-zero is inside.

    Returns
    -------
    (z, y, x) labels, contiguous, 0 outside and from 1 on inside, and how many there are.
    """
    # The empty row and column keep cc3d's estimate of the labels it needs from falling short on the smallest
    # masks.
    framed = np.pad(mask != 0, ((0, 0), (0, 1), (0, 1)))
    labels, count = cc3d.connected_components(framed, connectivity=26, return_N=True)
    return np.ascontiguousarray(labels[:, :-1, :-1]), int(count)
