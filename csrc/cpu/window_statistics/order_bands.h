// Order statistics of windows of up to kBandSize pixels; a kernel of cpu/each_level.h.
//
// The pixels under a tile that can be an answer, those inside a range of values, are sorted once. Then the tile is
// walked in bands of some rows of windows. A band's list holds the sorted pixels of its own rows, in granules of 64.
// Every column of pixels, as high as a window, carries how many of its pixels are not above each granule; a row that
// enters and one that leaves change that. A window's counts are the sums of its columns', and slide along the row. They
// tell the granule that the answer is in and its rank there: one look at 64 entries, which of them lie in the window,
// gives the answer itself.
namespace t3ssfast::cpu {
namespace T3_LEVEL {
namespace {

// ----------------------------------------------------------------------------------------- the sorting

// An entry of the list before it is sorted: a key above the place, y and x.
T3_ALWAYS_INLINE u64 entry_of(u64 key, u64 y, u64 x) { return key << 16 | y << 8 | x; }
T3_ALWAYS_INLINE u32 entry_key(u64 entry) { return static_cast<u32>(entry >> 16); }

// Values on a linear scale: two digits of so many bits.
constexpr int kDigit = 11;
constexpr float kMostLinear = (1 << 2 * kDigit) - 1;

// By keys on the linear scale. False if they huddle together so much that sorting by the floats' bits is quicker.
bool sort_linear(u64 *list, u64 *spare, i64 count) {
    u32 bins[2][1 << kDigit] = {};
    for (i64 i = 0; i < count; ++i) {
        ++bins[0][list[i] >> 16 & ((1 << kDigit) - 1)];
        ++bins[1][list[i] >> (16 + kDigit)];
    }
    double crowd = 0.0;
    for (int b = 0; b < 1 << kDigit; ++b) crowd += static_cast<double>(bins[1][b]) * bins[1][b];
    const double n = static_cast<double>(count);
    if (crowd > n * n / 128.0 + 4.0 * n) return false;
    scatter<16, kDigit>(list, spare, count, 0, bins[0]);
    scatter<16, kDigit>(spare, list, count, kDigit, bins[1]);
    return true;
}

// Where a tile's answers lie: all of them in [low, high], it is hoped; ranks count the tile's pixels.
struct ValueRange {
    float low, high;
    bool everything;
};

constexpr float kFloatMax = 3.402823466e38f;
// Samples along an edge of a window, and windows along an edge of the tile, that the range is guessed from.
constexpr i64 kSampleEdge = 10, kSampleWindows = 5;

// Guesses from windows made of a few pixels of a grid, sorted once for all of them.
ValueRange guess_range(const OrderTask &task, const BandMemory &memory) {
    const i64 step = task.size / kSampleEdge;
    if (step < 2) return {-kFloatMax, kFloatMax, true};
    const i64 edge = task.size / step;
    const i64 high = (task.rows + task.size - 2) / step + 1, wide = (task.columns + task.size - 2) / step + 1;
    i64 count = 0;
    for (i64 y = 0; y < high; ++y) {
        for (i64 x = 0; x < wide; ++x) {
            const u32 key = float_to_key(task.image[y * step * task.stride + x * step]);
            memory.list[count++] = entry_of(key, static_cast<u64>(y), static_cast<u64>(x));
        }
    }
    const u64 *const sorted = radix_sort<16>(memory.list, memory.spare, count);
    for (i64 i = 0; i < count; ++i) {
        memory.y[i] = static_cast<u8>(sorted[i] >> 8);
        memory.x[i] = static_cast<u8>(sorted[i]);
    }
    for (i64 i = 0; i < 64; ++i) memory.y[count + i] = 255;
    i64 first = count, last = 0;
    for (i64 i = 0; i < kSampleWindows * kSampleWindows; ++i) {
        const u8 top = static_cast<u8>((task.rows - 1) * (i / kSampleWindows) / (kSampleWindows - 1) / step);
        const u8 left = static_cast<u8>((task.columns - 1) * (i % kSampleWindows) / (kSampleWindows - 1) / step);
        for (int k = 0; k < task.plane_count; ++k) {
            i64 wanted = static_cast<i64>(task.planes[k].fraction * static_cast<double>(edge * edge - 1));
            i64 at = 0;
            u64 mask;
            for (;; at += 64) {
                mask = within(memory.y + at, top, static_cast<u8>(edge)) &
                       within(memory.x + at, left, static_cast<u8>(edge));
                if (set_bits(mask) > wanted) break;
                wanted -= set_bits(mask);
            }
            at += __builtin_ctzll(pick_bit(mask, wanted));
            first = at_most(first, at);
            last = at_least(last, at);
        }
    }
    const i64 margin = (last - first) / 16 + count / 256 + 1;
    if (first < margin && last + margin >= count) return {-kFloatMax, kFloatMax, true};
    return {first < margin ? -kFloatMax : key_to_float(entry_key(sorted[first - margin])),
            last + margin >= count ? kFloatMax : key_to_float(entry_key(sorted[last + margin])), false};
}

// -------------------------------------------------------------------------------------------- the list

constexpr i8 kBelow = -128;

// The pixels of a tile in ascending order.
struct TileList {
    i64 count;  // of those sorted
    i64 high, wide, stride;  // pixels of the tile, and the distance of two rows of bytes
};

T3_ALWAYS_INLINE i64 byte_stride(i64 wide) { return wide + 64; }

// Rows of pixels that are on their way from memory: rows of an image lie too far apart for the processor to see it.
constexpr i64 kFetchRows = 8;

T3_ALWAYS_INLINE void fetch(const float *row, i64 wide) {
    for (i64 x = 0; x < wide; x += 16) __builtin_prefetch(row + x);
}

// Puts the pixels inside the range in a list, in rows.
i64 collect(const OrderTask &task, const ValueRange &range, float low, float scale, i64 high, i64 wide,
            const BandMemory &memory) {
    i64 count = 0;
    for (i64 y = 0; y < high; ++y) {
        const float *const row = task.image + y * task.stride;
        fetch(row + at_most(kFetchRows, high - 1 - y) * task.stride, wide);
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
                _mm512_set1_ps(kMostLinear));
            const __m512i key = _mm512_cvttps_epi32(linear);
            const __m512i upper = _mm512_srli_epi32(key, 16);
            const __m512i column = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(x)));
            const __m512i lower = _mm512_or_si512(_mm512_or_si512(_mm512_slli_epi32(key, 16), column),
                                                  _mm512_set1_epi32(static_cast<int>(y << 8)));
            // The halves of 64-bit entries are brought together in the order of the columns.
            const __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            const __m512i first = _mm512_permutex2var_epi32(lower, pick, upper);
            const __m512i second =
                _mm512_permutex2var_epi32(lower, _mm512_add_epi32(pick, _mm512_set1_epi32(8)), upper);
            const __mmask8 first_in = static_cast<__mmask8>(in), second_in = static_cast<__mmask8>(in >> 8);
            _mm512_storeu_si512(memory.list + count, _mm512_maskz_compress_epi64(first_in, first));
            count += set_bits(first_in);
            _mm512_storeu_si512(memory.list + count, _mm512_maskz_compress_epi64(second_in, second));
            count += set_bits(second_in);
        }
#else
        std::int32_t keys[256];
        u8 in[256];
        for (; x < wide; ++x) {
            float linear = (row[x] - low) * scale;
            linear = linear > 0.0f ? linear : 0.0f;
            linear = linear < kMostLinear ? linear : kMostLinear;
            keys[x] = static_cast<std::int32_t>(linear);
            in[x] = (row[x] >= range.low) & (row[x] <= range.high);
        }
        // Without a branch: which pixels are inside cannot be foretold.
        for (x = 0; x < wide; ++x) {
            memory.list[count] = entry_of(static_cast<u32>(keys[x]), static_cast<u64>(y), static_cast<u64>(x));
            count += in[x];
        }
#endif
    }
    return count;
}

