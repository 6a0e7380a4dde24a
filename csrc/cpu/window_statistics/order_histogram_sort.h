// The sorted pixels of a tile, within an estimated range of values. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// An entry of the list before sorting: a key above the coordinates y and x.
T3_ALWAYS_INLINE u64 entry_of(u64 key, u64 y, u64 x) { return key << 16 | y << 8 | x; }
T3_ALWAYS_INLINE u32 entry_key(u64 entry) { return static_cast<u32>(entry >> 16); }

// Keys on a linear scale: two digits of kDigitBits bits.
constexpr int kDigitBits = 11;
constexpr float kMaxLinear = (1 << 2 * kDigitBits) - 1;

// Sorts by linear keys. False if the values cluster so much that sorting by the floats' bits is faster.
bool sort_linear(u64 *list, u64 *spare, i64 count) {
    u32 bins[2][1 << kDigitBits] = {};
    for (i64 i = 0; i < count; ++i) {
        ++bins[0][list[i] >> 16 & ((1 << kDigitBits) - 1)];
        ++bins[1][list[i] >> (16 + kDigitBits)];
    }
    double clustering = 0.0;
    for (int b = 0; b < 1 << kDigitBits; ++b) clustering += static_cast<double>(bins[1][b]) * bins[1][b];
    const double n = static_cast<double>(count);
    if (clustering > n * n / 128.0 + 4.0 * n) return false;
    scatter<16, kDigitBits>(list, spare, count, 0, bins[0]);
    scatter<16, kDigitBits>(spare, list, count, kDigitBits, bins[1]);
    return true;
}

// Estimated range [low, high] of a tile's order statistics.
struct ValueRange {
    float low, high;
    bool unbounded;
};

constexpr float kFloatMax = 3.402823466e38f;
// Samples along the edge of a window, and sample windows along the edge of the tile.
constexpr i64 kSamplesPerEdge = 10, kSampleWindowsPerEdge = 5;

// Estimates the range from windows sampled on a coarse grid, sorted once for all of them.
ValueRange estimate_value_range(const OrderStatisticTile &tile, const HistogramBuffers &buffers) {
    const i64 step = tile.size / kSamplesPerEdge;
    if (step < 2) return {-kFloatMax, kFloatMax, true};
    const i64 edge = tile.size / step;
    const i64 high = (tile.rows + tile.size - 2) / step + 1, wide = (tile.columns + tile.size - 2) / step + 1;
    i64 count = 0;
    for (i64 y = 0; y < high; ++y) {
        for (i64 x = 0; x < wide; ++x) {
            const u32 key = float_to_key(tile.image[y * step * tile.stride + x * step]);
            buffers.list[count++] = entry_of(key, static_cast<u64>(y), static_cast<u64>(x));
        }
    }
    const u64 *const sorted = radix_sort<16>(buffers.list, buffers.spare, count);
    for (i64 i = 0; i < count; ++i) {
        buffers.y[i] = static_cast<u8>(sorted[i] >> 8);
        buffers.x[i] = static_cast<u8>(sorted[i]);
    }
    for (i64 i = 0; i < 64; ++i) buffers.y[count + i] = 255;
    i64 first = count, last = 0;
    for (i64 i = 0; i < kSampleWindowsPerEdge * kSampleWindowsPerEdge; ++i) {
        const u8 top =
            static_cast<u8>((tile.rows - 1) * (i / kSampleWindowsPerEdge) / (kSampleWindowsPerEdge - 1) / step);
        const u8 left =
            static_cast<u8>((tile.columns - 1) * (i % kSampleWindowsPerEdge) / (kSampleWindowsPerEdge - 1) / step);
        for (int k = 0; k < tile.plane_count; ++k) {
            i64 rank = static_cast<i64>(tile.planes[k].fraction * static_cast<double>(edge * edge - 1));
            i64 at = 0;
            u64 mask;
            for (;; at += 64) {
                mask = range_mask(buffers.y + at, top, static_cast<u8>(edge)) &
                       range_mask(buffers.x + at, left, static_cast<u8>(edge));
                if (count_bits(mask) > rank) break;
                rank -= count_bits(mask);
            }
            at += __builtin_ctzll(select_bit(mask, rank));
            first = minimum(first, at);
            last = maximum(last, at);
        }
    }
    const i64 margin = (last - first) / 16 + count / 256 + 1;
    if (first < margin && last + margin >= count) return {-kFloatMax, kFloatMax, true};
    return {first < margin ? -kFloatMax : key_to_float(entry_key(sorted[first - margin])),
            last + margin >= count ? kFloatMax : key_to_float(entry_key(sorted[last + margin])), false};
}

