// Element types of unfolded windows, and z-score scaling.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "core/product.h"

namespace t3ssfast {

// Element type of the windows that `unfold` writes.
enum class Element : int { float32 = 0, float16 = 1, bfloat16 = 2 };

struct Float32 {
    using Word = float;
    T3_HD static Word from(float value) { return value; }
};

// IEEE 754 binary16, round to nearest, ties to even; overflow gives infinity.
struct Float16 {
    using Word = std::uint16_t;
    T3_HD static Word from(float value) {
        std::uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
        // Below 2^-14 halves are multiples of 2^-24. Adding 0.5, whose float neighbours are 2^-24 apart, rounds to
        // them.
        float small;
        memcpy(&small, &magnitude, sizeof(small));
        small += 0.5f;
        std::uint32_t subnormal;
        memcpy(&subnormal, &small, sizeof(subnormal));
        subnormal -= 0x3F000000u;
        const std::uint32_t odd = magnitude >> 13 & 1u;
        const std::uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + odd) >> 13;
        std::uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
        half = magnitude >= 0x477FF000u ? 0x7C00u : half;
        return static_cast<Word>(sign | half);
    }
};

// bfloat16: the upper half of a float, round to nearest, ties to even.
struct BFloat16 {
    using Word = std::uint16_t;
    T3_HD static Word from(float value) {
        std::uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        return static_cast<Word>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
    }
};

// value -> (value - offset) * scale
struct Scaling {
    double offset, scale;

    T3_HD float operator()(float value) const { return static_cast<float>((value - offset) * scale); }
};

// From the sums of d and d^2 over a window, d = value - origin; origin is one of its pixels (see core/moments.h).
T3_HD Scaling zscore_scaling(double origin, double sum, double squares, std::int64_t size) {
    const double count = static_cast<double>(size) * static_cast<double>(size);
    const double mean = sum / count;
    const double variance = squares / count - product(mean, mean);
    return {origin + mean, variance > 0.0 ? 1.0 / sqrt(variance) : 0.0};
}

}  // namespace t3ssfast