// Takes the places and values out of the sorted entries.
void read_list(const OrderTask &task, const u64 *sorted, i64 count, const BandMemory &memory) {
    u8 *const ys = memory.y, *const xs = memory.x;
    float *const values = memory.values;
    const float *const image = task.image;
    const i64 stride = task.stride;
    for (i64 i = 0; i < count; ++i) {
        const u64 place = sorted[i] & 0xFFFF;
        // Adding +0 turns -0.0 into 0.0: which of the two equal zeros is met must not show.
        values[i] = image[(place >> 8) * stride + (place & 255)] + 0.0f;
    }
    for (i64 i = 0; i < count; ++i) {
        ys[i] = static_cast<u8>(sorted[i] >> 8);
        xs[i] = static_cast<u8>(sorted[i]);
    }
}

// Puts values in order that the linear scale could not tell apart, by insertion. False if they are too many.
bool repair_order(i64 count, const BandMemory &memory) {
    u8 *const ys = memory.y, *const xs = memory.x;
    float *const values = memory.values;
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

TileList sort_pixels(const OrderTask &task, const ValueRange &range, const BandMemory &memory) {
    const i64 high = task.rows + task.size - 1, wide = task.columns + task.size - 1;
    float low = range.low, top = range.high;
    if (low == -kFloatMax || top == kFloatMax) {
        // In lanes: a compiler must not reorder comparisons of floats.
        float least[16], most[16];
        for (int i = 0; i < 16; ++i) least[i] = most[i] = task.image[0];
        for (i64 y = 0; y < high; ++y) {
            const float *const row = task.image + y * task.stride;
            i64 x = 0;
            for (; x + 16 <= wide; x += 16) {
                for (int i = 0; i < 16; ++i) {
                    least[i] = row[x + i] < least[i] ? row[x + i] : least[i];
                    most[i] = row[x + i] > most[i] ? row[x + i] : most[i];
                }
            }
            for (; x < wide; ++x) {
                least[0] = row[x] < least[0] ? row[x] : least[0];
                most[0] = row[x] > most[0] ? row[x] : most[0];
            }
        }
        for (int i = 1; i < 16; ++i) {
            least[0] = least[i] < least[0] ? least[i] : least[0];
            most[0] = most[i] > most[0] ? most[i] : most[0];
        }
        low = low == -kFloatMax ? least[0] : low;
        top = top == kFloatMax ? most[0] : top;
    }
    const float extent = top - low, scale = kMostLinear / extent;
    const bool linear = extent > 1e-30f && extent < 1e30f;
    const i64 count = collect(task, range, low, linear ? scale : 0.0f, high, wide, memory);
    if (count == 0) return {0, high, wide, byte_stride(wide)};
    if (linear && sort_linear(memory.list, memory.spare, count)) {
        read_list(task, memory.list, count, memory);
        if (repair_order(count, memory)) return {count, high, wide, byte_stride(wide)};
    }
    for (i64 i = 0; i < count; ++i) {
        const u64 place = memory.list[i] & 0xFFFF;
        const u32 key = float_to_key(task.image[(place >> 8) * task.stride + (place & 255)]);
        memory.list[i] = static_cast<u64>(key) << 16 | place;
    }
    read_list(task, radix_sort<16>(memory.list, memory.spare, count), count, memory);
    return {count, high, wide, byte_stride(wide)};
}

// -------------------------------------------------------------------------------------------- the bands

// Thresholds of granules that a window's counts are kept for at a time.
constexpr int kThresholds = 32;

// Rows first_row .. first_row + pixel_rows - 1 of the tile's pixels: the list of those sorted, in order.
struct Band {
    const u8 *y, *x;  // y counts from the band's first row
    const float *values;
    const i8 *granules;
    u8 *counts;
    i64 stride, count;  // distance of two rows of granules; entries of the list
    i64 granule_count, looks;  // a granule is 64 * looks entries
    int vectors;  // 64 thresholds each
    i64 pitch;    // distance of two columns of counts
};

// Which of 64 entries lie in the window at (top, left) of the band.
T3_ALWAYS_INLINE u64 members(const Band &band, i64 at, i64 top, i64 left, i64 size) {
#if T3_AVX512
    const __m512i x = _mm512_sub_epi8(_mm512_loadu_si512(band.x + at), _mm512_set1_epi8(static_cast<char>(left)));
    const __m512i y = _mm512_sub_epi8(_mm512_loadu_si512(band.y + at), _mm512_set1_epi8(static_cast<char>(top)));
    const __m512i extent = _mm512_set1_epi8(static_cast<char>(size));
    return _mm512_mask_cmplt_epu8_mask(_mm512_cmplt_epu8_mask(x, extent), y, extent);
#else
    return within(band.x + at, static_cast<u8>(left), static_cast<u8>(size)) &
           within(band.y + at, static_cast<u8>(top), static_cast<u8>(size));
#endif
}

// A byte names a granule, none below it and none above it; so many take four vectors of thresholds, few take two.
constexpr i64 kMostGranules = 253;
constexpr i64 kFewGranules = 126;

Band open_band(const OrderTask &task, const ValueRange &range, const BandMemory &memory, const TileList &tile,
               i64 first_row, i64 pixel_rows) {
    i64 count = 0;
    u8 *const band_y = memory.band_y, *const band_x = memory.band_x;
    float *const values = memory.band_values;
    for (i64 i = 0; i < tile.count; i += 16) {
#if T3_AVX512
        const __mmask16 here = static_cast<__mmask16>(tile.count - i >= 16 ? 0xFFFF : (1 << (tile.count - i)) - 1);
        const __m512i y = _mm512_sub_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(memory.y + i))),
            _mm512_set1_epi32(static_cast<int>(first_row)));
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(memory.x + i)));
        const __mmask16 in = _mm512_mask_cmplt_epu32_mask(here, y, _mm512_set1_epi32(static_cast<int>(pixel_rows)));
        const __m512i packed = _mm512_maskz_compress_epi32(in, _mm512_or_si512(_mm512_slli_epi32(y, 8), x));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_x + count), _mm512_cvtepi32_epi8(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_y + count),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(packed, 8)));
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(in, _mm512_loadu_ps(memory.values + i)));
        count += set_bits(in);
