// Order statistics. The pixels under a tile are sorted once, which gives every pixel a rank of its own. Then every
// column of windows slides down with a pivot, the rank of its last answer, and the number of ranks below it in the
// window: the row that enters and the row that leaves are compared with the pivots of many columns at once. The
// answer is found by walking from the pivot through the ranks in order, counting those whose pixel lies in the window.
#include "core/order.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/parallel.h"
#include "cpu/statistics/families.h"

namespace t3ssfast::cpu {
namespace {

constexpr i64 kOrderTile = 128;
constexpr i64 kMaskedOrderTile = 64;
// Up to this size, ranks fit 16 bits and coordinates 8.
constexpr i64 kNarrowSize = 192;
constexpr int kChunk = 64;

struct Narrow {
    using Rank = std::int16_t;
    using Coordinate = std::uint8_t;
    typedef Rank RankVector __attribute__((vector_size(64)));
    static constexpr i64 kBias = 32768;
    static constexpr i64 kColumns = 32;
};

struct Wide {
    using Rank = std::int32_t;
    using Coordinate = std::uint16_t;
    typedef Rank RankVector __attribute__((vector_size(64)));
    static constexpr i64 kBias = 0;
    static constexpr i64 kColumns = 16;
};

template <typename Kind>
struct OrderScratch {
    std::vector<float> gathered;
    std::vector<std::uint64_t> pairs, spare;
    std::vector<typename Kind::Rank> ranks;      // (rows, stride), biased
    std::vector<typename Kind::Coordinate> y, x;  // by rank, kChunk entries that are in no window at either end
    std::vector<float> values;                    // by rank
};

// Stable radix sort by the upper 32 bits; digits in which all entries agree are skipped.
T3_ALWAYS_INLINE std::uint64_t *sort_pairs(std::uint64_t *pairs, std::uint64_t *spare, i64 count) {
    constexpr int kBits = 11, kPasses = 3, kBins = 1 << kBits;
    std::uint32_t bins[kPasses][kBins] = {};
    for (i64 i = 0; i < count; ++i) {
        for (int pass = 0; pass < kPasses; ++pass) ++bins[pass][(pairs[i] >> (32 + pass * kBits)) & (kBins - 1)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
        const int shift = 32 + pass * kBits;
        std::uint32_t *bin = bins[pass];
        if (bin[(pairs[0] >> shift) & (kBins - 1)] == static_cast<std::uint32_t>(count)) continue;
        std::uint32_t start = 0;
        for (int b = 0; b < kBins; ++b) {
            const std::uint32_t length = bin[b];
            bin[b] = start;
            start += length;
        }
        for (i64 i = 0; i < count; ++i) spare[bin[(pairs[i] >> shift) & (kBins - 1)]++] = pairs[i];
        std::swap(pairs, spare);
    }
    return pairs;
}

template <typename Kind>
T3_ALWAYS_INLINE void rank_pixels(const float *image, i64 stride, i64 rows, i64 columns, i64 rank_stride,
                                  OrderScratch<Kind> &scratch) {
    const i64 count = rows * columns;
    scratch.pairs.resize(count);
    scratch.spare.resize(count);
    scratch.values.resize(count);
    scratch.y.assign(count + 2 * kChunk, static_cast<typename Kind::Coordinate>(-1));
    scratch.x.assign(count + 2 * kChunk, static_cast<typename Kind::Coordinate>(-1));
    scratch.ranks.assign(rows * rank_stride, std::numeric_limits<typename Kind::Rank>::max());
    for (i64 y = 0; y < rows; ++y) {
        for (i64 x = 0; x < columns; ++x) {
            scratch.pairs[y * columns + x] =
                static_cast<std::uint64_t>(float_to_key(image[y * stride + x])) << 32 | (y << 16 | x);
        }
    }
    const std::uint64_t *sorted = sort_pairs(scratch.pairs.data(), scratch.spare.data(), count);
    for (i64 rank = 0; rank < count; ++rank) {
        const i64 y = sorted[rank] >> 16 & 0xFFFF, x = sorted[rank] & 0xFFFF;
        scratch.values[rank] = key_to_float(static_cast<std::uint32_t>(sorted[rank] >> 32));
        scratch.y[kChunk + rank] = static_cast<typename Kind::Coordinate>(y);
        scratch.x[kChunk + rank] = static_cast<typename Kind::Coordinate>(x);
        scratch.ranks[y * rank_stride + x] = static_cast<typename Kind::Rank>(rank - Kind::kBias);
    }
}

// Bit i: whether the pixel of rank `first + i` lies in the window at (top, left).
template <typename Coordinate>
T3_ALWAYS_INLINE std::uint64_t members(const Coordinate *y, const Coordinate *x, i64 top, i64 left, i64 size) {
    alignas(64) std::uint8_t inside[kChunk];
    for (int i = 0; i < kChunk; ++i) {
        inside[i] = static_cast<std::uint8_t>((static_cast<Coordinate>(y[i] - top) < static_cast<Coordinate>(size)) &
                                              (static_cast<Coordinate>(x[i] - left) < static_cast<Coordinate>(size)));
    }
    std::uint64_t mask = 0;
    for (int i = 0; i < kChunk; i += 8) {
        std::uint64_t word = 0;
        // Eight bytes of 0 or 1 to eight bits, first byte lowest, whatever the byte order.
        for (int b = 0; b < 8; ++b) word |= static_cast<std::uint64_t>(inside[i + b]) << (8 * b);
        mask |= (word * 0x0102040810204080u >> 56) << i;
    }
    return mask;
}

T3_ALWAYS_INLINE int set_bits(std::uint64_t mask) { return __builtin_popcountll(mask); }

// Place of the k-th (0-based) bit that is set.
T3_ALWAYS_INLINE int place_of_bit(std::uint64_t mask, i64 k) {
    for (; k > 0; --k) mask &= mask - 1;
    return __builtin_ctzll(mask);
}

// Walks from rank `from`, below which the window has `below` ranks, to the window's rank number `wanted`
// (0-based); with `upper`, also to the next one.
template <typename Kind>
T3_ALWAYS_INLINE void walk(const OrderScratch<Kind> &scratch, i64 top, i64 left, i64 size, i64 from, i64 below,
                           i64 wanted, i64 *found, i64 *upper) {
    const typename Kind::Coordinate *y = scratch.y.data() + kChunk, *x = scratch.x.data() + kChunk;
    std::uint64_t mask;
    i64 at = from;
    if (below > wanted) {
        do {
            at -= kChunk;
            mask = members(y + at, x + at, top, left, size);
            below -= set_bits(mask);
        } while (below > wanted);
    } else {
        mask = members(y + at, x + at, top, left, size);
        for (int inside = set_bits(mask); below + inside <= wanted; inside = set_bits(mask)) {
            below += inside;
            at += kChunk;
            mask = members(y + at, x + at, top, left, size);
        }
    }
    const int bit = place_of_bit(mask, wanted - below);
    *found = at + bit;
    if (upper == nullptr) return;
    mask &= ~std::uint64_t{1} << bit;
    while (mask == 0) {
        at += kChunk;
        mask = members(y + at, x + at, top, left, size);
    }
    *upper = at + __builtin_ctzll(mask);
}

// below[i] += sign * #(ranks of this row in window i that are lower than pivot[i]).
template <typename Kind, int kSign>
T3_ALWAYS_INLINE void count_row(const typename Kind::Rank *row, const typename Kind::Rank *pivot, i64 size,
                                typename Kind::Rank *below) {
    using RankVector = typename Kind::RankVector;
    RankVector p, sum = {};
    std::memcpy(&p, pivot, sizeof(p));
    for (i64 j = 0; j < size; ++j) {
        RankVector r;
        std::memcpy(&r, row + j, sizeof(r));
        sum -= r < p;
    }
    for (i64 i = 0; i < Kind::kColumns; ++i) {
        below[i] = static_cast<typename Kind::Rank>(below[i] + kSign * sum[i]);
    }
}

template <typename Kind>
T3_ALWAYS_INLINE void slide(const OrderScratch<Kind> &scratch, i64 pixels, i64 size, i64 rows, i64 columns,
                            i64 rank_stride, double fraction, bool median, float *out, i64 out_stride) {
    using Rank = typename Kind::Rank;
    const QuantilePlace place = quantile_place(size * size, fraction, median);
    const i64 guess = std::min(pixels - 1, static_cast<i64>(fraction * static_cast<double>(pixels)));
    for (i64 left = 0; left < columns; left += Kind::kColumns) {
        const i64 width = std::min(Kind::kColumns, columns - left);
        alignas(64) Rank pivot[Kind::kColumns], change[Kind::kColumns];
        i64 below[Kind::kColumns] = {};
        std::fill(pivot, pivot + Kind::kColumns, static_cast<Rank>(guess - Kind::kBias));
        const Rank *ranks = scratch.ranks.data() + left;
        for (i64 top = 0; top < rows; ++top) {
            if (top == 0) {
                for (i64 j = 0; j < size; ++j) {
                    std::fill(change, change + Kind::kColumns, Rank{0});
                    count_row<Kind, 1>(ranks + j * rank_stride, pivot, size, change);
                    for (i64 i = 0; i < width; ++i) below[i] += change[i];
                }
            } else {
                std::fill(change, change + Kind::kColumns, Rank{0});
                count_row<Kind, 1>(ranks + (top + size - 1) * rank_stride, pivot, size, change);
                count_row<Kind, -1>(ranks + (top - 1) * rank_stride, pivot, size, change);
                for (i64 i = 0; i < width; ++i) below[i] = place.lower + change[i];
            }
            float low[Kind::kColumns] = {}, high[Kind::kColumns] = {};
            for (i64 i = 0; i < width; ++i) {
                i64 found, upper = 0;
                walk(scratch, top, left + i, size, pivot[i] + Kind::kBias, below[i], place.lower, &found,
                     place.needs_upper ? &upper : nullptr);
                pivot[i] = static_cast<Rank>(found - Kind::kBias);
                low[i] = scratch.values[found];
                high[i] = scratch.values[upper];
            }
            float *values = out + top * out_stride + left;
            for (i64 i = 0; i < width; ++i) values[i] = quantile_value(place, low[i], high[i]);
        }
    }
}

template <typename Kind>
T3_ALWAYS_INLINE void order_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                 const std::vector<OrderPlane> &planes, const TileOutput &out,
                                 OrderScratch<Kind> &scratch) {
    const i64 high = rows + size - 1, wide = columns + size - 1;
    const i64 rank_stride = wide + Kind::kColumns;
    rank_pixels<Kind>(image, stride, high, wide, rank_stride, scratch);
    for (const OrderPlane &plane : planes) {
        slide<Kind>(scratch, high * wide, size, rows, columns, rank_stride, plane.fraction, plane.median,
                    out.data + plane.slot * out.plane, out.stride);
    }
}

T3_SIMD_CLONES void order_of_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                  const std::vector<OrderPlane> &planes, const TileOutput &out,
                                  OrderScratch<Narrow> &scratch) {
    order_tile<Narrow>(image, stride, size, rows, columns, planes, out, scratch);
}

T3_SIMD_CLONES void order_of_wide_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                       const std::vector<OrderPlane> &planes, const TileOutput &out,
                                       OrderScratch<Wide> &scratch) {
    order_tile<Wide>(image, stride, size, rows, columns, planes, out, scratch);
}

