// What the order statistics' kernels are given: one tile of windows, and memory that a thread keeps between tiles.
#pragma once

#include <cstdint>

#include "core/order.h"
#include "cpu/statistics/families.h"

namespace t3ssfast::cpu {

// Windows in a tile of the banded kernel, and the largest window whose tile has byte coordinates (255 stands for none)
// and whose rows are counted in a byte.
constexpr i64 kBandTile = 128;
constexpr i64 kBandSize = 127;
// Rows of windows in a band, and rows that are answered from one boundary.
constexpr i64 kBandRows = 32;
constexpr int kGroup = 2;

struct OrderTask {
    const float *image;  // the tile's first pixel
    i64 stride, size, rows, columns;
    const OrderPlane *planes;
    int plane_count;
    TileOutput out;
};

// One quantile's way down a tile, by column of windows.
struct OrderColumns {
    std::uint16_t *boundary;  // granules below it
    std::int8_t *pivot;       // the same as compared with a pixel's granule
    std::int16_t *below;      // of the window's pixels
    std::uint16_t *place;     // of the last answer: in the band's list, between bands in the tile's
};

// Entries of no window before and behind a band's list: one look's worth and a granule's.
constexpr i64 kBandPad = 384;
// Bytes for a bit of each entry of the longest list; no power of two, which would put rows on the same cache lines.
constexpr i64 kRowBits = ((kBandRows + kBandSize) * (kBandTile + kBandSize - 1) + 2 * kBandPad) / 8 + 64;

struct BandMemory {
    std::uint64_t *list, *spare;
    std::int8_t *classes;   // (rows, stride) of the tile's pixels: below, among or above the sorted ones
    std::int8_t *granules;  // (rows, stride) of the band's pixels
    std::uint8_t *y, *x;    // of the tile's list
    float *values;
    std::uint16_t *block_start, *block_bits;  // of each 16 entries: place in the band's list, which ones are in it
    std::uint8_t *band_y, *band_x;
    std::uint16_t *band_index;  // in the tile's list
    std::uint8_t *row_bits;     // (kGroup, kRowBits), a bit an entry: which ones lie in the rows of a window
    OrderColumns *columns;  // by plane
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
