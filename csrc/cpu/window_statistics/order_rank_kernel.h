// Order statistics of windows of more than kMaxHistogramSize pixels by ranks. A kernel of cpu/simd_dispatch.h.
//
// The pixels of a tile are sorted once, which gives every pixel a unique rank. Every column of windows slides down with
// a pivot, the rank of its previous result, and the number of ranks below it in the window. The entering and the
// leaving row are compared with the pivots of many columns at once. The result is found by walking from the pivot
// through the ranks in order and counting those whose pixel lies in the window.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

constexpr int kRankLanes = 16;
typedef std::int32_t RankVector __attribute__((vector_size(kRankLanes * sizeof(std::int32_t))));

// Computes ranks: the pixel in row y, column x has rank ranks[y * rank_stride + x].
T3_ALWAYS_INLINE void rank_pixels(const OrderStatisticTile &tile, i64 rows, i64 columns, const RankBuffers &buffers) {
    const i64 count = rows * columns;
    for (i64 y = 0; y < rows; ++y) {
        for (i64 x = 0; x < columns; ++x) {
            buffers.pairs[y * columns + x] =
                static_cast<u64>(float_to_key(tile.image[y * tile.stride + x])) << 32 | (y << 16 | x);
        }
    }
    const u64 *sorted = radix_sort<32>(buffers.pairs, buffers.spare, count);
    std::memset(buffers.y, 255, kRankPad * sizeof(u16));
    std::memset(buffers.y + kRankPad + count, 255, kRankPad * sizeof(u16));
    for (i64 rank = 0; rank < count; ++rank) {
        const i64 y = sorted[rank] >> 16 & 0xFFFF, x = sorted[rank] & 0xFFFF;
        buffers.values[rank] = key_to_float(static_cast<u32>(sorted[rank] >> 32));
        buffers.y[kRankPad + rank] = static_cast<u16>(y);
        buffers.x[kRankPad + rank] = static_cast<u16>(x);
        buffers.ranks[y * rank_stride(columns) + x] = static_cast<std::int32_t>(rank);
    }
}

// Bit i of the result: whether the i-th pixel of the lists lies in the window at (top, left).
T3_ALWAYS_INLINE u64 window_mask(const u16 *y, const u16 *x, i64 top, i64 left, i64 size) {
    u8 inside[kRankPad];
    for (int i = 0; i < kRankPad; ++i) {
        inside[i] = static_cast<u8>((static_cast<u16>(y[i] - top) < static_cast<u16>(size)) &
                                    (static_cast<u16>(x[i] - left) < static_cast<u16>(size)));
    }
    return pack_bits(inside);
}

// Walks from rank `from`, below which the window has `below` ranks, to the window's rank number `target_rank`
// (0-based); with `upper`, also to the next one.
T3_ALWAYS_INLINE void walk_to_rank(const RankBuffers &buffers, i64 top, i64 left, i64 size, i64 from, i64 below,
                                   i64 target_rank, i64 *found, i64 *upper) {
    const u16 *y = buffers.y + kRankPad, *x = buffers.x + kRankPad;
    u64 mask;
    i64 at = from;
    if (below > target_rank) {
        do {
            at -= kRankPad;
            mask = window_mask(y + at, x + at, top, left, size);
            below -= count_bits(mask);
        } while (below > target_rank);
    } else {
        mask = window_mask(y + at, x + at, top, left, size);
        for (int inside = count_bits(mask); below + inside <= target_rank; inside = count_bits(mask)) {
            below += inside;
            at += kRankPad;
            mask = window_mask(y + at, x + at, top, left, size);
        }
    }
    const u64 bit = select_bit(mask, target_rank - below);
    *found = at + __builtin_ctzll(bit);
    if (upper == nullptr) return;
    mask &= ~(bit | (bit - 1));
    while (mask == 0) {
        at += kRankPad;
        mask = window_mask(y + at, x + at, top, left, size);
    }
    *upper = at + __builtin_ctzll(mask);
}

// below[i] += sign * (number of this row's ranks in window i that are below pivot[i]).
template <int kSign>
T3_ALWAYS_INLINE void count_row(const std::int32_t *row, const std::int32_t *pivot, i64 size, std::int32_t *below) {
    RankVector p, sum = {};
    std::memcpy(&p, pivot, sizeof(p));
    for (i64 j = 0; j < size; ++j) {
        RankVector r;
        std::memcpy(&r, row + j, sizeof(r));
        sum -= r < p;
    }
    for (int i = 0; i < kRankLanes; ++i) below[i] += kSign * sum[i];
}

void order_statistics_by_rank(const OrderStatisticTile &tile, const RankBuffers &buffers) {
    const i64 size = tile.size, high = tile.rows + size - 1, wide = tile.columns + size - 1, pixels = high * wide;
    const i64 stride = rank_stride(wide);
    rank_pixels(tile, high, wide, buffers);
    for (int k = 0; k < tile.plane_count; ++k) {
        const OrderPlane &plane = tile.planes[k];
        const QuantilePosition quantile = quantile_position(size * size, plane.fraction, plane.median);
        const i64 last = pixels - 1, share = static_cast<i64>(plane.fraction * static_cast<double>(pixels));
        const std::int32_t first_pivot = static_cast<std::int32_t>(share < last ? share : last);
        for (i64 left = 0; left < tile.columns; left += kRankLanes) {
            const i64 width = tile.columns - left < kRankLanes ? tile.columns - left : kRankLanes;
            std::int32_t pivot[kRankLanes], below[kRankLanes] = {};
            for (int i = 0; i < kRankLanes; ++i) pivot[i] = first_pivot;
            const std::int32_t *const ranks = buffers.ranks + left;
            for (i64 top = 0; top < tile.rows; ++top) {
                if (top == 0) {
                    for (i64 j = 0; j < size; ++j) count_row<1>(ranks + j * stride, pivot, size, below);
                } else {
                    for (int i = 0; i < kRankLanes; ++i) below[i] = static_cast<std::int32_t>(quantile.lower);
                    count_row<1>(ranks + (top + size - 1) * stride, pivot, size, below);
                    count_row<-1>(ranks + (top - 1) * stride, pivot, size, below);
                }
                float low[kRankLanes] = {}, high_value[kRankLanes] = {};
                for (i64 i = 0; i < width; ++i) {
                    i64 found, upper = 0;
                    walk_to_rank(buffers, top, left + i, size, pivot[i], below[i], quantile.lower, &found,
                                 quantile.needs_upper ? &upper : nullptr);
                    pivot[i] = static_cast<std::int32_t>(found);
                    low[i] = buffers.values[found];
                    high_value[i] = buffers.values[upper];
                }
                float *const values = tile.out.data + plane.slot * tile.out.plane + top * tile.out.stride + left;
                for (i64 i = 0; i < width; ++i) values[i] = quantile_value(quantile, low[i], high_value[i]);
            }
        }
    }
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
