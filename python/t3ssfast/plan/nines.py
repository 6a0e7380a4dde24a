"""When nine windows that lie together are done together: the one rule that a CPU chooses its execution by."""

from __future__ import annotations

import math

__all__ = ["NEVER", "least_of_nine"]

# More than nine windows are never asked for in nine.
NEVER = 10
# What nine windows together cost, over the products they take, each as dear as one of a window by itself: the
# transforms, and windows that nobody asked for. `python bench/bench_sliding.py --calibrate` measures it.
NINE_COST = 1.4


def least_of_nine(kernel: tuple[int, int]) -> int:
    """Asked for in nine windows from which doing all nine together costs less than each by itself.

    Together, their first fully connected layer takes 25 products for 3 x 3 of its taps (minimal filtering,
    `csrc/core/minimal.h`), where each by itself takes 9.

    Parameters
    ----------
    kernel
        (y, x) taps of that layer.

    Returns
    -------
    1 to 9, or `NEVER`.
    """
    together = 25 * math.ceil(kernel[0] / 3) * math.ceil(kernel[1] / 3)
    return min(NEVER, math.ceil(NINE_COST * together / (kernel[0] * kernel[1])))
