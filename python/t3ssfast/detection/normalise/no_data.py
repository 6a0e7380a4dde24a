"""Regions without data: the constant that fills borders and the corners of rotated volumes.

A fill far from the mean grey value would shift the scale of the whole volume and look like a wall of protein.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

__all__ = ["find_fill_values", "no_data_mask"]

# Side in pixels of the smallest square that counts: in noise, no square of equal values is as large, not even
# in 8-bit data, where one value takes up to an eighth of the pixels.
SIDE = 4
# Data within this distance of a fill are mixed with it by interpolation.
RIM = 2
# Share of the pixels on the edges of slices, and of all pixels, from which a value can be a fill.
MIN_EDGE_SHARE, MIN_SHARE = 0.01, 0.002
# With more, the volume is a mask or synthetic, and its background is what it is.
MAX_SHARE = 0.9
MAX_FILLS = 3


def find_fill_values(slices: Sequence[Tensor]) -> tuple[float, ...]:
    """Return the values that fill regions without data, judged by some (y, x) slices.

    A fill reaches the edge of a slice, and forms squares of exactly equal values.
    """
    edges = np.concatenate(
        [part.numpy() for image in slices for part in (image[0], image[-1], image[:, 0], image[:, -1])]
    )
    values, counts = np.unique(edges, return_counts=True)
    frequent = [k for k in np.argsort(-counts)[:MAX_FILLS] if counts[k] >= MIN_EDGE_SHARE * len(edges)]
    pixels = sum(image.numel() for image in slices)
    fills = []
    for value in (float(values[k]) for k in frequent):
        masks = (no_data_mask(image, (value,)) for image in slices)
        area = sum(int(mask.sum()) for mask in masks if mask is not None)
        if area >= MIN_SHARE * pixels:
            fills.append((value, area))
    if sum(area for _, area in fills) > MAX_SHARE * pixels:
        return ()
    return tuple(value for value, _ in fills)


def no_data_mask(image: Tensor, fills: Sequence[float], rim: int = RIM) -> Tensor | None:
    """Return where a (y, x) slice holds no data, with a rim, as booleans; None where all of it is data."""
    mask = None
    for value in fills:
        equal = image == value
        if int(equal.sum()) < SIDE * SIDE:
            continue
        # Squares may reach half of their side beyond the edges.
        half = SIDE // 2
        unset = F.pad(1.0 - equal.float()[None, None], [half] * 4, value=0.0)
        core = 1.0 - _maximum(unset, 0, SIDE)
        if not bool(core.any()):
            continue
        area = _maximum(core, SIDE - 1, SIDE)[..., half:-half, half:-half]
        # The tips of triangular corners are smaller than the square.
        near = _maximum(area, SIDE, 2 * SIDE + 1)
        grown = ((near[0, 0] > 0) & equal) | (area[0, 0] > 0)
        mask = grown if mask is None else mask | grown
    if mask is None or rim == 0:
        return mask
    widened: Tensor = _maximum(mask.float()[None, None], rim, 2 * rim + 1)[0, 0] > 0
    return widened


def _maximum(image: Tensor, margin: int, side: int) -> Tensor:
    """Return the maximum of every square of `side` pixels of (1, 1, y, x), padded by a margin of 0."""
    padded = F.pad(image, [margin] * 4)
    return F.max_pool2d(F.max_pool2d(padded, (side, 1), 1), (1, side), 1)