template <typename Kind>
void order_of_kind(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                   const WindowList &windows, const Output &output, int threads) {
    // A narrow tile keeps coordinate 255 free for the entries that are in no window.
    const i64 tile_size = std::min(windows.dense() ? kOrderTile : kMaskedOrderTile,
                                   std::is_same<Kind, Narrow>::value ? 256 - size : kOrderTile);
    const TileGrid grid(images, size, windows, tile_size, tile_size, 0);
    parallel_tasks<OrderScratch<Kind>>(grid.count(), threads, [&](OrderScratch<Kind> &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        const float *corner = images.image(tile.image) + tile.y0 * images.width + tile.x0;
        if constexpr (std::is_same<Kind, Narrow>::value) {
            order_of_tile(corner, images.width, size, tile.height(), tile.width(), planes, out, scratch);
        } else {
            order_of_wide_tile(corner, images.width, size, tile.height(), tile.width(), planes, out, scratch);
        }
        for (const OrderPlane &plane : planes) output.close(tile, out, plane.slot);
    });
}

}  // namespace

void order_statistics(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                      const WindowList &windows, const Output &output, int threads) {
    if (size <= kNarrowSize) {
        order_of_kind<Narrow>(images, size, planes, plane_count, windows, output, threads);
    } else {
        order_of_kind<Wide>(images, size, planes, plane_count, windows, output, threads);
    }
}

}  // namespace t3ssfast::cpu
