// The cumulative histograms of a band: counts per column of pixels. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Number of bucket thresholds whose counts a window keeps at a time.
constexpr int kThresholds = 32;

// Rows first_row .. first_row + pixel_rows - 1 of the tile's pixels: sorted entries, bucket of each pixel, and counts.
struct Band {
    const u8 *y, *x;  // y is relative to the band's first row
    const float *values;
    const i8 *buckets;
    u8 *counts;
    i64 stride, count;                   // distance between rows of buckets; number of sorted entries
    i64 bucket_count, masks_per_bucket;  // a bucket has 64 * masks_per_bucket entries
    int vectors;                         // of 64 thresholds each
    i64 pitch;                           // distance between columns of counts
};

// Which of 64 entries lie in the window at (top, left) of the band.
T3_ALWAYS_INLINE u64 window_mask(const Band &band, i64 at, i64 top, i64 left, i64 size) {
#if T3_AVX512
    const __m512i x = _mm512_sub_epi8(_mm512_loadu_si512(band.x + at), _mm512_set1_epi8(static_cast<char>(left)));
    const __m512i y = _mm512_sub_epi8(_mm512_loadu_si512(band.y + at), _mm512_set1_epi8(static_cast<char>(top)));
    const __m512i extent = _mm512_set1_epi8(static_cast<char>(size));
    return _mm512_mask_cmplt_epu8_mask(_mm512_cmplt_epu8_mask(x, extent), y, extent);
#else
    return range_mask(band.x + at, static_cast<u8>(left), static_cast<u8>(size)) &
           range_mask(band.y + at, static_cast<u8>(top), static_cast<u8>(size));
#endif
}

// A byte identifies a bucket, or "below all" and "above all". kMaxBuckets need four vectors of thresholds, kFewBuckets
// two.
constexpr i64 kMaxBuckets = 253;
constexpr i64 kFewBuckets = 126;

Band build_band(const OrderStatisticTile &tile, const ValueRange &range, const HistogramBuffers &buffers,
                const SortedPixels &sorted_pixels, i64 first_row, i64 pixel_rows) {
    i64 count = 0;
    u8 *const band_y = buffers.band_y, *const band_x = buffers.band_x;
    float *const values = buffers.band_values;
    for (i64 i = 0; i < sorted_pixels.count; i += 16) {
#if T3_AVX512
        const __mmask16 here =
            static_cast<__mmask16>(sorted_pixels.count - i >= 16 ? 0xFFFF : (1 << (sorted_pixels.count - i)) - 1);
        const __m512i y =
            _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(buffers.y + i))),
                             _mm512_set1_epi32(static_cast<int>(first_row)));
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(buffers.x + i)));
        const __mmask16 in = _mm512_mask_cmplt_epu32_mask(here, y, _mm512_set1_epi32(static_cast<int>(pixel_rows)));
        const __m512i packed = _mm512_maskz_compress_epi32(in, _mm512_or_si512(_mm512_slli_epi32(y, 8), x));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_x + count), _mm512_cvtepi32_epi8(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_y + count),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(packed, 8)));
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(in, _mm512_loadu_ps(buffers.values + i)));
        count += count_bits(in);
#else
        const i64 end = minimum(16, sorted_pixels.count - i);
        for (i64 j = 0; j < end; ++j) {
            const u8 y = static_cast<u8>(buffers.y[i + j] - first_row);
            band_y[count] = y;
            band_x[count] = buffers.x[i + j];
            values[count] = buffers.values[i + j];
            count += y < pixel_rows;
        }
#endif
    }
    i64 masks_per_bucket = 1;
    while (count > 64 * masks_per_bucket * kMaxBuckets) masks_per_bucket *= 2;
    const i64 bucket = 64 * masks_per_bucket, bucket_count = (count + bucket - 1) / bucket;
    std::memset(band_x + count, 255, static_cast<std::size_t>(bucket + 64));
    std::memset(band_y + count, 255, static_cast<std::size_t>(bucket + 64));
    const int vectors = static_cast<int>((bucket_count + 2 + 63) / 64);
    i8 *const buckets = buffers.buckets;
    const i64 stride = sorted_pixels.stride, wide = sorted_pixels.wide;
    const i8 above = static_cast<i8>(64 * vectors - 1 + kLowestBucket);
    for (i64 y = 0; y < pixel_rows; ++y) {
        const float *const row = tile.image + (first_row + y) * tile.stride;
        i8 *const target = buckets + y * stride;
        for (i64 x = 0; x < wide; ++x) target[x] = row[x] > range.high ? above : kLowestBucket;
    }
    for (i64 g = 0; g < bucket_count; ++g) {
        const i8 name = static_cast<i8>(g + 1 + kLowestBucket);
        const i64 end = minimum(count, (g + 1) * bucket);
        for (i64 i = g * bucket; i < end; ++i) buckets[band_y[i] * stride + band_x[i]] = name;
    }
    return {band_y, band_x,       values,           buckets, buffers.counts,    stride,
            count,  bucket_count, masks_per_bucket, vectors, 64 * (vectors | 1)};
}

