// Order statistics of windows of up to kNarrowSize pixels; a kernel of cpu/each_level.h.
//
// The pixels under a tile that can be an answer, those inside a range of values, are sorted once. Then the tile is
// walked in bands of some rows of windows. A band's list holds the sorted pixels of its own rows: their coordinates,
// a byte each. Every pixel knows the granule of the list that it falls into, also a byte. A column of windows
// carries a boundary between two granules and the number of the window's pixels below it, which follows from the rows
// that enter and leave, compared with the boundaries of 64 columns at once. The answer lies so many members of the
// window away from the boundary; 64 entries of the list are tested for membership at once.
namespace t3ssfast::cpu {
namespace T3_LEVEL {
namespace {

typedef i8 ByteVector __attribute__((vector_size(32)));

// sums[i] = #(row[i + j] < pivot[i], 0 <= j < size), modulo 256, for 64 columns.
T3_ALWAYS_INLINE void count_lower(const i8 *row, const i8 *pivot, i64 size, i8 *sums) {
#if T3_AVX512
    const __m512i p = _mm512_loadu_si512(pivot), one = _mm512_set1_epi8(1);
    __m512i even = _mm512_setzero_si512(), odd = even;
    i64 j = 0;
    for (; j + 1 < size; j += 2) {
        even = _mm512_mask_add_epi8(even, _mm512_cmplt_epi8_mask(_mm512_loadu_si512(row + j), p), even, one);
        odd = _mm512_mask_add_epi8(odd, _mm512_cmplt_epi8_mask(_mm512_loadu_si512(row + j + 1), p), odd, one);
    }
    if (j < size) even = _mm512_mask_add_epi8(even, _mm512_cmplt_epi8_mask(_mm512_loadu_si512(row + j), p), even, one);
    _mm512_storeu_si512(sums, _mm512_add_epi8(even, odd));
#else
    for (int half = 0; half < 64; half += 32) {
        ByteVector p, sum = {};
        std::memcpy(&p, pivot + half, sizeof(p));
        for (i64 j = 0; j < size; ++j) {
            ByteVector r;
            std::memcpy(&r, row + half + j, sizeof(r));
            sum -= r < p;
        }
        std::memcpy(sums + half, &sum, sizeof(sum));
    }
#endif
}

// ----------------------------------------------------------------------------------------- the sorting

// An entry of the list before it is sorted: u16 value on a linear scale, u32 key, x, y. Ties are broken by column
// first: a window that slides down a flat image then takes in as much below its answer as above it.
T3_ALWAYS_INLINE u64 entry_of(u32 linear, u32 key, u32 y, u32 x) {
    return static_cast<u64>(linear) << 48 | static_cast<u64>(key) << 16 | x << 8 | y;
}
T3_ALWAYS_INLINE u32 entry_key(u64 entry) { return static_cast<u32>(entry >> 16); }

// By the key, ties by column, whatever the values.
u64 *sort_by_key(u64 *list, u64 *spare, i64 count) {
    u32 columns[256] = {};
    for (i64 i = 0; i < count; ++i) ++columns[list[i] >> 8 & 255];
    scatter<8, 8>(list, spare, count, 0, columns);
    return radix_sort<16>(spare, list, count);
}

// By the linear value, two passes, then by insertion where that is too coarse. False, with all entries in `list`, if
// they huddle together so much that sorting by key is quicker.
bool sort_by_value(u64 *list, u64 *spare, i64 count) {
    u32 bins[2][256] = {};
    for (i64 i = 0; i < count; ++i) {
        ++bins[0][list[i] >> 48 & 255];
        ++bins[1][list[i] >> 56];
    }
    double crowd = 0.0;
    for (int b = 0; b < 256; ++b) crowd += static_cast<double>(bins[0][b]) * bins[0][b];
    const double n = static_cast<double>(count);
    if (crowd > n * n / 128.0 + 4.0 * n) return false;
    scatter<48, 8>(list, spare, count, 0, bins[0]);
    scatter<48, 8>(spare, list, count, 8, bins[1]);
    i64 moves = 8 * count;
    for (i64 i = 1; i < count; ++i) {
        const u64 entry = list[i];
        if (entry >= list[i - 1]) continue;
        i64 j = i;
        for (; j > 0 && list[j - 1] > entry; --j) list[j] = list[j - 1];
        list[j] = entry;
        moves -= i - j;
        if (moves < 0) return false;
    }
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
            memory.list[count++] = entry_of(0, key, static_cast<u32>(y), static_cast<u32>(x));
        }
    }
    const u64 *const sorted = sort_by_key(memory.list, memory.spare, count);
    for (i64 i = 0; i < count; ++i) {
        memory.y[i] = static_cast<u8>(sorted[i]);
        memory.x[i] = static_cast<u8>(sorted[i] >> 8);
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
                mask = within(memory.y + at, top, static_cast<u8>(edge)) & within(memory.x + at, left, static_cast<u8>(edge));
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

constexpr i8 kBelow = -128, kAbove = 127;

// The pixels of a tile in ascending order.
struct TileList {
    i64 count;  // of those sorted
    i64 below;  // of those below them
    i64 high, wide, stride;  // pixels of the tile, and the distance of two rows of bytes
};

T3_ALWAYS_INLINE i64 byte_stride(i64 wide) { return wide + 64; }

// Rows of pixels that are on their way from memory: rows of an image lie too far apart for the processor to see it.
constexpr i64 kFetchRows = 8;

T3_ALWAYS_INLINE void fetch(const float *row, i64 wide) {
    for (i64 x = 0; x < wide; x += 16) __builtin_prefetch(row + x);
}

// Puts the pixels inside the range in a list, in rows, and the others into classes.
i64 collect(const OrderTask &task, const ValueRange &range, float low, float scale, i64 high, i64 wide,
            const BandMemory &memory) {
    i64 count = 0;
    for (i64 y = 0; y < high; ++y) {
        const float *const row = task.image + y * task.stride;
        i8 *const classes = memory.classes + y * byte_stride(wide);
        fetch(row + at_most(kFetchRows, high - 1 - y) * task.stride, wide);
        i64 x = 0;
#if T3_AVX512
        const __m512 from = _mm512_set1_ps(range.low), to = _mm512_set1_ps(range.high);
        const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
        const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (; x < wide; x += 16) {
            const __mmask16 here = static_cast<__mmask16>(wide - x >= 16 ? 0xFFFF : (1 << (wide - x)) - 1);
            const __m512 value = _mm512_add_ps(_mm512_maskz_loadu_ps(here, row + x), _mm512_setzero_ps());
            const __mmask16 above = _mm512_cmp_ps_mask(value, to, _CMP_GT_OQ);
            const __mmask16 in =
                static_cast<__mmask16>(_mm512_mask_cmp_ps_mask(here, value, from, _CMP_GE_OQ) & ~above);
            _mm_storeu_si128(reinterpret_cast<__m128i *>(classes + x),
                             _mm_mask_blend_epi8(above, _mm_set1_epi8(kBelow), _mm_set1_epi8(kAbove)));
            if (in == 0) continue;
            const __m512i bits = _mm512_castps_si512(value);
            const __m512i key = _mm512_xor_si512(bits, _mm512_or_si512(_mm512_srai_epi32(bits, 31), sign));
            const __m512 linear = _mm512_min_ps(
                _mm512_max_ps(_mm512_mul_ps(_mm512_sub_ps(value, _mm512_set1_ps(low)), _mm512_set1_ps(scale)),
                              _mm512_setzero_ps()),
                _mm512_set1_ps(65535.0f));
            const __m512i upper = _mm512_or_si512(_mm512_slli_epi32(_mm512_cvttps_epi32(linear), 16),
                                                  _mm512_srli_epi32(key, 16));
            const __m512i column = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(x)));
            const __m512i lower =
                _mm512_or_si512(_mm512_or_si512(_mm512_slli_epi32(key, 16), _mm512_slli_epi32(column, 8)),
                                _mm512_set1_epi32(static_cast<int>(y)));
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
        for (i64 i = 0; i < wide; ++i) classes[i] = row[i] > range.high ? kAbove : kBelow;
        for (; x < wide; ++x) {
            const float value = row[x];
            float linear = (value - low) * scale;
            linear = linear > 0.0f ? linear : 0.0f;
            linear = linear < 65535.0f ? linear : 65535.0f;
            memory.list[count] = entry_of(static_cast<u32>(static_cast<int>(linear)), float_to_key(value),
                                          static_cast<u32>(y), static_cast<u32>(x));
            count += (value >= range.low) & (value <= range.high);
        }
#endif
    }
    return count;
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
    const float extent = top - low, scale = 65535.0f / extent;
    const bool linear = extent > 1e-30f && extent < 1e30f;
    const i64 count = collect(task, range, low, linear ? scale : 0.0f, high, wide, memory);
    const i64 stride = byte_stride(wide);
    i64 below = 0;
    for (i64 y = 0; y < high; ++y) {
        for (i64 x = 0; x < wide; ++x) below += memory.classes[y * stride + x] == kBelow;
    }
    if (count > 0) {
        const u64 *sorted = memory.list;
        if (!linear || !sort_by_value(memory.list, memory.spare, count)) {
            sorted = sort_by_key(memory.list, memory.spare, count);
        }
        float *const values = memory.values;
        u8 *const ys = memory.y, *const xs = memory.x;
        for (i64 i = 0; i < count; ++i) values[i] = key_to_float(entry_key(sorted[i]));
        for (i64 i = 0; i < count; ++i) {
            ys[i] = static_cast<u8>(sorted[i]);
            xs[i] = static_cast<u8>(sorted[i] >> 8);
        }
    }
    return {count, below - count, high, wide, stride};
}

// -------------------------------------------------------------------------------------------- the bands

// Rows first_row .. first_row + pixel_rows - 1 of the tile's pixels: the list of those sorted, in order.
struct Band {
    const u8 *y, *x;  // y counts from the band's first row
    const u16 *index;
    const float *values;
    const i8 *granules;
    const u8 *row_bits;
    i64 stride, count;
    int shift;  // a granule is 2^shift entries
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bits are read across words");

// Which 64 entries from `at`, a multiple of 8, lie in the rows of window row `row` of the group.
T3_ALWAYS_INLINE u64 in_rows(const Band &band, int row, i64 at) {
    u64 bits;
    std::memcpy(&bits, band.row_bits + row * kRowBits + (at + kBandPad) / 8, sizeof(bits));
    return bits;
}

T3_ALWAYS_INLINE u64 members(const Band &band, int row, i64 at, i64 left, i64 size) {
    return within(band.x + at, static_cast<u8>(left), static_cast<u8>(size)) & in_rows(band, row, at);
}

// Members of a window among the entries from .. to - 1, or less those among to .. from - 1.
T3_ALWAYS_INLINE i64 members_between(const Band &band, int row, i64 from, i64 to, i64 left, i64 size) {
    const i64 low = at_most(from, to), high = at_least(from, to);
    i64 at = low & ~i64{7};
    u64 mask = members(band, row, at, left, size) & ~u64{0} << (low & 7);
    i64 sum = set_bits(lowest_bits(mask, high - at));
    for (at += 64; at < high; at += 64) {
        mask = members(band, row, at, left, size);
        sum += set_bits(lowest_bits(mask, high - at));
    }
    return from < to ? sum : -sum;
}

Band open_band(const BandMemory &memory, const TileList &tile, i64 first_row, i64 pixel_rows) {
    std::memcpy(memory.granules, memory.classes + first_row * tile.stride,
                static_cast<std::size_t>(pixel_rows * tile.stride));
    i64 count = 0;
    u8 *const band_y = memory.band_y + kBandPad, *const band_x = memory.band_x + kBandPad;
    u16 *const index = memory.band_index;
    for (i64 i = 0; i < tile.count; i += 16) {
        memory.block_start[i / 16] = static_cast<u16>(count);
#if T3_AVX512
        const __mmask16 here = static_cast<__mmask16>(tile.count - i >= 16 ? 0xFFFF : (1 << (tile.count - i)) - 1);
        const __m512i y = _mm512_sub_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(memory.y + i))),
            _mm512_set1_epi32(static_cast<int>(first_row)));
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(memory.x + i)));
        const __mmask16 in = _mm512_mask_cmplt_epu32_mask(here, y, _mm512_set1_epi32(static_cast<int>(pixel_rows)));
        const __m512i at = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(static_cast<int>(i)));
        const __m512i packed = _mm512_maskz_compress_epi32(
            in, _mm512_or_si512(_mm512_or_si512(_mm512_slli_epi32(y, 8), x), _mm512_slli_epi32(at, 16)));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_x + count), _mm512_cvtepi32_epi8(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(band_y + count),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(packed, 8)));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(index + count),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(packed, 16)));
        count += set_bits(in);
        memory.block_bits[i / 16] = in;
