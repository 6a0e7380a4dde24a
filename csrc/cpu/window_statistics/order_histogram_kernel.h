// Order statistics of windows of up to kMaxHistogramSize pixels by sliding cumulative histograms. A kernel of
// cpu/simd_dispatch.h.
//
// The pixels of a tile within an estimated range of values are sorted once (order_histogram_sort.h). The tile is
// processed in bands of rows of windows. The sorted pixels of a band are divided into buckets of 64 entries. Every
// column of pixels, as high as a window, has counts of its pixels not above each bucket; a row that enters and a row
// that leaves update them (order_histogram_band.h). The counts of a window are the sums over its columns and slide
// along the row. They give the bucket of the requested order statistic and its rank within the bucket; testing the
// bucket's 64 entries for membership in the window gives the value.
#include "cpu/window_statistics/order_histogram_sort.h"

#include "cpu/window_statistics/order_histogram_band.h"

namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Numbers of a window's pixels not above each of kThresholds thresholds.
struct ThresholdSums {
#if T3_AVX512
    __m512i sums;
    T3_ALWAYS_INLINE void clear() { sums = _mm512_setzero_si512(); }
    T3_ALWAYS_INLINE void add(const u8 *column) {
        const __m256i more = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(column));
        sums = _mm512_add_epi16(sums, _mm512_cvtepu8_epi16(more));
    }
    T3_ALWAYS_INLINE void slide(const u8 *enter, const u8 *leave) {
        const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(enter));
        const __m256i out = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(leave));
        sums = _mm512_add_epi16(sums, _mm512_cvtepi8_epi16(_mm256_sub_epi8(in, out)));
    }
    // Returns how many counts are at most `target_rank`; `remaining` receives target_rank minus each count.
    T3_ALWAYS_INLINE int count_not_above(i16 target_rank, i16 *remaining) const {
        const __m512i ahead = _mm512_sub_epi16(_mm512_set1_epi16(target_rank), sums);
        _mm512_store_si512(remaining, ahead);
        return kThresholds - __builtin_popcount(_mm512_movepi16_mask(ahead));
    }
#elif T3_AVX2
    __m256i low, high;
    T3_ALWAYS_INLINE static __m128i half(const u8 *from) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    }
    T3_ALWAYS_INLINE void clear() { low = high = _mm256_setzero_si256(); }
    T3_ALWAYS_INLINE void add(const u8 *column) {
        low = _mm256_add_epi16(low, _mm256_cvtepu8_epi16(half(column)));
        high = _mm256_add_epi16(high, _mm256_cvtepu8_epi16(half(column + 16)));
    }
    T3_ALWAYS_INLINE void slide(const u8 *enter, const u8 *leave) {
        low = _mm256_add_epi16(low, _mm256_cvtepi8_epi16(_mm_sub_epi8(half(enter), half(leave))));
        high = _mm256_add_epi16(high, _mm256_cvtepi8_epi16(_mm_sub_epi8(half(enter + 16), half(leave + 16))));
    }
    T3_ALWAYS_INLINE int count_not_above(i16 target_rank, i16 *remaining) const {
        const __m256i target = _mm256_set1_epi16(target_rank);
        const __m256i low_ahead = _mm256_sub_epi16(target, low), high_ahead = _mm256_sub_epi16(target, high);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(remaining), low_ahead);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(remaining + 16), high_ahead);
        const __m256i signs = _mm256_packs_epi16(low_ahead, high_ahead);
        return kThresholds - __builtin_popcount(static_cast<u32>(_mm256_movemask_epi8(signs)));
    }
#else
    i16 sums[kThresholds];
    T3_ALWAYS_INLINE void clear() { std::memset(sums, 0, sizeof(sums)); }
    T3_ALWAYS_INLINE void add(const u8 *column) {
        for (int i = 0; i < kThresholds; ++i) sums[i] = static_cast<i16>(sums[i] + column[i]);
    }
    T3_ALWAYS_INLINE void slide(const u8 *enter, const u8 *leave) {
        for (int i = 0; i < kThresholds; ++i) sums[i] = static_cast<i16>(sums[i] + enter[i] - leave[i]);
    }
    T3_ALWAYS_INLINE int count_not_above(i16 target_rank, i16 *remaining) const {
        i16 count = 0;
        for (int i = 0; i < kThresholds; ++i) {
            remaining[i] = static_cast<i16>(target_rank - sums[i]);
            count = static_cast<i16>(count + (remaining[i] >= 0));
        }
        return count;
    }
