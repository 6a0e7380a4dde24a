// Arguments of the order statistics kernels: one tile of windows, and buffers that a thread keeps.
#pragma once

#include <cstdint>

#include "core/order_statistics.h"
#include "cpu/window_statistics/tasks.h"

namespace t3ssfast::cpu {

// Edge of a tile of the histogram kernel in windows, and the largest window whose tile has byte coordinates (255 means
// none) and byte counts per column.
constexpr i64 kHistogramTile = 128;
constexpr i64 kMaxHistogramSize = 127;
// Minimum rows of windows in a band.
constexpr i64 kMinBandRows = 32;

struct OrderStatisticTile {
    const float *image;  // the tile's first pixel
    i64 stride, size, rows, columns;
    const OrderPlane *planes;
    int plane_count;
    TileOutput out;
};

struct HistogramBuffers {
    std::uint64_t *list, *spare;
    std::int8_t *buckets;  // (rows, stride): bucket of each pixel of the band
    std::uint8_t *y, *x;   // coordinates of the sorted pixels
    float *values;
    std::uint8_t *band_y, *band_x;
    float *band_values;
    std::uint8_t *counts;            // (columns, thresholds): pixels of a column not above each threshold; aligned
    std::int16_t *remaining;         // (columns, kThresholds): requested rank minus each count
    std::uint16_t *remaining_index;  // by column: index into `remaining` of the result's bucket
    std::uint8_t *bucket_of_window;  // by column: bucket of the result
    int *first_threshold;            // by plane: first threshold of the previous row
};

// Padding before and after the sorted pixels: 64 entries that belong to no window.
constexpr int kRankPad = 64;

struct RankBuffers {
    std::uint64_t *pairs, *spare;
    std::int32_t *ranks;   // (rows, rank_stride)
    std::uint16_t *y, *x;  // by rank, after kRankPad entries of padding
    float *values;         // by rank
};

// Distance between rows of ranks: vector loads reach past the last column.
T3_ALWAYS_INLINE i64 rank_stride(i64 columns) { return columns + 16; }

}  // namespace t3ssfast::cpu