// --------------------------------------------------------------------------------------- the sorted list

constexpr i8 kLowestBucket = -128;

// The pixels of a tile in ascending order.
struct SortedPixels {
    i64 count;               // number of sorted pixels
    i64 high, wide, stride;  // extent of the tile in pixels, and distance between rows of buckets
};

T3_ALWAYS_INLINE i64 byte_stride(i64 wide) { return wide + 64; }

// Prefetch distance in rows of pixels: rows of an image are too far apart for the hardware prefetcher.
constexpr i64 kPrefetchRows = 8;

T3_ALWAYS_INLINE void prefetch_row(const float *row, i64 wide) {
    for (i64 x = 0; x < wide; x += 16) __builtin_prefetch(row + x);
}

// Lists the pixels within the range, row by row.
i64 collect_pixels(const OrderStatisticTile &tile, const ValueRange &range, float low, float scale, i64 high, i64 wide,
                   const HistogramBuffers &buffers) {
    i64 count = 0;
    for (i64 y = 0; y < high; ++y) {
        const float *const row = tile.image + y * tile.stride;
        prefetch_row(row + minimum(kPrefetchRows, high - 1 - y) * tile.stride, wide);
        i64 x = 0;
#if T3_AVX512
        const __m512 from = _mm512_set1_ps(range.low), to = _mm512_set1_ps(range.high);
        const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (; x < wide; x += 16) {
            const __mmask16 here = static_cast<__mmask16>(wide - x >= 16 ? 0xFFFF : (1 << (wide - x)) - 1);
            const __m512 value = _mm512_add_ps(_mm512_maskz_loadu_ps(here, row + x), _mm512_setzero_ps());
            const __mmask16 above = _mm512_cmp_ps_mask(value, to, _CMP_GT_OQ);
            const __mmask16 in =
                static_cast<__mmask16>(_mm512_mask_cmp_ps_mask(here, value, from, _CMP_GE_OQ) & ~above);
            if (in == 0) continue;
            const __m512 linear = _mm512_min_ps(
                _mm512_max_ps(_mm512_mul_ps(_mm512_sub_ps(value, _mm512_set1_ps(low)), _mm512_set1_ps(scale)),
                              _mm512_setzero_ps()),
                _mm512_set1_ps(kMaxLinear));
            const __m512i key = _mm512_cvttps_epi32(linear);
            const __m512i upper = _mm512_srli_epi32(key, 16);
            const __m512i column = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(x)));
            const __m512i lower = _mm512_or_si512(_mm512_or_si512(_mm512_slli_epi32(key, 16), column),
                                                  _mm512_set1_epi32(static_cast<int>(y << 8)));
            // Interleaves the halves of 64-bit entries in the order of the columns.
            const __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            const __m512i first = _mm512_permutex2var_epi32(lower, pick, upper);
            const __m512i second =
                _mm512_permutex2var_epi32(lower, _mm512_add_epi32(pick, _mm512_set1_epi32(8)), upper);
            const __mmask8 first_in = static_cast<__mmask8>(in), second_in = static_cast<__mmask8>(in >> 8);
            _mm512_storeu_si512(buffers.list + count, _mm512_maskz_compress_epi64(first_in, first));
            count += count_bits(first_in);
            _mm512_storeu_si512(buffers.list + count, _mm512_maskz_compress_epi64(second_in, second));
            count += count_bits(second_in);
        }
#else
        std::int32_t keys[256];
        u8 in[256];
        for (; x < wide; ++x) {
            float linear = (row[x] - low) * scale;
            linear = linear > 0.0f ? linear : 0.0f;
            linear = linear < kMaxLinear ? linear : kMaxLinear;
            keys[x] = static_cast<std::int32_t>(linear);
            in[x] = (row[x] >= range.low) & (row[x] <= range.high);
        }
        // Branch-free: which pixels are within the range is unpredictable.
        for (x = 0; x < wide; ++x) {
            buffers.list[count] = entry_of(static_cast<u32>(keys[x]), static_cast<u64>(y), static_cast<u64>(x));
            count += in[x];
        }