#else
        u32 bits = 0;
        const i64 end = at_most(16, tile.count - i);
        for (i64 j = 0; j < end; ++j) {
            const u8 y = static_cast<u8>(memory.y[i + j] - first_row);
            const u32 in = y < pixel_rows;
            band_y[count] = y;
            band_x[count] = memory.x[i + j];
            index[count] = static_cast<u16>(i + j);
            count += in;
            bits |= in << j;
        }
        memory.block_bits[i / 16] = static_cast<u16>(bits);
#endif
    }
    std::memset(memory.band_y, 255, kBandPad);
    std::memset(band_y + count, 255, kBandPad);
    int shift = 5;
    while (count >> shift >= 250) ++shift;
    i8 *const granules = memory.granules;
    const i64 stride = tile.stride;
    for (i64 i = 0; i < count; ++i) granules[band_y[i] * stride + band_x[i]] = static_cast<i8>((i >> shift) + 1 + kBelow);
    return {band_y, band_x, index, memory.values, granules, memory.row_bits, stride, count, shift};
}

// Which entries of the band lie in window rows top .. top + rows - 1.
T3_ALWAYS_INLINE void mark_rows(const Band &band, const BandMemory &memory, i64 top, int rows, i64 size) {
    for (int r = 0; r < rows; ++r) {
        u8 *const bytes = memory.row_bits + r * kRowBits;
        const u8 *const y = memory.band_y;
        for (i64 at = 0; at < band.count + 2 * kBandPad; at += 64) {
            const u64 bits = within(y + at, static_cast<u8>(top + r), static_cast<u8>(size));
            std::memcpy(bytes + at / 8, &bits, sizeof(bits));
        }
    }
}

