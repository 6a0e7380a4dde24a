"""When the CPU kernel computes the windows of a 3 x 3 block together, by Winograd's minimal filtering.

F(3 x 3, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), takes 25
products instead of 81; see `csrc/core/winograd.h`.
"""

from __future__ import annotations

import math

__all__ = ["WINOGRAD_OFF", "winograd_block_cost", "winograd_min_windows"]

# Above the nine windows of a block, so that no block qualifies.
WINOGRAD_OFF = 10
# Measured time per product over that of the direct sum: the transforms, and windows that were not requested.
# `python bench/bench_score_windows.py --calibrate` prints it.
COST_PER_PRODUCT = 1.4


def winograd_block_cost(kernel: tuple[int, int]) -> float:
    """Return the cost of a block in a layer of (y, x) kernel, relative to one window by the direct sum."""
    products = 25 * math.ceil(kernel[0] / 3) * math.ceil(kernel[1] / 3)
    return COST_PER_PRODUCT * products / (kernel[0] * kernel[1])


def winograd_min_windows(kernel: tuple[int, int]) -> int:
    """Return the minimum number of requested windows per block for which it is cheaper, or `WINOGRAD_OFF`."""
    return min(WINOGRAD_OFF, math.ceil(winograd_block_cost(kernel)))
