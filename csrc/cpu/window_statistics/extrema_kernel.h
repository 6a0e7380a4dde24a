// Extrema of a tile: van Herk's prefixes and suffixes down the columns, spans that double along the rows. A kernel of
// cpu/each_level.h.
#include "cpu/window_statistics/lines.h"

namespace t3ssfast::cpu {
namespace T3_LEVEL {
namespace {

T3_ALWAYS_INLINE float smaller(float a, float b) { return b < a ? b : a; }
T3_ALWAYS_INLINE float larger(float a, float b) { return b > a ? b : a; }

// From the extrema of spans of columns to those of longer ones, as many as the largest 4^k * span that is not above
// `size`, which is returned. Exact, as an extremum does not mind counting a pixel twice.
T3_ALWAYS_INLINE i64 widen(float *low, float *high, i64 columns, i64 size, i64 span) {
    i64 left = columns - span + 1;
    // A value is written where none is read any more.
    while (4 * span <= size) {
        left -= 3 * span;
#pragma GCC ivdep
        for (i64 x = 0; x < left; ++x) {
            low[x] = smaller(smaller(low[x], low[x + span]), smaller(low[x + 2 * span], low[x + 3 * span]));
            high[x] = larger(larger(high[x], high[x + span]), larger(high[x + 2 * span], high[x + 3 * span]));
        }
        span *= 4;
    }
    return span;
}

// The extremum of the windows from spans that overlap, at most four, written to each target. Adding +0 turns -0.0 into
// 0.0: which of the two equal zeros was met first must not show.
template <typename Extremum>
T3_ALWAYS_INLINE void cover(const float *spans, i64 span, i64 size, i64 columns, Extremum extremum, float *target) {
    const float *const last = spans + size - span, *const second = spans + span, *const third = second + span;
    if (size <= 2 * span) {
#pragma GCC ivdep
        for (i64 x = 0; x < columns; ++x) target[x] = extremum(spans[x], last[x]) + 0.0f;
    } else if (size <= 3 * span) {
#pragma GCC ivdep
        for (i64 x = 0; x < columns; ++x) target[x] = extremum(extremum(spans[x], second[x]), last[x]) + 0.0f;
    } else {
#pragma GCC ivdep
        for (i64 x = 0; x < columns; ++x) {
            target[x] = extremum(extremum(spans[x], second[x]), extremum(third[x], last[x])) + 0.0f;
        }
    }
}

// Rows of pixels that are on their way from memory: rows of an image lie too far apart for the processor to see it.
constexpr i64 kAheadRows = 4;

T3_ALWAYS_INLINE void fetch_ahead(const float *row, i64 pixels) {
    for (i64 x = 0; x < pixels; x += 16) __builtin_prefetch(row + x);
}

T3_ALWAYS_INLINE void write_row(const float *row, i64 columns, bool stream, float *target) {
    if (stream) {
        stream_row(target, row, columns);
    } else {
        std::memcpy(target, row, static_cast<std::size_t>(columns) * sizeof(float));
    }
}

#if T3_AVX512
struct Least {
    T3_ALWAYS_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
};
struct Most {
    T3_ALWAYS_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};

// The extrema over 16 columns from each column on, vector by vector: each doubling of the span needs the next vector,
// so that what comes out belongs four vectors behind what goes in.
template <typename Extremum>
struct Doubling {
    __m512 one, two, four, eight;

    template <int kShift>
    T3_ALWAYS_INLINE static __m512 with_shifted(__m512 vector, __m512 next) {
        return Extremum::of(vector, _mm512_castsi512_ps(_mm512_alignr_epi32(
                                        _mm512_castps_si512(next), _mm512_castps_si512(vector), kShift)));
    }

