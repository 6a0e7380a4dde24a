"""When nine windows that lie together are done together: the one rule that a CPU chooses its execution by."""

from __future__ import annotations

import math

__all__ = ["NEVER", "cost_of_nine", "least_of_nine"]

# More than nine windows are never asked for in nine.
NEVER = 10
# What nine windows together cost, over the products they take, each as dear as one of a window by itself: the
# transforms, and windows that nobody asked for. `python bench/bench_sliding.py --calibrate` measures it.
NINE_COST = 1.4


def cost_of_nine(kernel: tuple[int, int]) -> float:
    """What nine windows done together cost in the head's first layer, over what one costs by itself.

    Together, they take 25 products for 3 x 3 taps of the layer (minimal filtering, `csrc/core/minimal.h`),
    where one by itself takes 9.

    Parameters
    ----------
    kernel
        (y, x) taps of the layer.
    """
    together = 25 * math.ceil(kernel[0] / 3) * math.ceil(kernel[1] / 3)
    return NINE_COST * together / (kernel[0] * kernel[1])


def least_of_nine(kernel: tuple[int, int]) -> int:
    """Asked for in nine windows from which doing all nine together costs less than each by itself.

    Parameters
    ----------
    kernel
        (y, x) taps of the head's first layer.

    Returns
    -------
    1 to 9, or `NEVER`.
    """
    return min(NEVER, math.ceil(cost_of_nine(kernel)))