T3_ALWAYS_INLINE i8 pivot_of(i64 boundary) { return static_cast<i8>(boundary + 1 + kBelow); }

// The window's `wanted` member (0-based) and the next one, where they are out of sight: before entry `from`, below
// which there are `below` members, or behind it. False if they are not in the list.
T3_ALWAYS_INLINE bool seek(const Band &band, int row, i64 left, i64 size, i64 wanted, i64 from, i64 below,
                           bool needs_upper, i64 *found, i64 *upper) {
    u64 mask;
    i64 at = from;
    if (below > wanted) {
        do {
            at -= 64;
            if (at <= -64) return false;
            mask = members(band, row, at, left, size);
            below -= set_bits(mask);
        } while (below > wanted);
    } else {
        for (;; at += 64) {
            if (at >= band.count) return false;
            mask = members(band, row, at, left, size);
            const int inside = set_bits(mask);
            if (below + inside > wanted) break;
            below += inside;
        }
    }
    const u64 bit = pick_bit(mask, wanted - below);
    *found = at + __builtin_ctzll(bit);
    mask &= ~(bit | (bit - 1));
    while (needs_upper && mask == 0) {
        at += 64;
        if (at >= band.count) return false;
        mask = members(band, row, at, left, size);
    }
    *upper = needs_upper ? at + __builtin_ctzll(mask) : *found;
    return true;
}