    T3_ALWAYS_INLINE __m512 put(__m512 next) {
        const __m512 next_two = with_shifted<1>(one, next), next_four = with_shifted<2>(two, next_two);
        const __m512 next_eight = with_shifted<4>(four, next_four), sixteen = with_shifted<8>(eight, next_eight);
        one = next;
        two = next_two;
        four = next_four;
        eight = next_eight;
        return sixteen;
    }
};

constexpr i64 kDoubled = 16;

// A row of pixels added to the columns' extrema, those joined with the ones above, and their extrema over kDoubled
// columns written to low_row and high_row. `source` is null where the row has none of its own.
T3_ALWAYS_INLINE void join_row(const float *source, i64 pixels, float *low, float *high, const float *low_upper,
                               const float *high_upper, float *low_row, float *high_row) {
    Doubling<Least> least = {};
    Doubling<Most> most = {};
    constexpr i64 kBehind = 4 * kDoubled;
    const i64 end = extrema_pitch(pixels);
    for (i64 x = 0; x < end + kBehind; x += kDoubled) {
        __m512 low_vector = least.one, high_vector = most.one;
        if (x < end) {
            low_vector = _mm512_load_ps(low_upper + x);
            high_vector = _mm512_load_ps(high_upper + x);
            if (source != nullptr) {
                const i64 left = pixels - x;
                const __mmask16 here = static_cast<__mmask16>(left >= kDoubled ? 0xFFFF : (1 << left) - 1);
                const __m512 value = _mm512_maskz_loadu_ps(here, source + x);
                const __m512 lowest = _mm512_min_ps(_mm512_load_ps(low + x), value);
                const __m512 highest = _mm512_max_ps(_mm512_load_ps(high + x), value);
                _mm512_store_ps(low + x, lowest);
                _mm512_store_ps(high + x, highest);
                low_vector = _mm512_min_ps(low_vector, lowest);
                high_vector = _mm512_max_ps(high_vector, highest);
            }
        }
        const __m512 low_span = least.put(low_vector), high_span = most.put(high_vector);
        if (x < kBehind) continue;
        _mm512_store_ps(low_row + x - kBehind, low_span);
        _mm512_store_ps(high_row + x - kBehind, high_span);
    }
}
#endif

// Extrema of the windows of one tile, at most `size` rows of them (van Herk: from row size - 1 upwards, and from the
// next row downwards), written row by row to every plane asked for.
void extrema_of_rows(const float *image, i64 stride, i64 size, i64 rows, i64 columns, float *memory,
                                    float *const *low_out, float *const *high_out, float *const *range_out,
                                    int low_count, int high_count, int range_count, i64 out_stride, bool stream) {
    const i64 pixels = columns + size - 1, pitch = extrema_pitch(pixels);
    const std::size_t row_bytes = static_cast<std::size_t>(pixels) * sizeof(float);
    float *low = memory, *high = low + pitch, *low_row = high + pitch, *high_row = low_row + pitch;
    float *low_above = high_row + pitch, *high_above = low_above + size * pitch;
    // Window t covers rows t .. size - 1 of the upper block, then size .. t + size - 1.
    for (i64 t = size - 1; t >= 0; --t) {
        const float *__restrict source = image + t * stride;
        float *__restrict low_target = low_above + t * pitch;
        float *__restrict high_target = high_above + t * pitch;
        const float *__restrict low_next = t == size - 1 ? source : low_target + pitch;
        const float *__restrict high_next = t == size - 1 ? source : high_target + pitch;
        if (t >= kAheadRows) fetch_ahead(source - kAheadRows * stride, pixels);
#pragma GCC ivdep
        for (i64 x = 0; x < pixels; ++x) {
            low_target[x] = smaller(source[x], low_next[x]);
            high_target[x] = larger(source[x], high_next[x]);
        }
    }
    for (i64 t = 0; t < rows; ++t) {
        const float *__restrict low_upper = low_above + t * pitch;
        const float *__restrict high_upper = high_above + t * pitch;
        const float *__restrict source = t == 0 ? nullptr : image + (t + size - 1) * stride;
        if (t > 0 && t + kAheadRows < rows) fetch_ahead(source + kAheadRows * stride, pixels);
        if (t == 1) {
            std::memcpy(low, source, row_bytes);
            std::memcpy(high, source, row_bytes);
        }
        i64 span = 1;
#if T3_AVX512
        if (size >= kDoubled) {
            join_row(source, pixels, low, high, low_upper, high_upper, low_row, high_row);
            span = kDoubled;
        }
#endif
        if (span == 1 && t == 0) {
            std::memcpy(low_row, low_upper, row_bytes);
            std::memcpy(high_row, high_upper, row_bytes);
        } else if (span == 1) {
            // Arrays that touch look to the compiler's own check as if they overlapped.
#pragma GCC ivdep
            for (i64 x = 0; x < pixels; ++x) {
                low[x] = smaller(low[x], source[x]);
                high[x] = larger(high[x], source[x]);
                low_row[x] = smaller(low[x], low_upper[x]);
                high_row[x] = larger(high[x], high_upper[x]);
            }
        }
        span = widen(low_row, high_row, pixels, size, span);
        const auto least = [](float a, float b) { return smaller(a, b); };
        const auto most = [](float a, float b) { return larger(a, b); };
        const i64 out = t * out_stride;
        if (!stream && range_count == 0) {
            for (int k = 0; k < low_count; ++k) cover(low_row, span, size, columns, least, low_out[k] + out);
            for (int k = 0; k < high_count; ++k) cover(high_row, span, size, columns, most, high_out[k] + out);
            continue;
        }
        cover(low_row, span, size, columns, least, low_row);
        cover(high_row, span, size, columns, most, high_row);
        for (int k = 0; k < low_count; ++k) write_row(low_row, columns, stream, low_out[k] + out);
        for (int k = 0; k < high_count; ++k) write_row(high_row, columns, stream, high_out[k] + out);
        if (range_count > 0) {
            for (i64 x = 0; x < columns; ++x) high_row[x] -= low_row[x];
        }
        for (int k = 0; k < range_count; ++k) write_row(high_row, columns, stream, range_out[k] + out);
    }
    end_stream();
}

}  // namespace
}  // namespace T3_LEVEL
}  // namespace t3ssfast::cpu