#else
        const i64 end = at_most(16, tile.count - i);
        for (i64 j = 0; j < end; ++j) {
            const u8 y = static_cast<u8>(memory.y[i + j] - first_row);
            band_y[count] = y;
            band_x[count] = memory.x[i + j];
            values[count] = memory.values[i + j];
            count += y < pixel_rows;
        }
#endif
    }
    i64 looks = 1;
    while (count > 64 * looks * kMostGranules) looks *= 2;
    const i64 granule = 64 * looks, granule_count = (count + granule - 1) / granule;
    std::memset(band_x + count, 255, static_cast<std::size_t>(granule + 64));
    std::memset(band_y + count, 255, static_cast<std::size_t>(granule + 64));
    const int vectors = static_cast<int>((granule_count + 2 + 63) / 64);
    i8 *const granules = memory.granules;
    const i64 stride = tile.stride, wide = tile.wide;
    const i8 above = static_cast<i8>(64 * vectors - 1 + kBelow);
    for (i64 y = 0; y < pixel_rows; ++y) {
        const float *const row = task.image + (first_row + y) * task.stride;
        i8 *const target = granules + y * stride;
        for (i64 x = 0; x < wide; ++x) target[x] = row[x] > range.high ? above : kBelow;
    }
    for (i64 g = 0; g < granule_count; ++g) {
        const i8 name = static_cast<i8>(g + 1 + kBelow);
        const i64 end = at_most(count, (g + 1) * granule);
        for (i64 i = g * granule; i < end; ++i) granules[band_y[i] * stride + band_x[i]] = name;
    }
    return {band_y, band_x, values, granules, memory.counts, stride, count, granule_count, looks, vectors,
            64 * (vectors | 1)};
}

