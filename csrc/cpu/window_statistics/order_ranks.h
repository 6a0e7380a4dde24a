// Order statistics of windows of more than kBandSize pixels; a kernel of cpu/each_level.h.
//
// The pixels under a tile are sorted once, which gives every pixel a rank of its own. Then every column of windows
// slides down with a pivot, the rank of its last answer, and the number of ranks below it in the window: the row that
// enters and the row that leaves are compared with the pivots of many columns at once. The answer is found by walking
// from the pivot through the ranks in order, counting those whose pixel lies in the window.
namespace t3ssfast::cpu {
namespace T3_LEVEL {
namespace {

constexpr int kRankLanes = 16;
typedef std::int32_t RankVector __attribute__((vector_size(kRankLanes * sizeof(std::int32_t))));

// Ranks the pixels: image row y, column x has rank ranks[y * rank_stride + x].
T3_ALWAYS_INLINE void rank_pixels(const OrderTask &task, i64 rows, i64 columns, const RankMemory &memory) {
    const i64 count = rows * columns;
    for (i64 y = 0; y < rows; ++y) {
        for (i64 x = 0; x < columns; ++x) {
            memory.pairs[y * columns + x] =
                static_cast<u64>(float_to_key(task.image[y * task.stride + x])) << 32 | (y << 16 | x);
        }
    }
    const u64 *sorted = radix_sort<32>(memory.pairs, memory.spare, count);
    std::memset(memory.y, 255, kRankPad * sizeof(u16));
    std::memset(memory.y + kRankPad + count, 255, kRankPad * sizeof(u16));
    for (i64 rank = 0; rank < count; ++rank) {
        const i64 y = sorted[rank] >> 16 & 0xFFFF, x = sorted[rank] & 0xFFFF;
        memory.values[rank] = key_to_float(static_cast<u32>(sorted[rank] >> 32));
        memory.y[kRankPad + rank] = static_cast<u16>(y);
        memory.x[kRankPad + rank] = static_cast<u16>(x);
        memory.ranks[y * rank_stride(columns) + x] = static_cast<std::int32_t>(rank);
    }
}

// Bit i: whether the pixel of rank `first + i` lies in the window at (top, left).
T3_ALWAYS_INLINE u64 members_of(const u16 *y, const u16 *x, i64 top, i64 left, i64 size) {
    u8 inside[kRankPad];
    for (int i = 0; i < kRankPad; ++i) {
        inside[i] = static_cast<u8>((static_cast<u16>(y[i] - top) < static_cast<u16>(size)) &
                                    (static_cast<u16>(x[i] - left) < static_cast<u16>(size)));
    }
    return pack_bits(inside);
}

// Walks from rank `from`, below which the window has `below` ranks, to the window's rank number `wanted`
// (0-based); with `upper`, also to the next one.
T3_ALWAYS_INLINE void walk(const RankMemory &memory, i64 top, i64 left, i64 size, i64 from, i64 below,
                           i64 wanted, i64 *found, i64 *upper) {
    const u16 *y = memory.y + kRankPad, *x = memory.x + kRankPad;
    u64 mask;
    i64 at = from;
    if (below > wanted) {
        do {
            at -= kRankPad;
            mask = members_of(y + at, x + at, top, left, size);
            below -= set_bits(mask);
        } while (below > wanted);
    } else {
        mask = members_of(y + at, x + at, top, left, size);
        for (int inside = set_bits(mask); below + inside <= wanted; inside = set_bits(mask)) {
            below += inside;
            at += kRankPad;
            mask = members_of(y + at, x + at, top, left, size);
        }
    }
    const u64 bit = pick_bit(mask, wanted - below);
    *found = at + __builtin_ctzll(bit);
    if (upper == nullptr) return;
    mask &= ~(bit | (bit - 1));
    while (mask == 0) {
        at += kRankPad;
        mask = members_of(y + at, x + at, top, left, size);
    }
    *upper = at + __builtin_ctzll(mask);
}

// below[i] += sign * #(ranks of this row in window i that are lower than pivot[i]).
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

void rank_tile(const OrderTask &task, const RankMemory &memory) {
    const i64 size = task.size, high = task.rows + size - 1, wide = task.columns + size - 1, pixels = high * wide;
    const i64 stride = rank_stride(wide);
    rank_pixels(task, high, wide, memory);
    for (int k = 0; k < task.plane_count; ++k) {
        const OrderPlane &plane = task.planes[k];
        const QuantilePlace place = quantile_place(size * size, plane.fraction, plane.median);
        const i64 last = pixels - 1, share = static_cast<i64>(plane.fraction * static_cast<double>(pixels));
        const std::int32_t guess = static_cast<std::int32_t>(share < last ? share : last);
        for (i64 left = 0; left < task.columns; left += kRankLanes) {
            const i64 width = task.columns - left < kRankLanes ? task.columns - left : kRankLanes;
            std::int32_t pivot[kRankLanes], below[kRankLanes] = {};
            for (int i = 0; i < kRankLanes; ++i) pivot[i] = guess;
            const std::int32_t *const ranks = memory.ranks + left;
            for (i64 top = 0; top < task.rows; ++top) {
                if (top == 0) {
                    for (i64 j = 0; j < size; ++j) count_row<1>(ranks + j * stride, pivot, size, below);
                } else {
                    for (int i = 0; i < kRankLanes; ++i) below[i] = static_cast<std::int32_t>(place.lower);
                    count_row<1>(ranks + (top + size - 1) * stride, pivot, size, below);
                    count_row<-1>(ranks + (top - 1) * stride, pivot, size, below);
                }
                float low[kRankLanes] = {}, high_value[kRankLanes] = {};
                for (i64 i = 0; i < width; ++i) {
                    i64 found, upper = 0;
                    walk(memory, top, left + i, size, pivot[i], below[i], place.lower, &found,
                         place.needs_upper ? &upper : nullptr);
                    pivot[i] = static_cast<std::int32_t>(found);
                    low[i] = memory.values[found];
                    high_value[i] = memory.values[upper];
                }
                float *const values = task.out.data + plane.slot * task.out.plane + top * task.out.stride + left;
                for (i64 i = 0; i < width; ++i) values[i] = quantile_value(place, low[i], high_value[i]);
            }
        }
    }
}

}  // namespace
}  // namespace T3_LEVEL
}  // namespace t3ssfast::cpu
