// The kernels for order statistics, in the order in which they depend on each other. Compiled once per instruction set
// by cpu/simd_dispatch.h.
#include "cpu/window_statistics/bit_sets.h"

#include "cpu/window_statistics/radix_sort.h"

#include "cpu/window_statistics/order_histogram_kernel.h"

#include "cpu/window_statistics/order_rank_kernel.h"
