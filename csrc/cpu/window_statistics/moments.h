// Arguments of the moments kernel: up to kCellsPerBatch lattice cells, and buffers that a thread keeps.
#pragma once

#include "core/moments.h"
#include "cpu/window_statistics/tasks.h"

namespace t3ssfast::cpu {

constexpr int kCellsPerBatch = 8;

// Columns of windows in memory at a time; bounds the memory for large windows (size * 64 * 256 bytes).
constexpr i64 kMomentPanel = 64;
constexpr i64 moment_panel(i64 size) { return size < kMomentPanel ? size : kMomentPanel; }

// One lattice cell (see core/moments.h): its lattice pixel, and the requested part of its size x size windows.
struct MomentCell {
    const float *image;
    i64 height, width, y, x;
    i64 t0, t1, u0, u1;
    TileOutput out;
};

struct MomentBuffers {
    double *sums;   // aligned to kCellsPerBatch doubles
    float *values;  // (kMomentKinds, panel, kCellsPerBatch), aligned to kCellsPerBatch floats
    float *rows;    // (kMomentKinds, kCellsPerBatch, panel)
    float *pixels;  // (2 * size, kCellsPerBatch), aligned to kCellsPerBatch floats
};

// Number of doubles for the sums of one batch of cells.
constexpr i64 moment_doubles(i64 size) { return kCellsPerBatch * 4 * moment_panel(size) * (size + 1); }

// Number of floats for the moments of one row of a panel.
constexpr i64 moment_values(i64 size) { return kMomentKinds * moment_panel(size) * kCellsPerBatch; }

}  // namespace t3ssfast::cpu