// Counts, for every column of pixels in rows 0 .. size - 1, the pixels not above each threshold.
void count_columns(const Band &band, i64 size, i64 wide) {
    const i64 thresholds = 64 * band.vectors, pitch = band.pitch;
    u8 *const counts = band.counts;
    std::memset(counts, 0, static_cast<std::size_t>(wide * pitch));
    for (i64 y = 0; y < size; ++y) {
        const i8 *const row = band.buckets + y * band.stride;
        for (i64 x = 0; x < wide; ++x) ++counts[x * pitch + (row[x] - kLowestBucket)];
    }
    for (i64 x = 0; x < wide; ++x) {
        u8 *const column = counts + x * pitch;
#if T3_AVX512
        __m512i carry = _mm512_setzero_si512();
        const __m512i ends = _mm512_set1_epi8(15);
        for (i64 j = 0; j < thresholds; j += 64) {
            __m512i sum = _mm512_loadu_si512(column + j);
            sum = _mm512_add_epi8(sum, _mm512_bslli_epi128(sum, 1));
            sum = _mm512_add_epi8(sum, _mm512_bslli_epi128(sum, 2));
            sum = _mm512_add_epi8(sum, _mm512_bslli_epi128(sum, 4));
            sum = _mm512_add_epi8(sum, _mm512_bslli_epi128(sum, 8));
            // Adds up the totals of the 16-byte lanes.
            __m512i lanes = _mm512_shuffle_epi8(sum, ends);
            lanes = _mm512_add_epi8(lanes, _mm512_maskz_shuffle_i64x2(0xFC, lanes, lanes, 0x90));
            lanes = _mm512_add_epi8(lanes, _mm512_maskz_shuffle_i64x2(0xF0, lanes, lanes, 0x40));
            sum = _mm512_add_epi8(sum, _mm512_maskz_shuffle_i64x2(0xFC, lanes, lanes, 0x90));
            _mm512_storeu_si512(column + j, _mm512_add_epi8(sum, carry));
            carry = _mm512_add_epi8(carry, _mm512_shuffle_i64x2(lanes, lanes, 0xFF));
        }
#else
        u8 sum = 0;
        for (i64 j = 0; j < thresholds; ++j) column[j] = sum = static_cast<u8>(sum + column[j]);
#endif
    }
}

// Moves the window of every column of pixels down by one row.
template <int kVectors>
T3_ALWAYS_INLINE void move_columns(u8 *counts, const i8 *enter, const i8 *leave, i64 wide) {
#if T3_AVX512
    __m512i thresholds[kVectors];
    alignas(64) i8 bucket_of_window[64];
    for (int i = 0; i < 64; ++i) bucket_of_window[i] = static_cast<i8>(i + kLowestBucket);
    for (int v = 0; v < kVectors; ++v) {
        thresholds[v] =
            _mm512_add_epi8(_mm512_load_si512(bucket_of_window), _mm512_set1_epi8(static_cast<char>(64 * v)));
    }
    const __m512i one = _mm512_set1_epi8(1);
    for (i64 x = 0; x < wide; ++x) {
        const __m512i in = _mm512_set1_epi8(enter[x]), out = _mm512_set1_epi8(leave[x]);
        u8 *const column = counts + x * 64 * (kVectors | 1);
        for (int v = 0; v < kVectors; ++v) {
            __m512i sum = _mm512_load_si512(column + 64 * v);
            sum = _mm512_mask_add_epi8(sum, _mm512_cmple_epi8_mask(in, thresholds[v]), sum, one);
            sum = _mm512_mask_sub_epi8(sum, _mm512_cmple_epi8_mask(out, thresholds[v]), sum, one);
            _mm512_store_si512(column + 64 * v, sum);
        }
    }
#else
    // As long as the registers of the instruction set: gcc would process longer vectors byte by byte.
    constexpr int kBytes = T3_AVX2 ? 32 : 16;
    typedef u8 Bytes __attribute__((vector_size(kBytes)));
    typedef i8 SignedBytes __attribute__((vector_size(kBytes)));
    SignedBytes first;
    for (int i = 0; i < kBytes; ++i) first[i] = static_cast<i8>(i + kLowestBucket);
    for (i64 x = 0; x < wide; ++x) {
        const SignedBytes in = SignedBytes{} + enter[x], out = SignedBytes{} + leave[x];
        u8 *const column = counts + x * 64 * (kVectors | 1);
        SignedBytes threshold = first;
        for (int at = 0; at < 64 * kVectors; at += kBytes) {
            Bytes sum;
            std::memcpy(&sum, column + at, sizeof(sum));
            // A true comparison is -1.
            sum += reinterpret_cast<Bytes>(in > threshold) - reinterpret_cast<Bytes>(out > threshold);
            std::memcpy(column + at, &sum, sizeof(sum));
            threshold = reinterpret_cast<SignedBytes>(reinterpret_cast<Bytes>(threshold) + static_cast<u8>(kBytes));
        }
    }
#endif
}

void move_columns(const Band &band, i64 enter, i64 leave, i64 wide) {
    const i8 *const in = band.buckets + enter * band.stride, *const out = band.buckets + leave * band.stride;
    switch (band.vectors) {
        case 1: return move_columns<1>(band.counts, in, out, wide);
        case 2: return move_columns<2>(band.counts, in, out, wide);
        case 3: return move_columns<3>(band.counts, in, out, wide);
        default: return move_columns<4>(band.counts, in, out, wide);
    }
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
