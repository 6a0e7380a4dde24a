// Order statistics by rank: integer keys that sort like floats, and interpolation of a quantile between two ranks.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "core/product.h"

namespace t3ssfast {

// Unsigned key in the order of the floats; -0.0 and 0.0 have the same key.
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

// Position of a quantile of `count` values: between the order statistics lower and lower + 1 (0-based).
struct QuantilePosition {
    std::int64_t lower;
    double weight;  // of the upper value
    bool median;    // mean of both values in float32, like np.median
    bool needs_upper;
};

T3_HD QuantilePosition quantile_position(std::int64_t count, double fraction, bool median) {
    if (median) {
        const bool even = count % 2 == 0;
        return {(count - 1) / 2, 0.5, true, even};
    }
    const double index = product(fraction, static_cast<double>(count - 1));
    std::int64_t lower = static_cast<std::int64_t>(index);
    const double weight = index - static_cast<double>(lower);
    return {lower, weight, false, weight > 0.0};
}

// The value of np.median, or of np.quantile with method "linear", computed in float64 and rounded once.
T3_HD float quantile_value(const QuantilePosition &position, float lower, float upper) {
    if (!position.needs_upper) return lower;
    if (position.median) return (lower + upper) / 2.0f;
    const double a = lower, b = upper, difference = b - a;
    const double low_side = a + product(difference, position.weight);
    const double high_side = b - product(difference, 1.0 - position.weight);
    return static_cast<float>(position.weight >= 0.5 ? high_side : low_side);
}

}  // namespace t3ssfast
