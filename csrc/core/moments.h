// Moments of a window from power sums about one of its pixels.
//
// A lattice of spacing n partitions the valid windows of size n: every window contains exactly one lattice pixel. All
// windows that contain lattice pixel p use it as their origin. Their sums of (x - p)^k, k = 1..4, are computed by
// additions alone, with van Herk's prefix and suffix sums, which meet at p. A window's result therefore depends only on
// its own pixels and its position relative to the lattice: a hot pixel elsewhere has no effect, nor do tiles, slabs and
// threads. As the origin is a pixel of the window, (p - mean)^2 <= N variance and (p - mean)^4 <= N m4 with N = n^2.
// Converting sums about p to central moments thus amplifies float64 rounding errors by at most a small multiple of N,
// whatever the offset of the data.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/macros.h"
#include "core/product.h"
#include "core/window.h"

namespace t3ssfast {

// Lattice cell of a window: windows whose top (or left) edge lies in ((cell - 1) n, cell n] contain pixel cell * n.
T3_HD std::int64_t lattice_cell(std::int64_t window, std::int64_t size) { return (window + size - 1) / size; }

// First window of a cell; negative for cell 0, of which only the last window exists.
T3_HD std::int64_t cell_begin(std::int64_t cell, std::int64_t size) { return (cell - 1) * size + 1; }

// Sums of d, d^2, d^3, d^4.
struct PowerSums {
    double s1, s2, s3, s4;

    T3_HD void clear() { s1 = s2 = s3 = s4 = 0.0; }
    T3_HD void add(double d) {
        const double d2 = product(d, d);
        s1 = sum(s1, d);
        s2 = sum(s2, d2);
        s3 = sum(s3, product(d2, d));
        s4 = sum(s4, product(d2, d2));
    }
    T3_HD void add(const PowerSums &other) {
        s1 = sum(s1, other.s1);
        s2 = sum(s2, other.s2);
        s3 = sum(s3, other.s3);
        s4 = sum(s4, other.s4);
    }
};

// Operations that core/moments_formula.h needs, for double.

// x where it is positive, else 0.
T3_HD double positive_part(double x) { return x > 0.0 ? x : 0.0; }

T3_HD double nan_unless_positive(double x, double value) {
    return x > 0.0 ? value : std::numeric_limits<double>::quiet_NaN();
}

T3_HD double root(double x) { return sqrt(x); }
T3_HD double reciprocal(double x) { return 1.0 / x; }

using Real = double;
#include "core/moments_formula.h"

}  // namespace t3ssfast
