// The matrix product of convolutions and fully connected layers: a register-blocked kernel (positions x outputs) over
// gathered rows, for several vector widths. Uses the instruction set of the function it is inlined into
// (cpu/score_windows/score_windows.cpp).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "cpu/score_windows/packed_weights.h"

namespace t3ssfast::cpu {

typedef float Vector4 __attribute__((vector_size(16)));
typedef float Vector8 __attribute__((vector_size(32)));
typedef float Vector16 __attribute__((vector_size(64)));

template <class V>
constexpr std::int64_t width_of = sizeof(V) / sizeof(float);

template <class V>
T3_ALWAYS_INLINE void load(V &value, const float *from) {
    std::memcpy(&value, from, sizeof(V));
}

template <class V>
T3_ALWAYS_INLINE void store(float *to, const V &value) {
    std::memcpy(to, &value, sizeof(V));
}

// Computes P rows of N vectors of sums: starts with `init`, adds the products of `tap_rows` rows of taps x channels,
// and writes to `sums`. Rows are written in ascending order, as whole vectors.
template <class V, int P, int N>
T3_ALWAYS_INLINE void gemm_block(const float *const *rows, std::int64_t tap_rows, std::int64_t row_step,
                                 std::int64_t taps, std::int64_t tap_step, std::int64_t channels, const float *weights,
                                 const float *init, std::int64_t init_stride, float *sums, std::int64_t sums_stride) {
    constexpr std::int64_t W = width_of<V>;
    V acc[P][N];
    const float *in[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
        in[p] = rows[p];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) load(acc[p][n], init + p * init_stride + n * W);
    }
    for (std::int64_t r = 0; r < tap_rows; ++r) {
        for (std::int64_t t = 0; t < taps; ++t) {
            const std::int64_t at = r * row_step + t * tap_step;
            for (std::int64_t c = 0; c < channels; ++c) {
                V w[N];
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n) load(w[n], weights + n * W);
                weights += N * W;
#pragma GCC unroll 16
                for (int p = 0; p < P; ++p) {
                    // x - 0 equals x bit for bit, so this is a broadcast without arithmetic; x + 0 would turn -0.0 into
                    // 0.0.
                    const V x = in[p][at + c] - V{};
#pragma GCC unroll 4
                    for (int n = 0; n < N; ++n) acc[p][n] += x * w[n];
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(sums + p * sums_stride + n * W, acc[p][n]);
    }
}

template <class V, int P>
T3_ALWAYS_INLINE void gemm_panel(std::int64_t vectors, const float *const *rows, std::int64_t tap_rows,
                                 std::int64_t row_step, std::int64_t taps, std::int64_t tap_step, std::int64_t channels,
                                 const float *weights, const float *init, std::int64_t init_stride, float *sums,
                                 std::int64_t sums_stride) {
    // Contiguous taps are one longer run.
    if (tap_step == channels) {
        channels *= taps;
        taps = 1;
    }
    switch (vectors) {
        case 1:
            return gemm_block<V, P, 1>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init, init_stride,
                                       sums, sums_stride);
        case 2:
            return gemm_block<V, P, 2>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init, init_stride,
                                       sums, sums_stride);
        default:
            return gemm_block<V, P, 3>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init, init_stride,
                                       sums, sums_stride);
    }
}

}  // namespace t3ssfast::cpu
