// What the order statistics' kernels are given: one tile of windows, and memory that a thread keeps between tiles.
#pragma once

#include <cstdint>

#include "core/order.h"
#include "cpu/window_statistics/families.h"

namespace t3ssfast::cpu {

// Windows in a tile of the banded kernel, and the largest window whose tile has byte coordinates (255 stands for none)
// and whose rows are counted in a byte.
constexpr i64 kBandTile = 128;
constexpr i64 kBandSize = 127;
// Rows of windows in a band.
constexpr i64 kBandRows = 32;

struct OrderTask {
    const float *image;  // the tile's first pixel
    i64 stride, size, rows, columns;
    const OrderPlane *planes;
    int plane_count;
    TileOutput out;
};

struct BandMemory {
    std::uint64_t *list, *spare;
    std::int8_t *granules;  // (rows, stride) of the band's pixels
    std::uint8_t *y, *x;    // of the tile's list
    float *values;
    std::uint8_t *band_y, *band_x;
    float *band_values;
    std::uint8_t *counts;  // (columns, thresholds): of a column's pixels, those not above a threshold; aligned
    std::int16_t *sums;    // (columns, thresholds at a time): how far the answer's rank is ahead of each
    std::uint16_t *slots;  // by column: which of its sums is the granule's
    std::uint8_t *places;  // by column: the answer's granule
    int *starts;           // by plane: the first threshold that the row before began with
};

// Entries of no window before and behind the sorted pixels: one look's worth.
constexpr int kRankPad = 64;

struct RankMemory {
    std::uint64_t *pairs, *spare;
    std::int32_t *ranks;  // (rows, rank_stride)
    std::uint16_t *y, *x;  // by rank, kRankPad before the first
    float *values;         // by rank
};

// Distance of two rows of ranks: vectors reach beyond the last column.
T3_ALWAYS_INLINE i64 rank_stride(i64 columns) { return columns + 16; }

}  // namespace t3ssfast::cpu
