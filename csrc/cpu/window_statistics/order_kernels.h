// The kernels of order statistics, for one level of cpu/each_level.h.
#include "cpu/window_statistics/order_bits.h"

#include "cpu/window_statistics/order_bands.h"
#include "cpu/window_statistics/order_ranks.h"