// Entries that a boundary is put ahead of an answer at most.
constexpr i64 kFarthest = 192;

// Answers `kRows` rows of windows from the boundaries that the columns have, then moves the boundaries to the last
// row's answers. `below` counts the members below the boundary, row after row. False if an answer is not in the list;
// `far` counts those out of sight of their boundary.
template <int kRows, bool kUpper>
bool answer_rows(const Band &band, const OrderColumns &columns, const QuantilePlace &place, i64 size, i64 width,
                 const i16 (*below)[kBandTile], float *out, i64 out_stride, i64 *far) {
    const i64 wanted = place.lower, half = i64{1} << band.shift >> 1;
    u16 lower_place[kRows][kBandTile], upper_place[kRows][kBandTile];
    i64 lost = 0;
    for (i64 left = 0; left < width; ++left) {
        const i64 at = static_cast<i64>(columns.boundary[left]) << band.shift;
        const u64 before = within(band.x + at - 64, static_cast<u8>(left), static_cast<u8>(size));
        const u64 behind = within(band.x + at, static_cast<u8>(left), static_cast<u8>(size));
        i64 found = 0, count = 0, boundary;
        u64 first = 0, second = 0;
        int first_count = 0;
        bool in_sight = true;
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) {
            first = before & in_rows(band, r, at - 64);
            second = behind & in_rows(band, r, at);
            first_count = set_bits(first);
            count = below[r][left];
            const i64 k = wanted - count + first_count;
            const int seen = first_count + set_bits(second);
            i64 upper;
            in_sight = static_cast<u64>(k) < static_cast<u64>(seen);
            if (__builtin_expect(in_sight, 1)) {
                // Without a branch: which half the answer is in cannot be foretold.
                const i64 in_second = ~((k - first_count) >> 63);
                const u64 mask = first ^ ((first ^ second) & static_cast<u64>(in_second));
                const u64 bit = pick_bit(mask, k - (first_count & in_second));
                i64 start = at - 64 + (64 & in_second);
                found = start + __builtin_ctzll(bit);
                upper = found;
                if (kUpper) {
                    u64 rest = mask & ~(bit | (bit - 1));
                    while (__builtin_expect(rest == 0, 0)) {
                        start += 64;
                        if (start >= band.count) return false;
                        rest = members(band, r, start, left, size);
                    }
                    upper = start + __builtin_ctzll(rest);
                }
            } else {
                ++lost;
                const bool ahead = k >= 0;
                if (!seek(band, r, left, size, wanted, ahead ? at + 64 : at - 64,
                          ahead ? count - first_count + seen : count - first_count, kUpper, &found, &upper)) {
                    return false;
                }
            }
            lower_place[r][left] = static_cast<u16>(found);
            upper_place[r][left] = static_cast<u16>(upper);
        }
        if (kRows == 1) {
            // Answers that move this far move on: the boundary is put where the next one is expected.
            const i64 last = columns.place[left];
            const i64 step = at_least(at_most(found - last, kFarthest), -kFarthest);
            const i64 next = at_least(at_most(found + step, band.count), 0);
            boundary = (next + half) >> band.shift;
            const i64 moved = boundary << band.shift;
            count = wanted + members_between(band, 0, found, moved, left, size);
        } else {
            boundary = (found + half) >> band.shift;
            const i64 moved = boundary << band.shift, ahead = moved - at + 64;
            if (__builtin_expect(static_cast<u64>(ahead) <= 128 && in_sight, 1)) {
                const i64 more = ahead - 64;
                count += set_bits(lowest_bits(first, ahead)) + set_bits(lowest_bits(second, more & ~(more >> 63))) -
                         first_count;
            } else {
                count = wanted + members_between(band, kRows - 1, found, moved, left, size);
            }
        }
        columns.boundary[left] = static_cast<u16>(boundary);
        columns.pivot[left] = pivot_of(boundary);
        columns.below[left] = static_cast<i16>(count);
    }
    std::memcpy(columns.place, lower_place[kRows - 1], static_cast<std::size_t>(width) * sizeof(u16));
    for (int r = 0; r < kRows; ++r) {
        float low[kBandTile], high[kBandTile];
        for (i64 x = 0; x < width; ++x) low[x] = band.values[band.index[lower_place[r][x]]];
        if (kUpper) {
            for (i64 x = 0; x < width; ++x) high[x] = band.values[band.index[upper_place[r][x]]];
        }
        const float *const upper = kUpper ? high : low;
        float *const target = out + r * out_stride;
        for (i64 x = 0; x < width; ++x) target[x] = quantile_value(place, low[x], upper[x]);
    }
    *far += lost;
    return true;
}

