// Winograd minimal filtering F(3, 3): three outputs of a three-tap filter from five products instead of nine (Winograd
// 1980; for feature maps, Lavin & Gray 2016). Toom-Cook interpolation at the points 0, 1, -1, 2 and infinity. Products
// are summed over channels and over the 3 x 3 blocks of a longer filter before the output transform, so that both
// transforms are cheap.
//
// In float32 the error is within a factor of two of that of the direct sum, for maps with and without an offset. Larger
// tiles, F(6, 3) and above, are less accurate.
#pragma once

#include "core/macros.h"

namespace t3ssfast {

constexpr int kWinogradEdge = 3;    // outputs per block, and taps
constexpr int kWinogradPoints = 5;  // products, and inputs per block

// Input transform of d[0], d[stride], ..., in place. Value: float, or a vector of floats.
template <class Value>
T3_HD void winograd_transform_inputs(Value *d, int stride) {
    const Value d0 = d[0], d1 = d[stride], d2 = d[2 * stride], d3 = d[3 * stride], d4 = d[4 * stride];
    const Value odd = d3 - d1;
    d[0] = 2.0f * (d0 - d2) + odd;
    d[stride] = (d3 - d2) - 2.0f * d1;
    d[2 * stride] = (d3 - d2) + 2.0f * (d1 - d2);
    d[3 * stride] = odd;
    d[4 * stride] = (d4 - d2) - 2.0f * odd;
}

// Output transform of the products m[0], m[stride], ..., in place; the first three values are the outputs.
template <class Value>
T3_HD void winograd_transform_outputs(Value *m, int stride) {
    const Value m0 = m[0], m1 = m[stride], m2 = m[2 * stride], m3 = m[3 * stride], m4 = m[4 * stride];
    const Value even = m1 + m2;
    m[0] = (m0 + even) + m3;
    m[stride] = (m1 - m2) + 2.0f * m3;
    m[2 * stride] = (even + m4) + 4.0f * m3;
}

// Filter transform.
T3_HD void winograd_transform_taps(const double (&g)[kWinogradEdge], double (&out)[kWinogradPoints]) {
    out[0] = g[0] / 2.0;
    out[1] = -(g[0] + g[1] + g[2]) / 2.0;
    out[2] = -(g[0] - g[1] + g[2]) / 6.0;
    out[3] = (g[0] + 2.0 * g[1] + 4.0 * g[2]) / 6.0;
    out[4] = g[2];
}

}  // namespace t3ssfast
