// Block algorithm of window_statistics: moments and extrema of one lattice cell of windows (core/moments.h).
#pragma once

#include "core/moments.h"
#include "core/window_statistics.h"

namespace t3ssfast {

// Power sums (4) and extrema (2) per pixel column of a lattice cell.
constexpr int kMomentChannels = 6;

// Values of a column: a panel of each channel, and the sums below the lattice row so far. One more avoids bank conflicts
// between lanes that work on neighbouring columns.
T3_HD std::int64_t moment_stride(std::int64_t panel) { return kMomentChannels * (panel + 1) + 1; }

T3_HD std::int64_t moment_block_bytes(std::int64_t size, std::int64_t panel) {
    return (2 * size - 1) * moment_stride(panel) * static_cast<std::int64_t>(sizeof(double)) +
           (size + 1) * static_cast<std::int64_t>(sizeof(RowRange));
}

inline BlockGrid moment_grid(const StatisticsRun &run) { return block_grid(run, run.size, run.size, run.size - 1); }

// One pixel column of a lattice cell: sums and extrema of image rows top + t, for windows t0 <= t < t1. The value of
// channel k for window t is written to target[k * panel + t - t0]. Lanes take neighbouring columns, so that they read
// neighbouring pixels. Pixels outside the image (column == nullptr outside its columns) count as the origin; only
// windows that do not exist contain them. The sums from the lattice row downwards go on where the previous panel left
// them, `taken` rows below the lattice row.
T3_HD void column_channels(const float *column, std::int64_t width, std::int64_t height, std::int64_t top,
                           double origin, std::int64_t size, std::int64_t t0, std::int64_t t1, std::int64_t taken,
                           std::int64_t panel, double *target) {
    PowerSums sums;
    sums.clear();
    double low = 0.0, high = 0.0;
    const auto take = [&](std::int64_t row, bool first) {
        const bool inside = column != nullptr && row >= 0 && row < height;
        const double value = inside ? column[row * width] : origin;
        sums.add(value - origin);
        low = first || value < low ? value : low;
        high = first || value > high ? value : high;
    };
    // Windows with rows above the lattice row: suffix sums from there upwards.
    for (std::int64_t t = size - 2; t >= t0; --t) {
        take(top + t, t == size - 2);
        if (t >= t1) continue;
        double *at = target + t - t0;
        at[0] = sums.s1;
        at[panel] = sums.s2;
        at[2 * panel] = sums.s3;
        at[3 * panel] = sums.s4;
        at[4 * panel] = low;
        at[5 * panel] = high;
    }
    double *so_far = target + kMomentChannels * panel;
    sums.clear();
    if (taken > 0) {
        sums = {so_far[0], so_far[1], so_far[2], so_far[3]};
        low = so_far[4];
        high = so_far[5];
    }
    for (std::int64_t t = taken; t < t1; ++t) {
        take(top + size - 1 + t, t == 0);
        if (t < t0) continue;
        double *at = target + t - t0;
        const bool whole = t == size - 1;
        at[0] = whole ? sums.s1 : at[0] + sums.s1;
        at[panel] = whole ? sums.s2 : at[panel] + sums.s2;
        at[2 * panel] = whole ? sums.s3 : at[2 * panel] + sums.s3;
        at[3 * panel] = whole ? sums.s4 : at[3 * panel] + sums.s4;
        at[4 * panel] = whole || low < at[4 * panel] ? low : at[4 * panel];
        at[5 * panel] = whole || high > at[5 * panel] ? high : at[5 * panel];
    }
    so_far[0] = sums.s1;
    so_far[1] = sums.s2;
    so_far[2] = sums.s3;
    so_far[3] = sums.s4;
    so_far[4] = low;
    so_far[5] = high;
}

T3_HD double combine(int channel, double a, double b) {
    if (channel < 4) return a + b;
    return (channel == 4) == (b < a) ? b : a;
}

T3_HD float moment_value(Statistic kind, const Moments &moments, double low, double high) {
    switch (kind) {
        case Statistic::mean: return static_cast<float>(moments.mean);
        case Statistic::std: return static_cast<float>(moments.std);
        case Statistic::variance: return static_cast<float>(moments.variance);
        case Statistic::skewness: return static_cast<float>(moments.skewness);
        case Statistic::kurtosis: return static_cast<float>(moments.kurtosis);
        case Statistic::energy: return static_cast<float>(moments.energy);
        case Statistic::min: return static_cast<float>(low) + 0.0f;
        case Statistic::max: return static_cast<float>(high) + 0.0f;
        default: return static_cast<float>(high) - static_cast<float>(low);
    }
}

// Moments and extrema of the windows of `tile`, which is one lattice cell, `panel` rows of windows at a time.
T3_BLOCK_FUNCTION void moment_tile(const Block &block, const StatisticsRun &run, const Tile &tile, std::int64_t panel,
                                   unsigned char *shared) {
    const std::int64_t size = run.size, columns = 2 * size - 1, stride = moment_stride(panel);
    double *values = reinterpret_cast<double *>(shared);
    RowRange *ranges = reinterpret_cast<RowRange *>(values + columns * stride);
    if (!find_rows(block, run, tile, ranges)) return;

    const std::int64_t lattice_y = lattice_cell(tile.y0, size) * size, lattice_x = lattice_cell(tile.x0, size) * size;
    const std::int64_t top = lattice_y - (size - 1), left = lattice_x - (size - 1);
    const std::int64_t image_width = run.images.width, image_height = run.images.height;
    const float *image = run.images.image(tile.image);
    const double origin = image[lattice_y * image_width + lattice_x];
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));

    std::int64_t taken = 0;
    for (std::int64_t t0 = tile.y0 - top; t0 < tile.y1 - top; t0 += panel) {
        const std::int64_t t1 = t0 + panel < tile.y1 - top ? t0 + panel : tile.y1 - top, height = t1 - t0;
        if (!any_listed(run, ranges, t0 - (tile.y0 - top), t1 - (tile.y0 - top))) continue;
        block.phase([&](int lane) {
            for (std::int64_t c = lane; c < columns; c += block.lanes()) {
                const std::int64_t x = left + c;
                const float *column = x >= 0 && x < image_width ? image + x : nullptr;
                column_channels(column, image_width, image_height, top, origin, size, t0, t1, taken, panel,
                                values + c * stride);
            }
        });
        taken = t1;
        // Columns left of the lattice column are summed leftwards, the others rightwards; then column u is added to
        // column u + size - 1.
        block.phase([&](int lane) {
            for (std::int64_t i = lane; i < kMomentChannels * height; i += block.lanes()) {
                const int channel = static_cast<int>(i / height);
                double *row = values + channel * panel + i % height;
                for (std::int64_t c = size - 3; c >= 0; --c) {
                    row[c * stride] = combine(channel, row[(c + 1) * stride], row[c * stride]);
                }
                for (std::int64_t c = size; c < columns; ++c) {
                    row[c * stride] = combine(channel, row[(c - 1) * stride], row[c * stride]);
                }
                for (std::int64_t u = 0; u < size - 1; ++u) {
                    double *right = row + (u + size - 1) * stride;
                    *right = combine(channel, row[u * stride], *right);
                }
            }
        });
        // 32 bits: a division takes several times as long in 64.
        const std::uint32_t width = static_cast<std::uint32_t>(tile.width());
        const std::uint32_t windows = static_cast<std::uint32_t>(height) * width;
        block.phase([&](int lane) {
            for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < windows;
                 i += static_cast<std::uint32_t>(block.lanes())) {
                const std::int64_t t = t0 + i / width, x = tile.x0 + i % width;
                const std::int64_t index = output_index(run, tile, ranges, top + t, x);
                if (index < 0) continue;
                const double *at = values + (x - left + size - 1) * stride + t - t0;
                const Moments moments =
                    moments_of(at[0], at[panel], at[2 * panel], at[3 * panel], origin, inverse_count);
                for (int k = 0; k < run.request_count; ++k) {
                    run.out[run.requests[k].slot * run.plane + index] =
                        moment_value(run.requests[k].kind, moments, at[4 * panel], at[5 * panel]);
                }
            }
        });
    }
    // All lanes have looked for listed windows before the next tile overwrites `ranges`.
    if (!run.windows.dense()) block.phase([](int) {});
}

}  // namespace t3ssfast
