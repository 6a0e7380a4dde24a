// Probability of the pixels of a slice, the weighted mean of segmented slices, in levels of 8 bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "core/product.h"

namespace t3ssfast {

// Three slices of `count` pixels each, from the lowest to the highest, their weights, and where the levels go.
struct LevelsRun {
    const float *below, *middle, *above;
    float weights[3];
    std::int64_t count;
    std::uint8_t *out;
};

// The level of probability 1.
constexpr float kHighestLevel = 255.0f;

// The weighted average of one pixel in levels, not rounded to one yet.
T3_HD float scaled_average(const LevelsRun &run, float below, float middle, float above) {
    const float lower = sum(product(run.weights[0], below), product(run.weights[1], middle));
    const float average = sum(lower, product(run.weights[2], above));
    return product(average, kHighestLevel);
}

T3_HD bool is_finite(float value) {
    constexpr std::uint32_t kExponent = 0x7F800000u;
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (bits & kExponent) != kExponent;
}

// The nearest level, ties to even; the lowest or highest one for an average outside of [0, 1], any for NaN.
T3_HD std::uint8_t nearest_level(float scaled) {
    // Floats as large as 1.5 x 2^23 are 1 apart, so the sum is rounded to a whole number, and ends with its bits.
    constexpr float kWhole = 12582912.0f;
    const float low = scaled < 0.0f ? 0.0f : scaled;
    const float level = sum(low > kHighestLevel ? kHighestLevel : low, kWhole);
    std::uint32_t bits;
    memcpy(&bits, &level, sizeof(bits));
    return static_cast<std::uint8_t>(bits);
}

}  // namespace t3ssfast