// Starts the columns of the tile's first band: boundaries where the quantile of the whole tile lies.
void start_columns(const Band &band, const TileList &tile, const OrderColumns &columns, double fraction, i64 size,
                   i64 width) {
    const double pixels = static_cast<double>(tile.high * tile.wide);
    const double ahead = fraction * pixels - static_cast<double>(tile.below);
    const double share = ahead > 0.0 ? ahead / static_cast<double>(tile.count) : 0.0;
    const i64 place = static_cast<i64>((share < 1.0 ? share : 1.0) * static_cast<double>(band.count));
    const i64 boundary = place >> band.shift;
    for (i64 left = 0; left < width; left += 64) {
        i8 pivots[64], sums[64];
        i16 below[64] = {};
        std::memset(pivots, pivot_of(boundary), sizeof(pivots));
        for (i64 y = 0; y < size; ++y) {
            count_lower(band.granules + y * band.stride + left, pivots, size, sums);
            for (int i = 0; i < 64; ++i) below[i] = static_cast<i16>(below[i] + static_cast<u8>(sums[i]));
        }
        for (i64 i = 0; i < at_most(64, width - left); ++i) {
            columns.boundary[left + i] = static_cast<u16>(boundary);
            columns.pivot[left + i] = pivots[i];
            columns.below[left + i] = below[i];
            columns.place[left + i] = static_cast<u16>(boundary << band.shift);
        }
    }
}

