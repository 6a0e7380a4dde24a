// Order statistics by rank: keys that sort like floats, and the reading of a quantile between two ranks.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"

namespace t3ssfast {

// Unsigned key in the order of the float; -0.0 and 0.0 get the same key.
T3_HD std::uint32_t float_to_key(float value) {
    const float positive_zero = value + 0.0f;
    std::uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof(bits));
    return bits ^ ((bits >> 31) ? 0xFFFFFFFFu : 0x80000000u);
}

T3_HD float key_to_float(std::uint32_t key) {
    const std::uint32_t bits = key ^ ((key >> 31) ? 0x80000000u : 0xFFFFFFFFu);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// Where a quantile of `count` values lies: between the order statistics lower and lower + 1 (0-based).
struct QuantilePlace {
    std::int64_t lower;
    double weight;   // of the upper one
    bool median;     // averaged in float32, as np.median does
    bool needs_upper;
};

T3_HD QuantilePlace quantile_place(std::int64_t count, double fraction, bool median) {
    if (median) {
        const bool even = count % 2 == 0;
        return {(count - 1) / 2, 0.5, true, even};
    }
    const double index = fraction * static_cast<double>(count - 1);
    std::int64_t lower = static_cast<std::int64_t>(index);
    const double weight = index - static_cast<double>(lower);
    return {lower, weight, false, weight > 0.0};
}

// np.median's and np.quantile's (method "linear") value; the latter in float64, rounded once.
T3_HD float quantile_value(const QuantilePlace &place, float lower, float upper) {
    if (!place.needs_upper) return lower;
    if (place.median) return (lower + upper) / 2.0f;
    const double a = lower, b = upper, difference = b - a;
#if defined(__CUDA_ARCH__)
    const double low_side = __dadd_rn(a, __dmul_rn(difference, place.weight));
    const double high_side = __dsub_rn(b, __dmul_rn(difference, 1.0 - place.weight));
#else
    const double low_side = a + difference * place.weight;
    const double high_side = b - difference * (1.0 - place.weight);
#endif
    return static_cast<float>(place.weight >= 0.5 ? high_side : low_side);
}

}  // namespace t3ssfast
