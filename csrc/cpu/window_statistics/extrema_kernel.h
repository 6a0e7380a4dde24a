// Extrema of a tile: van Herk's prefix and suffix extrema along columns, doubling spans along rows. A kernel of
// cpu/simd_dispatch.h.
#include "cpu/window_statistics/streaming_stores.h"

namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

T3_ALWAYS_INLINE float minimum_of(float a, float b) { return b < a ? b : a; }
T3_ALWAYS_INLINE float maximum_of(float a, float b) { return b > a ? b : a; }

// Widens the extrema of spans of columns to the largest span 4^k * span that is not above `size`, and returns it.
// Exact, because an extremum may count a pixel twice.
T3_ALWAYS_INLINE i64 widen_spans(float *low, float *high, i64 columns, i64 size, i64 span) {
    i64 left = columns - span + 1;
    // Written values are not read again.
    while (4 * span <= size) {
        left -= 3 * span;
        T3_INDEPENDENT_ITERATIONS
        for (i64 x = 0; x < left; ++x) {
            low[x] = minimum_of(minimum_of(low[x], low[x + span]), minimum_of(low[x + 2 * span], low[x + 3 * span]));
            high[x] =
                maximum_of(maximum_of(high[x], high[x + span]), maximum_of(high[x + 2 * span], high[x + 3 * span]));
        }
        span *= 4;
    }
    return span;
}

// The extremum of each window from at most four overlapping spans. Adding +0 turns -0.0 into 0.0, so that the result
// does not depend on which of the two equal zeros comes first.
template <typename Extremum>
T3_ALWAYS_INLINE void combine_spans(const float *spans, i64 span, i64 size, i64 columns, Extremum extremum,
                                    float *target) {
    const float *const last = spans + size - span, *const second = spans + span, *const third = second + span;
    if (size <= 2 * span) {
        T3_INDEPENDENT_ITERATIONS
        for (i64 x = 0; x < columns; ++x) target[x] = extremum(spans[x], last[x]) + 0.0f;
    } else if (size <= 3 * span) {
        T3_INDEPENDENT_ITERATIONS
        for (i64 x = 0; x < columns; ++x) target[x] = extremum(extremum(spans[x], second[x]), last[x]) + 0.0f;
    } else {
        T3_INDEPENDENT_ITERATIONS
        for (i64 x = 0; x < columns; ++x) {
            target[x] = extremum(extremum(spans[x], second[x]), extremum(third[x], last[x])) + 0.0f;
        }
    }
}

// Prefetch distance in rows of pixels: rows of an image are too far apart for the hardware prefetcher.
constexpr i64 kPrefetchRows = 4;

T3_ALWAYS_INLINE void prefetch_row(const float *row, i64 pixels) {
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
struct Minimum {
    T3_ALWAYS_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
};
struct Maximum {
    T3_ALWAYS_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};

// Extrema over the 16 columns that start at each column, vector by vector. Each doubling of the span needs the next
// vector, so the output lags four vectors behind the input.
template <typename Extremum>
struct SpanDoubling {
    __m512 one, two, four, eight;

    template <int kShift>
    T3_ALWAYS_INLINE static __m512 with_shifted(__m512 vector, __m512 next) {
        return Extremum::of(vector, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(next),
                                                                            _mm512_castps_si512(vector), kShift)));
    }

    T3_ALWAYS_INLINE __m512 push(__m512 next) {
        const __m512 next_two = with_shifted<1>(one, next), next_four = with_shifted<2>(two, next_two);
        const __m512 next_eight = with_shifted<4>(four, next_four), sixteen = with_shifted<8>(eight, next_eight);
        one = next;
        two = next_two;
        four = next_four;
        eight = next_eight;
        return sixteen;
    }
};

constexpr i64 kSpanColumns = 16;