#endif
};

// Shift of a window's thresholds when the requested rank is outside them.
constexpr int kThresholdShift = 24;

// Moves the thresholds until the requested rank lies between two of them. False if it lies between none.
bool find_thresholds(const Band &band, i64 left, i64 size, i16 target_rank, i16 *ranks, int *base, ThresholdSums *sums,
                     int *found) {
    const int last = 64 * band.vectors - kThresholds;
    do {
        if (*base == (*found == 0 ? 0 : last)) return false;
        *base = static_cast<int>(*found == 0 ? maximum(*base - kThresholdShift, 0)
                                             : minimum(*base + kThresholdShift, last));
        sums->clear();
        for (i64 x = left; x < left + size; ++x) sums->add(band.counts + x * band.pitch + *base);
        *found = sums->count_not_above(target_rank, ranks);
    } while (*found == 0 || *found == kThresholds);
    return true;
}

// Finds the bucket, and the rank within it, of one quantile for one row of windows. False if a value is outside the
// range.
bool find_buckets(const Band &band, const QuantilePosition &quantile, i64 size, i64 width, int *start,
                  const HistogramBuffers &buffers) {
    const i64 pitch = band.pitch;
    const u8 *const counts = band.counts;
    u16 *const remaining_index = buffers.remaining_index;
    u8 *const bucket_of_window = buffers.bucket_of_window;
    i16 *ranks = buffers.remaining;
    const i16 target_rank = static_cast<i16>(quantile.lower);
    int base = *start;
    ThresholdSums sums;
    sums.clear();
    // Values past the last bucket are outside the estimated range.
    bool above = false;
    for (i64 x = 0; x < size; ++x) sums.add(counts + x * pitch + base);
    for (i64 left = 0;;) {
        int found = sums.count_not_above(target_rank, ranks);
        if (__builtin_expect(found == 0 || found == kThresholds, 0)) {
            // Separate variables keep sums and base in registers.
            ThresholdSums moved;
            int moved_base = base, moved_found = found;
            if (!find_thresholds(band, left, size, target_rank, ranks, &moved_base, &moved, &moved_found)) return false;
            sums = moved;
            base = moved_base;
            found = moved_found;
        }
        remaining_index[left] = static_cast<u16>(left * kThresholds + found - 1);
        bucket_of_window[left] = static_cast<u8>(base + found - 1);
        above |= base + found > band.bucket_count;
        if (left == 0) *start = base;
        if (++left == width) return !above;
        ranks += kThresholds;
        const u8 *const column = counts + left * pitch + base;
        sums.slide(column + (size - 1) * pitch, column - pitch);
    }
}

// Interpolates quantiles between pairs of values.
T3_ALWAYS_INLINE void write_quantiles(const QuantilePosition &quantile, const float *low, const float *high, i64 width,
                                      float *out) {
    const double weight = quantile.weight;
    if (!quantile.needs_upper) {
        std::memcpy(out, low, static_cast<std::size_t>(width) * sizeof(float));
    } else if (quantile.median) {
        for (i64 x = 0; x < width; ++x) out[x] = quantile_value({0, weight, true, true}, low[x], high[x]);
    } else if (weight >= 0.5) {
        for (i64 x = 0; x < width; ++x) {
            out[x] = quantile_value({0, weight >= 0.5 ? weight : 1.0, false, true}, low[x], high[x]);
        }
    } else {
        for (i64 x = 0; x < width; ++x) {
            out[x] = quantile_value({0, weight < 0.5 ? weight : 0.0, false, true}, low[x], high[x]);
        }
    }
}