#endif
    }
    return count;
}

// Extracts coordinates and values from the sorted entries.
void unpack_sorted(const OrderStatisticTile &tile, const u64 *sorted, i64 count, const HistogramBuffers &buffers) {
    u8 *const ys = buffers.y, *const xs = buffers.x;
    float *const values = buffers.values;
    const float *const image = tile.image;
    const i64 stride = tile.stride;
    for (i64 i = 0; i < count; ++i) {
        const u64 yx = sorted[i] & 0xFFFF;
        // Adding +0 turns -0.0 into 0.0, so that the result does not depend on which of the two equal zeros is found.
        values[i] = image[(yx >> 8) * stride + (yx & 255)] + 0.0f;
    }
    for (i64 i = 0; i < count; ++i) {
        ys[i] = static_cast<u8>(sorted[i] >> 8);
        xs[i] = static_cast<u8>(sorted[i]);
    }
}

// Insertion sort of values with equal linear keys. False if there are too many moves.
bool repair_order(i64 count, const HistogramBuffers &buffers) {
    u8 *const ys = buffers.y, *const xs = buffers.x;
    float *const values = buffers.values;
    i64 moves = 4 * count;
    for (i64 i = 1; i < count; ++i) {
        const float value = values[i];
        if (value >= values[i - 1]) continue;
        const u8 y = ys[i], x = xs[i];
        i64 j = i;
        for (; j > 0 && values[j - 1] > value; --j) {
            values[j] = values[j - 1];
            ys[j] = ys[j - 1];
            xs[j] = xs[j - 1];
        }
        values[j] = value;
        ys[j] = y;
        xs[j] = x;
        moves -= i - j;
        if (moves < 0) return false;
    }
    return true;
}

SortedPixels sort_pixels(const OrderStatisticTile &tile, const ValueRange &range, const HistogramBuffers &buffers) {
    const i64 high = tile.rows + tile.size - 1, wide = tile.columns + tile.size - 1;
    float low = range.low, top = range.high;
    if (low == -kFloatMax || top == kFloatMax) {
        // 16 separate lanes: a compiler must not reorder comparisons of floats.
        float lowest[16], highest[16];
        for (int i = 0; i < 16; ++i) lowest[i] = highest[i] = tile.image[0];
        for (i64 y = 0; y < high; ++y) {
            const float *const row = tile.image + y * tile.stride;
            i64 x = 0;
            for (; x + 16 <= wide; x += 16) {
                for (int i = 0; i < 16; ++i) {
                    lowest[i] = row[x + i] < lowest[i] ? row[x + i] : lowest[i];
                    highest[i] = row[x + i] > highest[i] ? row[x + i] : highest[i];
                }
            }
            for (; x < wide; ++x) {
                lowest[0] = row[x] < lowest[0] ? row[x] : lowest[0];
                highest[0] = row[x] > highest[0] ? row[x] : highest[0];
            }
        }
        for (int i = 1; i < 16; ++i) {
            lowest[0] = lowest[i] < lowest[0] ? lowest[i] : lowest[0];
            highest[0] = highest[i] > highest[0] ? highest[i] : highest[0];
        }
        low = low == -kFloatMax ? lowest[0] : low;
        top = top == kFloatMax ? highest[0] : top;
    }
    const float extent = top - low, scale = kMaxLinear / extent;
    const bool linear = extent > 1e-30f && extent < 1e30f;
    const i64 count = collect_pixels(tile, range, low, linear ? scale : 0.0f, high, wide, buffers);
    if (count == 0) return {0, high, wide, byte_stride(wide)};
    if (linear && sort_linear(buffers.list, buffers.spare, count)) {
        unpack_sorted(tile, buffers.list, count, buffers);
        if (repair_order(count, buffers)) return {count, high, wide, byte_stride(wide)};
    }
    for (i64 i = 0; i < count; ++i) {
        const u64 yx = buffers.list[i] & 0xFFFF;
        const u32 key = float_to_key(tile.image[(yx >> 8) * tile.stride + (yx & 255)]);
        buffers.list[i] = static_cast<u64>(key) << 16 | yx;
    }
    unpack_sorted(tile, radix_sort<16>(buffers.list, buffers.spare, count), count, buffers);
    return {count, high, wide, byte_stride(wide)};
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