// Adds a row of pixels to the columns' extrema, combines them with those above, and writes their extrema over
// kSpanColumns columns to low_row and high_row. `source` is null for the first row of windows.
T3_ALWAYS_INLINE void accumulate_row(const float *source, i64 pixels, float *low, float *high, const float *low_upper,
                                     const float *high_upper, float *low_row, float *high_row) {
    SpanDoubling<Minimum> minimum = {};
    SpanDoubling<Maximum> maximum = {};
    constexpr i64 kLatency = 4 * kSpanColumns;
    const i64 end = extrema_pitch(pixels);
    for (i64 x = 0; x < end + kLatency; x += kSpanColumns) {
        __m512 low_vector = minimum.one, high_vector = maximum.one;
        if (x < end) {
            low_vector = _mm512_load_ps(low_upper + x);
            high_vector = _mm512_load_ps(high_upper + x);
            if (source != nullptr) {
                const i64 left = pixels - x;
                const __mmask16 here = static_cast<__mmask16>(left >= kSpanColumns ? 0xFFFF : (1 << left) - 1);
                const __m512 value = _mm512_maskz_loadu_ps(here, source + x);
                const __m512 lowest = _mm512_min_ps(_mm512_load_ps(low + x), value);
                const __m512 highest = _mm512_max_ps(_mm512_load_ps(high + x), value);
                _mm512_store_ps(low + x, lowest);
                _mm512_store_ps(high + x, highest);
                low_vector = _mm512_min_ps(low_vector, lowest);
                high_vector = _mm512_max_ps(high_vector, highest);
            }
        }
        const __m512 low_span = minimum.push(low_vector), high_span = maximum.push(high_vector);
        if (x < kLatency) continue;
        _mm512_store_ps(low_row + x - kLatency, low_span);
        _mm512_store_ps(high_row + x - kLatency, high_span);
    }
}
#endif

// Extrema of the windows of one tile, which has at most `size` rows of windows: suffix extrema from row size - 1
// upwards, prefix extrema from the next row downwards. Written row by row to every requested plane.
void extrema_of_rows(const float *image, i64 stride, i64 size, i64 rows, i64 columns, float *buffer,
                     float *const *low_out, float *const *high_out, float *const *range_out, int low_count,
                     int high_count, int range_count, i64 out_stride, bool stream) {
    const i64 pixels = columns + size - 1, pitch = extrema_pitch(pixels);
    const std::size_t row_bytes = static_cast<std::size_t>(pixels) * sizeof(float);
    float *low = buffer, *high = low + pitch, *low_row = high + pitch, *high_row = low_row + pitch;
    float *low_above = high_row + pitch, *high_above = low_above + size * pitch;
    // Window t covers rows t .. size - 1 of the upper block, then rows size .. t + size - 1.
    for (i64 t = size - 1; t >= 0; --t) {
        const float *__restrict source = image + t * stride;
        float *__restrict low_target = low_above + t * pitch;
        float *__restrict high_target = high_above + t * pitch;
        const float *__restrict low_next = t == size - 1 ? source : low_target + pitch;
        const float *__restrict high_next = t == size - 1 ? source : high_target + pitch;
        if (t >= kPrefetchRows) prefetch_row(source - kPrefetchRows * stride, pixels);
        T3_INDEPENDENT_ITERATIONS
        for (i64 x = 0; x < pixels; ++x) {
            low_target[x] = minimum_of(source[x], low_next[x]);
            high_target[x] = maximum_of(source[x], high_next[x]);
        }
    }
    for (i64 t = 0; t < rows; ++t) {
        const float *__restrict low_upper = low_above + t * pitch;
        const float *__restrict high_upper = high_above + t * pitch;
        const float *__restrict source = t == 0 ? nullptr : image + (t + size - 1) * stride;
        if (t > 0 && t + kPrefetchRows < rows) prefetch_row(source + kPrefetchRows * stride, pixels);
        if (t == 1) {
            std::memcpy(low, source, row_bytes);
            std::memcpy(high, source, row_bytes);
        }
        i64 span = 1;
#if T3_AVX512
        if (size >= kSpanColumns) {
            accumulate_row(source, pixels, low, high, low_upper, high_upper, low_row, high_row);
            span = kSpanColumns;
        }
#endif
        if (span == 1 && t == 0) {
            std::memcpy(low_row, low_upper, row_bytes);
            std::memcpy(high_row, high_upper, row_bytes);
        } else if (span == 1) {
            // Said, because the compiler's own check takes adjacent arrays for overlapping ones.
            T3_INDEPENDENT_ITERATIONS
            for (i64 x = 0; x < pixels; ++x) {
                low[x] = minimum_of(low[x], source[x]);
                high[x] = maximum_of(high[x], source[x]);
                low_row[x] = minimum_of(low[x], low_upper[x]);
                high_row[x] = maximum_of(high[x], high_upper[x]);
            }
        }
        span = widen_spans(low_row, high_row, pixels, size, span);
        const auto minimum = [](float a, float b) { return minimum_of(a, b); };
        const auto maximum = [](float a, float b) { return maximum_of(a, b); };
        const i64 out = t * out_stride;
        if (!stream && range_count == 0) {
            for (int k = 0; k < low_count; ++k) combine_spans(low_row, span, size, columns, minimum, low_out[k] + out);
            for (int k = 0; k < high_count; ++k)
                combine_spans(high_row, span, size, columns, maximum, high_out[k] + out);
            continue;
        }
        combine_spans(low_row, span, size, columns, minimum, low_row);
        combine_spans(high_row, span, size, columns, maximum, high_row);
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
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
