// Moments of a window from power sums about a pixel of that window.
//
// The valid windows of size n are told apart by a lattice of spacing n: whatever its place, a window holds
// exactly one lattice pixel. All windows around a lattice pixel p share it as their origin, and their sums of
// (x - p)^k, k = 1..4, are built by additions alone (van Herk's prefixes and suffixes, which meet at p).
// So a window's bits follow from its own pixels and its place relative to the lattice: a hot pixel elsewhere
// leaves no residue, and tiles, slabs and threads change nothing. The origin is a member of the window, hence
// (p - mean)^2 <= N variance and (p - mean)^4 <= N m4 with N = n^2: going from sums about p to central moments
// amplifies float64's rounding by no more than a small multiple of N, whatever the offset of the data.
#pragma once

#include <cmath>
#include <limits>

#include "core/macros.h"
#include "core/window.h"

namespace t3ssfast {

// Lattice cell of a window: windows whose top (or left) edge lies in ((cell - 1) n, cell n] hold pixel cell * n.
T3_HD std::int64_t lattice_cell(std::int64_t window, std::int64_t size) { return (window + size - 1) / size; }

// First window of a cell; negative for cell 0, where only the last window of the cell exists.
T3_HD std::int64_t cell_begin(std::int64_t cell, std::int64_t size) { return (cell - 1) * size + 1; }

// A product that is never contracted into a fused multiply-add, so that both halves give the same bits.
T3_HD double product(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

// Sums of d, d^2, d^3, d^4.
struct PowerSums {
    double s1, s2, s3, s4;

    T3_HD void clear() { s1 = s2 = s3 = s4 = 0.0; }
    T3_HD void add(double d) {
        const double d2 = product(d, d);
        s1 += d;
        s2 += d2;
        s3 += product(d2, d);
        s4 += product(d2, d2);
    }
    T3_HD void add(const PowerSums &other) {
        s1 += other.s1;
        s2 += other.s2;
        s3 += other.s3;
        s4 += other.s4;
    }
};

// What the requested statistics are made of.
struct Moments {
    double mean, variance, std, skewness, kurtosis, energy;
};

// Population moments; skewness and kurtosis as scipy.stats' biased, Fisher ones, NaN where the variance is 0.
T3_HD Moments moments_of(const PowerSums &sums, double origin, double inverse_count) {
    const double m = product(sums.s1, inverse_count);
    const double e2 = product(sums.s2, inverse_count);
    const double e3 = product(sums.s3, inverse_count);
    const double e4 = product(sums.s4, inverse_count);
    const double mm = product(m, m);
    const double raw2 = e2 - mm;
    // raw2 or, where rounding made it negative, 0. Written without a branch, as is the NaN: compilers that meet
    // one do not vectorise.
    const double m2 = product(0.5, raw2 + fabs(raw2));
    const double m3 = e3 - product(m, product(3.0, e2) - product(2.0, mm));
    const double m4 = e4 - product(m, product(4.0, e3) - product(m, product(6.0, e2) - product(3.0, mm)));
    const double deviation = sqrt(m2);
    const double inverse = (m2 > 0.0 ? 1.0 : std::numeric_limits<double>::quiet_NaN()) / deviation;
    const double inverse2 = product(inverse, inverse);
    const double mean = origin + m;
    Moments result;
    result.mean = mean;
    result.variance = m2;
    result.std = deviation;
    result.skewness = product(product(m3, inverse), inverse2);
    result.kurtosis = product(product(m4, inverse2), inverse2) - 3.0;
    result.energy = m2 + product(mean, mean);
    return result;
}

}  // namespace t3ssfast