// Reads the values of one row of windows. False if one is not in the band.
template <bool kUpper, bool kSingleMask>
bool read_values(const Band &band, const HistogramBuffers &buffers, const QuantilePosition &quantile, i64 size, i64 top,
                 i64 width, float *out) {
    float low[kHistogramTile], high[kHistogramTile];
    i32 pending[kHistogramTile];  // windows whose next member is beyond the tested entries, and the position reached
    i32 pending_at[kHistogramTile];
    i64 pending_count = 0;
    bool missing = false;
    const i16 *const ranks = buffers.remaining;
    const u16 *const remaining_index = buffers.remaining_index;
    const u8 *const bucket_of_window = buffers.bucket_of_window;
    const float *const values = band.values;
    const i64 masks_per_bucket = kSingleMask ? 1 : band.masks_per_bucket;
    for (i64 left = 0; left < width; ++left) {
        i64 rank = ranks[remaining_index[left]];
        i64 at = bucket_of_window[left] * 64 * masks_per_bucket;
        u64 mask = window_mask(band, at, top, left, size);
        if (!kSingleMask) {
            for (i64 mask_index = 1; mask_index < masks_per_bucket; ++mask_index) {
                const int inside = count_bits(mask);
                if (inside > rank) break;
                rank -= inside;
                at += 64;
                mask = window_mask(band, at, top, left, size);
            }
        }
        const u64 bit = select_bit(mask, rank);
        if (!kUpper) missing |= bit == 0;
        low[left] = values[at + lowest_bit(bit)];
        if (kUpper) {
            const u64 later = mask & ~(bit | (bit - 1));
            high[left] = values[at + lowest_bit(later)];
            pending[pending_count] = static_cast<i32>(left);
            pending_at[pending_count] = static_cast<i32>(at);
            pending_count += later == 0;
        }
    }
    if (missing) return false;
    for (i64 i = 0; i < pending_count; ++i) {
        const i64 left = pending[i];
        i64 at = pending_at[i];
        u64 mask;
        do {
            at += 64;
            if (at >= band.count) return false;
            mask = window_mask(band, at, top, left, size);
        } while (mask == 0);
        high[left] = values[at + __builtin_ctzll(mask)];
    }
    write_quantiles(quantile, low, high, width, out);
    return true;
}

T3_ALWAYS_INLINE bool read_values(const Band &band, const HistogramBuffers &buffers, const QuantilePosition &quantile,
                                  i64 size, i64 top, i64 width, float *out) {
    if (band.masks_per_bucket > 1) {
        return quantile.needs_upper ? read_values<true, false>(band, buffers, quantile, size, top, width, out)
                                    : read_values<false, false>(band, buffers, quantile, size, top, width, out);
    }
    return quantile.needs_upper ? read_values<true, true>(band, buffers, quantile, size, top, width, out)
                                : read_values<false, true>(band, buffers, quantile, size, top, width, out);
}

// The fewer pixels were sorted, the more rows share a band: building a band costs more than a few more buckets.
i64 choose_band_rows(const SortedPixels &sorted_pixels, i64 size) {
    i64 rows = kHistogramTile;
    const i64 few = 64 * kFewBuckets * sorted_pixels.high;
    while (rows > kMinBandRows && sorted_pixels.count * minimum(sorted_pixels.high, rows + size - 1) > few) rows /= 2;
    return rows;
}

bool process_tile(const OrderStatisticTile &tile, const ValueRange &range, const HistogramBuffers &buffers) {
    const SortedPixels sorted_pixels = sort_pixels(tile, range, buffers);
    if (sorted_pixels.count == 0) return false;
    const i64 size = tile.size, width = tile.columns;
    const i64 band_rows = choose_band_rows(sorted_pixels, size);
    for (i64 begin = 0; begin < tile.rows; begin += band_rows) {
        const i64 rows = minimum(band_rows, tile.rows - begin);
        const Band band = build_band(tile, range, buffers, sorted_pixels, begin, rows + size - 1);
        if (band.count == 0) return false;
        count_columns(band, size, sorted_pixels.wide);
        for (int k = 0; k < tile.plane_count; ++k) buffers.first_threshold[k] = 0;
        for (i64 row = 0; row < rows; ++row) {
            if (row > 0) move_columns(band, row + size - 1, row - 1, sorted_pixels.wide);
            for (int k = 0; k < tile.plane_count; ++k) {
                const OrderPlane &plane = tile.planes[k];
                const QuantilePosition quantile = quantile_position(size * size, plane.fraction, plane.median);
                if (!find_buckets(band, quantile, size, width, buffers.first_threshold + k, buffers)) return false;
                float *const out = tile.out.data + plane.slot * tile.out.plane + (begin + row) * tile.out.stride;
                if (!read_values(band, buffers, quantile, size, row, width, out)) return false;
            }
        }
    }
    return true;
}

void order_statistics_by_histogram(const OrderStatisticTile &tile, const HistogramBuffers &buffers) {
    const ValueRange range = estimate_value_range(tile, buffers);
    if (range.unbounded || !process_tile(tile, range, buffers))
        process_tile(tile, {-kFloatMax, kFloatMax, true}, buffers);
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