// Carries the columns over into a new band, whose first row of windows was the last one of the band before.
void carry_columns(const Band &band, const BandMemory &memory, const OrderColumns &columns, i64 wanted, i64 size,
                   i64 width) {
    for (i64 left = 0; left < width; ++left) {
        const i64 index = columns.place[left];
        const u32 bits = memory.block_bits[index / 16] & ((1u << (index % 16)) - 1);
        const i64 at = memory.block_start[index / 16] + set_bits(bits);
        const i64 boundary = at >> band.shift;
        columns.boundary[left] = static_cast<u16>(boundary);
        columns.pivot[left] = pivot_of(boundary);
        columns.below[left] =
            static_cast<i16>(wanted - members_between(band, 0, boundary << band.shift, at, left, size));
        columns.place[left] = static_cast<u16>(at);
    }
}

// Slides a quantile's columns over `kRows` rows of windows from `top` of the band on; `counted` where the first of
// them is the row that the columns stand at.
template <int kRows>
bool slide_rows(const Band &band, const OrderColumns &columns, const QuantilePlace &place, i64 size, i64 width,
                i64 top, bool counted, float *out, i64 out_stride, i64 *far) {
    i16 below[kRows][kBandTile];
    for (i64 left = 0; left < width; left += 64) {
        i16 sum[64];
        for (int i = 0; i < 64; ++i) sum[i] = columns.below[left + i];
        for (int r = 0; r < kRows; ++r) {
            if (!counted || r > 0) {
                i8 enter[64], leave[64];
                count_lower(band.granules + (top + r + size - 1) * band.stride + left, columns.pivot + left, size, enter);
                count_lower(band.granules + (top + r - 1) * band.stride + left, columns.pivot + left, size, leave);
                for (int i = 0; i < 64; ++i) {
                    sum[i] = static_cast<i16>(sum[i] + static_cast<i8>(enter[i] - leave[i]));
                }
            }
            std::memcpy(below[r] + left, sum, sizeof(sum));
        }
    }
    return place.needs_upper ? answer_rows<kRows, true>(band, columns, place, size, width, below, out, out_stride, far)
                             : answer_rows<kRows, false>(band, columns, place, size, width, below, out, out_stride, far);
}

bool slide_tile(const OrderTask &task, const ValueRange &range, const BandMemory &memory) {
    const TileList tile = sort_pixels(task, range, memory);
    if (tile.count == 0) return false;
    const i64 size = task.size, width = task.columns;
    // Once answers are out of sight of their boundaries more often than not, boundaries are moved at every row.
    bool calm = true;
    for (i64 begin = 0; begin < task.rows; begin += kBandRows) {
        const i64 end = at_most(begin + kBandRows, task.rows), first = begin == 0 ? 0 : begin - 1;
        const Band band = open_band(memory, tile, first, end - first + size - 1);
        if (band.count == 0) return false;
        if (begin > 0) mark_rows(band, memory, 0, 1, size);
        for (int k = 0; k < task.plane_count; ++k) {
            const OrderPlane &plane = task.planes[k];
            if (begin == 0) {
                start_columns(band, tile, memory.columns[k], plane.fraction, size, width);
            } else {
                carry_columns(band, memory, memory.columns[k],
                              quantile_place(size * size, plane.fraction, plane.median).lower, size, width);
            }
        }
        // The tile's first row is answered twice, as its boundaries are not where its answers are.
        bool counted = begin == 0, start = counted;
        for (i64 row = begin; row < end;) {
            const int rows = !start && calm && end - row >= kGroup ? kGroup : 1;
            const i64 top = row - first;
            mark_rows(band, memory, top, rows, size);
            i64 far = 0;
            for (int k = 0; k < task.plane_count; ++k) {
                const OrderPlane &plane = task.planes[k];
                const QuantilePlace place = quantile_place(size * size, plane.fraction, plane.median);
                float *const out = task.out.data + plane.slot * task.out.plane + row * task.out.stride;
                const bool found = rows == kGroup
                                       ? slide_rows<kGroup>(band, memory.columns[k], place, size, width, top, counted,
                                                            out, task.out.stride, &far)
                                       : slide_rows<1>(band, memory.columns[k], place, size, width, top, counted,
                                                       out, task.out.stride, &far);
                if (!found) return false;
            }
            if (!start) {
                calm = far * 4 < rows * width * task.plane_count;
                row += rows;
            }
            counted = start;
            start = false;
        }
        for (int k = 0; k < task.plane_count; ++k) {
            u16 *const places = memory.columns[k].place;
            for (i64 x = 0; x < width; ++x) places[x] = band.index[places[x]];
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
