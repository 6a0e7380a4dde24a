// Extrema: van Herk's prefixes and suffixes down the columns, spans that double along the rows.
#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/statistics/families.h"

namespace t3ssfast::cpu {
namespace {

// Rows and columns of windows in a tile.
constexpr i64 kExtremaTile = 256;

struct ExtremaScratch {
    std::vector<float> gathered, memory;
};

T3_ALWAYS_INLINE float smaller(float a, float b) { return b < a ? b : a; }
T3_ALWAYS_INLINE float larger(float a, float b) { return b > a ? b : a; }

// From the extrema of single columns to those of `size` columns side by side: spans double until two of them
// cover the window. Exact, as an extremum does not mind counting a pixel twice.
T3_ALWAYS_INLINE void widen(float *low, float *high, i64 columns, i64 size) {
    i64 span = 1, left = columns;
    while (2 * span <= size) {
        left -= span;
        for (i64 x = 0; x < left; ++x) {
            low[x] = smaller(low[x], low[x + span]);
            high[x] = larger(high[x], high[x + span]);
        }
        span *= 2;
    }
    const i64 rest = size - span;
    if (rest == 0) return;
    left -= rest;
    for (i64 x = 0; x < left; ++x) {
        low[x] = smaller(low[x], low[x + rest]);
        high[x] = larger(high[x], high[x + rest]);
    }
}

// Extrema of the windows of one tile, at most `size` rows of them (van Herk: from row size - 1 upwards, and from the
// next row downwards), written row by row to every plane asked for.
T3_SIMD_CLONES void extrema_of_rows(const float *image, i64 stride, i64 size, i64 rows, i64 columns, float *memory,
                                    float *const *low_out, float *const *high_out, float *const *range_out,
                                    int low_count, int high_count, int range_count, i64 out_stride) {
    const i64 pixels = columns + size - 1;
    float *low = memory, *high = low + pixels, *low_row = high + pixels, *high_row = low_row + pixels;
    float *low_above = high_row + pixels, *high_above = low_above + size * pixels;
    // Window t covers rows t .. size - 1 of the upper block, then size .. t + size - 1.
    for (i64 t = size - 1; t >= 0; --t) {
        const float *__restrict source = image + t * stride;
        float *__restrict low_target = low_above + t * pixels;
        float *__restrict high_target = high_above + t * pixels;
        const float *__restrict low_next = t == size - 1 ? source : low_target + pixels;
        const float *__restrict high_next = t == size - 1 ? source : high_target + pixels;
        for (i64 x = 0; x < pixels; ++x) {
            low_target[x] = smaller(source[x], low_next[x]);
            high_target[x] = larger(source[x], high_next[x]);
        }
    }
    for (i64 t = 0; t < rows; ++t) {
        const float *__restrict low_upper = low_above + t * pixels;
        const float *__restrict high_upper = high_above + t * pixels;
        if (t == 0) {
            std::copy(low_upper, low_upper + pixels, low_row);
            std::copy(high_upper, high_upper + pixels, high_row);
        } else {
            const float *__restrict source = image + (t + size - 1) * stride;
            if (t == 1) {
                std::copy(source, source + pixels, low);
                std::copy(source, source + pixels, high);
            }
            for (i64 x = 0; x < pixels; ++x) {
                low[x] = smaller(low[x], source[x]);
                high[x] = larger(high[x], source[x]);
                low_row[x] = smaller(low[x], low_upper[x]);
                high_row[x] = larger(high[x], high_upper[x]);
            }
        }
        widen(low_row, high_row, pixels, size);
        // Adding +0 turns -0.0 into 0.0: which of the two equal zeros was met first must not show.
        for (int k = 0; k < low_count; ++k) {
            for (i64 x = 0; x < columns; ++x) low_out[k][t * out_stride + x] = low_row[x] + 0.0f;
        }
        for (int k = 0; k < high_count; ++k) {
            for (i64 x = 0; x < columns; ++x) high_out[k][t * out_stride + x] = high_row[x] + 0.0f;
        }
        for (int k = 0; k < range_count; ++k) {
            for (i64 x = 0; x < columns; ++x) range_out[k][t * out_stride + x] = high_row[x] - low_row[x];
        }
    }
}

}  // namespace

void extrema(const Images &images, i64 size, const ExtremaPlanes &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const i64 rows = std::min(size, kExtremaTile);
    const TileGrid grid(images, size, windows, rows, kExtremaTile, 0);
    parallel_tasks<ExtremaScratch>(grid.count(), threads, [&](ExtremaScratch &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        const i64 pixels = tile.width() + size - 1;
        scratch.memory.resize(static_cast<std::size_t>((2 * size + 4) * pixels));
        std::vector<float *> low, high, range;
        for (i64 slot : planes.low) low.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.high) high.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.range) range.push_back(out.data + slot * out.plane);
        extrema_of_rows(images.image(tile.image) + tile.y0 * images.width + tile.x0, images.width, size,
                        tile.height(), tile.width(), scratch.memory.data(), low.data(), high.data(), range.data(),
                        static_cast<int>(low.size()), static_cast<int>(high.size()),
                        static_cast<int>(range.size()), out.stride);
        for (const std::vector<i64> *slots : {&planes.low, &planes.high, &planes.range}) {
            for (i64 slot : *slots) output.close(tile, out, slot);
        }
    });
}

}  // namespace t3ssfast::cpu