// How many of a column's pixels, rows 0 .. size - 1, are not above each threshold.
void count_columns(const Band &band, i64 size, i64 wide) {
    const i64 thresholds = 64 * band.vectors, pitch = band.pitch;
    u8 *const counts = band.counts;
    std::memset(counts, 0, static_cast<std::size_t>(wide * pitch));
    for (i64 y = 0; y < size; ++y) {
        const i8 *const row = band.granules + y * band.stride;
        for (i64 x = 0; x < wide; ++x) ++counts[x * pitch + (row[x] - kBelow)];
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
            // Ends of the 16-byte lanes, added up.
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

// Moves every column of pixels down by a row.
template <int kVectors>
T3_ALWAYS_INLINE void move_columns(u8 *counts, const i8 *enter, const i8 *leave, i64 wide) {
#if T3_AVX512
    __m512i thresholds[kVectors];
    alignas(64) i8 places[64];
    for (int i = 0; i < 64; ++i) places[i] = static_cast<i8>(i + kBelow);
    for (int v = 0; v < kVectors; ++v) {
        thresholds[v] = _mm512_add_epi8(_mm512_load_si512(places), _mm512_set1_epi8(static_cast<char>(64 * v)));
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
    // As long as the level's registers: longer ones would be taken apart byte by byte.
    constexpr int kBytes = T3_AVX2 ? 32 : 16;
    typedef u8 Bytes __attribute__((vector_size(kBytes)));
    typedef i8 SignedBytes __attribute__((vector_size(kBytes)));
    SignedBytes first;
    for (int i = 0; i < kBytes; ++i) first[i] = static_cast<i8>(i + kBelow);
    for (i64 x = 0; x < wide; ++x) {
        const SignedBytes in = SignedBytes{} + enter[x], out = SignedBytes{} + leave[x];
        u8 *const column = counts + x * 64 * (kVectors | 1);
        SignedBytes threshold = first;
        for (int at = 0; at < 64 * kVectors; at += kBytes) {
            Bytes sum;
            std::memcpy(&sum, column + at, sizeof(sum));
            // A comparison that holds is -1.
            sum += reinterpret_cast<Bytes>(in > threshold) - reinterpret_cast<Bytes>(out > threshold);
            std::memcpy(column + at, &sum, sizeof(sum));
            threshold = reinterpret_cast<SignedBytes>(reinterpret_cast<Bytes>(threshold) + static_cast<u8>(kBytes));
        }
    }
#endif
}

void move_columns(const Band &band, i64 enter, i64 leave, i64 wide) {
    const i8 *const in = band.granules + enter * band.stride, *const out = band.granules + leave * band.stride;
    switch (band.vectors) {
        case 1: return move_columns<1>(band.counts, in, out, wide);
        case 2: return move_columns<2>(band.counts, in, out, wide);
        case 3: return move_columns<3>(band.counts, in, out, wide);
        default: return move_columns<4>(band.counts, in, out, wide);
    }
}

// A window's pixels not above each of kThresholds thresholds.
struct Sums {
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
    // How many of them are at most `wanted`, and for those how far.
    T3_ALWAYS_INLINE int not_above(i16 wanted, i16 *to) const {
        const __m512i ahead = _mm512_sub_epi16(_mm512_set1_epi16(wanted), sums);
        _mm512_store_si512(to, ahead);
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
    T3_ALWAYS_INLINE int not_above(i16 wanted, i16 *to) const {
        const __m256i most = _mm256_set1_epi16(wanted);
        const __m256i low_ahead = _mm256_sub_epi16(most, low), high_ahead = _mm256_sub_epi16(most, high);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), low_ahead);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 16), high_ahead);
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
    T3_ALWAYS_INLINE int not_above(i16 wanted, i16 *to) const {
        i16 count = 0;
        for (int i = 0; i < kThresholds; ++i) {
            to[i] = static_cast<i16>(wanted - sums[i]);
            count = static_cast<i16>(count + (to[i] >= 0));
        }
        return count;
    }
#endif
};

// How far a window's thresholds are moved when the answer has left them.
constexpr int kHop = 24;

// Moves the thresholds until the answer lies between two of them. False if it lies between none.
bool find_thresholds(const Band &band, i64 left, i64 size, i16 wanted, i16 *ranks, int *base, Sums *sums,
                     int *found) {
    const int last = 64 * band.vectors - kThresholds;
    do {
        if (*base == (*found == 0 ? 0 : last)) return false;
        *base = static_cast<int>(*found == 0 ? at_least(*base - kHop, 0) : at_most(*base + kHop, last));
        sums->clear();
        for (i64 x = left; x < left + size; ++x) sums->add(band.counts + x * band.pitch + *base);
        *found = sums->not_above(wanted, ranks);
    } while (*found == 0 || *found == kThresholds);
    return true;
}

// The answers of one quantile in one row of windows, by granule and rank among the window's members of it.
bool slide_row(const Band &band, const QuantilePlace &place, i64 size, i64 width, int *start,
               const BandMemory &memory) {
    const i64 pitch = band.pitch;
    const u8 *const counts = band.counts;
    u16 *const slots = memory.slots;
    u8 *const places = memory.places;
    i16 *ranks = memory.sums;
    const i16 wanted = static_cast<i16>(place.lower);
    int base = *start;
    Sums sums;
    sums.clear();
    // Above the last granule of the list lies what the range has left out.
    bool above = false;
    for (i64 x = 0; x < size; ++x) sums.add(counts + x * pitch + base);
    for (i64 left = 0;;) {
        int found = sums.not_above(wanted, ranks);
        if (__builtin_expect(found == 0 || found == kThresholds, 0)) {
            // In variables of its own: sums and base stay in registers.
            Sums moved;
            int moved_base = base, moved_found = found;
            if (!find_thresholds(band, left, size, wanted, ranks, &moved_base, &moved, &moved_found)) return false;
            sums = moved;
            base = moved_base;
            found = moved_found;
        }
        slots[left] = static_cast<u16>(left * kThresholds + found - 1);
        places[left] = static_cast<u8>(base + found - 1);
        above |= base + found > band.granule_count;
        if (left == 0) *start = base;
        if (++left == width) return !above;
        ranks += kThresholds;
        const u8 *const column = counts + left * pitch + base;
        sums.slide(column + (size - 1) * pitch, column - pitch);
    }
}

// The quantiles between pairs of members.
T3_ALWAYS_INLINE void write_quantiles(const QuantilePlace &place, const float *low, const float *high, i64 width,
                                      float *out) {
    const double weight = place.weight;
    if (!place.needs_upper) {
        std::memcpy(out, low, static_cast<std::size_t>(width) * sizeof(float));
    } else if (place.median) {
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

// Values of the answers of one row of windows. False if one is not in the list.
template <bool kUpper, bool kSingle>
bool read_row(const Band &band, const BandMemory &memory, const QuantilePlace &place, i64 size, i64 top, i64 width,
              float *out) {
    float low[kBandTile], high[kBandTile];
    i32 late[kBandTile];  // which windows' next member is out of sight, and where they were looked at
    i32 late_at[kBandTile];
    i64 late_count = 0;
    bool lost = false;
    const i16 *const ranks = memory.sums;
    const u16 *const slots = memory.slots;
    const u8 *const places = memory.places;
    const float *const values = band.values;
    const i64 looks = kSingle ? 1 : band.looks;
    for (i64 left = 0; left < width; ++left) {
        i64 rank = ranks[slots[left]];
        i64 at = places[left] * 64 * looks;
        u64 mask = members(band, at, top, left, size);
        if (!kSingle) {
            for (i64 look = 1; look < looks; ++look) {
                const int inside = set_bits(mask);
                if (inside > rank) break;
                rank -= inside;
                at += 64;
                mask = members(band, at, top, left, size);
            }
        }
        const u64 bit = pick_bit(mask, rank);
        if (!kUpper) lost |= bit == 0;
        low[left] = values[at + first_place(bit)];
        if (kUpper) {
            const u64 rest = mask & ~(bit | (bit - 1));
            high[left] = values[at + first_place(rest)];
            late[late_count] = static_cast<i32>(left);
            late_at[late_count] = static_cast<i32>(at);
            late_count += rest == 0;
        }
    }
    if (lost) return false;
    for (i64 i = 0; i < late_count; ++i) {
        const i64 left = late[i];
        i64 at = late_at[i];
        u64 mask;
        do {
            at += 64;
            if (at >= band.count) return false;
            mask = members(band, at, top, left, size);
        } while (mask == 0);
        high[left] = values[at + __builtin_ctzll(mask)];
    }
    write_quantiles(place, low, high, width, out);
    return true;
}

T3_ALWAYS_INLINE bool read_row(const Band &band, const BandMemory &memory, const QuantilePlace &place, i64 size,
                               i64 top, i64 width, float *out) {
    if (band.looks > 1) {
        return place.needs_upper ? read_row<true, false>(band, memory, place, size, top, width, out)
                                 : read_row<false, false>(band, memory, place, size, top, width, out);
    }
    return place.needs_upper ? read_row<true, true>(band, memory, place, size, top, width, out)
                             : read_row<false, true>(band, memory, place, size, top, width, out);
}

// The fewer pixels were sorted, the more rows share a list: opening one costs more than some granules more.
i64 rows_of_bands(const TileList &tile, i64 size) {
    i64 rows = kBandTile;
    const i64 few = 64 * kFewGranules * tile.high;
    while (rows > kBandRows && tile.count * at_most(tile.high, rows + size - 1) > few) rows /= 2;
    return rows;
}

bool slide_tile(const OrderTask &task, const ValueRange &range, const BandMemory &memory) {
    const TileList tile = sort_pixels(task, range, memory);
    if (tile.count == 0) return false;
    const i64 size = task.size, width = task.columns;
    const i64 band_rows = rows_of_bands(tile, size);
    for (i64 begin = 0; begin < task.rows; begin += band_rows) {
        const i64 rows = at_most(band_rows, task.rows - begin);
        const Band band = open_band(task, range, memory, tile, begin, rows + size - 1);
        if (band.count == 0) return false;
        count_columns(band, size, tile.wide);
        for (int k = 0; k < task.plane_count; ++k) memory.starts[k] = 0;
        for (i64 row = 0; row < rows; ++row) {
            if (row > 0) move_columns(band, row + size - 1, row - 1, tile.wide);
            for (int k = 0; k < task.plane_count; ++k) {
                const OrderPlane &plane = task.planes[k];
                const QuantilePlace place = quantile_place(size * size, plane.fraction, plane.median);
                if (!slide_row(band, place, size, width, memory.starts + k, memory)) return false;
                float *const out = task.out.data + plane.slot * task.out.plane + (begin + row) * task.out.stride;
                if (!read_row(band, memory, place, size, row, width, out)) return false;
            }
        }
    }
    return true;
}

void order_of_tile(const OrderTask &task, const BandMemory &memory) {
    const ValueRange range = guess_range(task, memory);
    if (range.everything || !slide_tile(task, range, memory)) slide_tile(task, {-kFloatMax, kFloatMax, true}, memory);
}

}  // namespace
}  // namespace T3_LEVEL
}  // namespace t3ssfast::cpu
