// What the moments' kernels are given: up to kMomentLanes lattice cells, and memory that a thread keeps between them.
#pragma once

#include "core/moments.h"
#include "cpu/window_statistics/families.h"

namespace t3ssfast::cpu {

constexpr int kMomentLanes = 8;

// Columns of windows held at a time; bounds the memory for large windows (size * 64 * 256 bytes).
constexpr i64 kMomentPanel = 64;
constexpr i64 moment_panel(i64 size) { return size < kMomentPanel ? size : kMomentPanel; }

// One lattice cell (see core/moments.h): its lattice pixel, and the part of its size x size windows that is wanted.
struct MomentCell {
    const float *image;
    i64 height, width, y, x;
    i64 t0, t1, u0, u1;
    TileOutput out;
};

struct MomentMemory {
    double *sums;   // aligned to kMomentLanes doubles
    float *values;  // (kMomentKinds, panel, kMomentLanes), aligned to kMomentLanes floats
    float *rows;    // (kMomentKinds, kMomentLanes, panel)
    float *pixels;  // (2 * size, kMomentLanes), aligned likewise
};

// Doubles that the sums of one batch of cells take.
constexpr i64 moment_doubles(i64 size) { return kMomentLanes * 4 * moment_panel(size) * (size + 1); }

// Floats of the moments of one row of a panel.
constexpr i64 moment_values(i64 size) { return kMomentKinds * moment_panel(size) * kMomentLanes; }

}  // namespace t3ssfast::cpu
