// Block algorithms of window_statistics, as templates over a Block (core/block.h): what the CUDA kernels run, testable
// on the host. `shared` is the block's shared memory, `workspace` its part of device memory.
#pragma once

#include "core/block.h"
#include "core/moments.h"
#include "core/order_statistics.h"
#include "core/statistic.h"
#include "core/window.h"

namespace t3ssfast {

struct BlockRequest {
    Statistic kind;
    std::int64_t slot;  // plane of the output
    double fraction;
};

// Requests are a kernel argument passed by value, which bounds their number; longer lists take several launches.
constexpr int kMaxRequests = 16;

struct StatisticsRun {
    ImageStack<const float> images;
    std::int64_t size, windows_y, windows_x;
    WindowList windows;
    float *out;
    std::int64_t plane;  // number of output windows: the distance between planes of the output
    BlockRequest requests[kMaxRequests];
    int request_count;
};

// Grid of tiles; it starts `lead` windows before the first window (see core/moments.h).
struct BlockGrid {
    std::int64_t height, width, lead, rows, columns, count;

    T3_HD Tile tile(std::int64_t i, std::int64_t windows_y, std::int64_t windows_x) const {
        const std::int64_t row = i / columns;
        const std::int64_t y = (row % rows) * height - lead, x = (i % columns) * width - lead;
        return {row / rows, y > 0 ? y : 0, y + height < windows_y ? y + height : windows_y, x > 0 ? x : 0,
                x + width < windows_x ? x + width : windows_x};
    }
};

inline BlockGrid block_grid(const StatisticsRun &run, std::int64_t height, std::int64_t width, std::int64_t lead) {
    const std::int64_t rows = (run.windows_y - 1 + lead) / height + 1;
    const std::int64_t columns = (run.windows_x - 1 + lead) / width + 1;
    return {height, width, lead, rows, columns, run.images.count * rows * columns};
}

// Order statistics are computed from ranks, all others from power sums and extrema.
inline bool is_order(Statistic kind) { return kind == Statistic::median || kind == Statistic::quantile; }

inline StatisticsRun statistics_run(ImageStack<const float> images, std::int64_t size, WindowList windows, float *out) {
    StatisticsRun run{};
    run.images = images;
    run.size = size;
    run.windows_y = valid_windows(images.height, size);
    run.windows_x = valid_windows(images.width, size);
    run.windows = windows;
    run.out = out;
    run.plane = windows.dense() ? images.count * run.windows_y * run.windows_x : windows.count;
    return run;
}

// Range of window list entries in one row of a tile; kept in shared memory.
struct RowRange {
    std::int64_t begin, end;
};

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

// Windows per tile of the order statistics; a lane slides down one column.
constexpr std::int64_t kOrderRows = 64, kOrderColumns = 128;
constexpr int kDigitBits = 4, kDigits = 1 << kDigitBits;

T3_HD std::int64_t order_pixels(std::int64_t size) { return (kOrderRows + size - 1) * (kOrderColumns + size - 1); }

inline BlockGrid order_grid(const StatisticsRun &run) { return block_grid(run, kOrderRows, kOrderColumns, 0); }

// Pixels of each lane while a tile is sorted.
T3_HD std::int64_t lane_share(std::int64_t count, int lanes) { return (count + lanes - 1) / lanes; }

// Pixels of a tile, twice for the sort, and their ranks; each lane has a full share.
T3_HD std::int64_t order_capacity(std::int64_t size, int lanes) {
    return lane_share(order_pixels(size), lanes) * lanes;
}
T3_HD std::int64_t order_workspace_bytes(std::int64_t size, int lanes) {
    return order_capacity(size, lanes) * 5 * static_cast<std::int64_t>(sizeof(std::uint32_t));
}

T3_HD std::int64_t order_shared_bytes(int lanes) {
    return (kDigits * lanes + kDigits) * static_cast<std::int64_t>(sizeof(std::uint32_t)) +
           (kOrderRows + 1) * static_cast<std::int64_t>(sizeof(RowRange));
}

// Finds the listed windows in each row of the tile; false if there are none. `ranges` has one more entry than the tile
// rows.
T3_BLOCK_FUNCTION bool find_rows(const Block &block, const StatisticsRun &run, const Tile &tile, RowRange *ranges) {
    if (run.windows.dense()) return true;
    const std::int64_t rows = tile.height();
    block.phase([&](int lane) {
        for (std::int64_t t = lane; t < rows; t += block.lanes()) {
            const std::int64_t row = (tile.image * run.windows_y + tile.y0 + t) * run.windows_x;
            ranges[t] = {lower_bound(run.windows, row + tile.x0), lower_bound(run.windows, row + tile.x1)};
        }
    });
    block.phase([&](int lane) {
        if (lane != 0) return;
        std::int64_t found = 0;
        for (std::int64_t t = 0; t < rows; ++t) found += ranges[t].end - ranges[t].begin;
        ranges[rows] = {0, found};
    });
    const bool any = ranges[rows].end > 0;
    block.phase([](int) {});  // all lanes have read `ranges` before the next tile overwrites it
    return any;
}

// Index of window (y, x) in a plane of the output; -1 if it is not listed.
T3_HD std::int64_t output_index(const StatisticsRun &run, const Tile &tile, const RowRange *ranges, std::int64_t y,
                                std::int64_t x) {
    const std::int64_t index = (tile.image * run.windows_y + y) * run.windows_x + x;
    if (run.windows.dense()) return index;
    const RowRange range = ranges[y - tile.y0];
    const WindowList row{run.windows.data + range.begin, range.end - range.begin};
    const std::int64_t i = lower_bound(row, index);
    return i < row.count && row.data[i] == index ? range.begin + i : -1;
}

// --------------------------------------------------------------------------------- moments and extrema

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

// Whether windows are listed in rows [begin, end) of a tile.
T3_HD bool any_listed(const StatisticsRun &run, const RowRange *ranges, std::int64_t begin, std::int64_t end) {
    if (run.windows.dense()) return true;
    for (std::int64_t t = begin; t < end; ++t)
        if (ranges[t].begin < ranges[t].end) return true;
    return false;
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

// ------------------------------------------------------------------------------------- order statistics

// Where pair `i` of the order is kept during the sort: every lane has its own run of `share` pairs, and the runs are
// interleaved, so that neighbouring lanes read neighbouring addresses.
T3_HD std::uint32_t interleaved(std::uint32_t i, std::uint32_t share, std::uint32_t lanes) {
    return i % share * lanes + i / share;
}

// A pixel of a tile: its value as a key, and its coordinates y << 16 | x. Read and written at once.
struct alignas(8) KeyedPixel {
    std::uint32_t key, yx;
};

// Stable radix sort of interleaved pixels by key, four bits per pass. The number of passes is even, so the result is in
// `pixels`, in order and not interleaved.
T3_BLOCK_FUNCTION void sort_block(const Block &block, KeyedPixel *pixels, KeyedPixel *spare, std::int64_t count,
                                  std::uint32_t *bins) {
    const int lanes = block.lanes();
    const std::int64_t share = lane_share(count, lanes);
    std::uint32_t *totals = bins + kDigits * lanes;
    for (int shift = 0; shift < 32; shift += kDigitBits) {
        const bool last = shift + kDigitBits == 32;
        block.phase([&](int lane) {
            for (int digit = 0; digit < kDigits; ++digit) bins[digit * lanes + lane] = 0;
            const std::int64_t remaining = count - lane * share, pairs = remaining < share ? remaining : share;
            for (std::int64_t i = 0; i < pairs; ++i) {
                ++bins[(pixels[i * lanes + lane].key >> shift & (kDigits - 1)) * lanes + lane];
            }
        });
        block.phase([&](int lane) {
            for (int digit = lane; digit < kDigits; digit += lanes) {
                std::uint32_t sum = 0;
                for (int i = 0; i < lanes; ++i) {
                    const std::uint32_t length = bins[digit * lanes + i];
                    bins[digit * lanes + i] = sum;
                    sum += length;
                }
                totals[digit] = sum;
            }
        });
        block.phase([&](int lane) {
            std::uint32_t base = 0;
            for (int digit = 0; digit < kDigits; ++digit) {
                bins[digit * lanes + lane] += base;
                base += totals[digit];
            }
            const std::int64_t remaining = count - lane * share, pairs = remaining < share ? remaining : share;
            for (std::int64_t i = 0; i < pairs; ++i) {
                const KeyedPixel pixel = pixels[i * lanes + lane];
                const std::uint32_t rank = bins[(pixel.key >> shift & (kDigits - 1)) * lanes + lane]++;
                const std::uint32_t to =
                    last ? rank
                         : interleaved(rank, static_cast<std::uint32_t>(share), static_cast<std::uint32_t>(lanes));
                spare[to] = pixel;
            }
        });
        KeyedPixel *const previous = pixels;
        pixels = spare;
        spare = previous;
    }
}

// The pixels under a tile in ascending order, and the rank of each pixel.
struct RankedPixels {
    const KeyedPixel *by_rank;
    const std::uint32_t *ranks;  // (rows, columns)
    std::int64_t columns, count;

    T3_HD bool inside(std::int64_t rank, std::uint32_t top, std::uint32_t left, std::uint32_t size) const {
        const std::uint32_t yx = by_rank[rank].yx;
        return (yx >> 16) - top < size && (yx & 0xFFFFu) - left < size;
    }
};

// Slides down one column of windows, row by row, like csrc/cpu/window_statistics/order_rank_kernel.h. The pivot is the
// rank of the previous result; `below` counts the window's ranks below the pivot.
template <typename Write>
T3_HD void slide_column(const RankedPixels &pixels, std::int64_t column, std::int64_t rows, std::int64_t size,
                        const QuantilePosition &quantile, double fraction, const Write &write) {
    std::int64_t pivot = static_cast<std::int64_t>(fraction * static_cast<double>(pixels.count - 1));
    std::int64_t below = 0;
    const auto count_row = [&](std::int64_t y) {
        const std::uint32_t *row = pixels.ranks + y * pixels.columns + column;
        std::int64_t lower = 0;
        for (std::int64_t x = 0; x < size; ++x) lower += row[x] < pivot;
        return lower;
    };
    for (std::int64_t y = 0; y < size; ++y) below += count_row(y);
    const std::uint32_t left = static_cast<std::uint32_t>(column), edge = static_cast<std::uint32_t>(size);
    for (std::int64_t t = 0; t < rows; ++t) {
        const std::uint32_t top = static_cast<std::uint32_t>(t);
        if (t > 0) below += count_row(t + size - 1) - count_row(t - 1);
        while (below > quantile.lower) {
            --pivot;
            below -= pixels.inside(pivot, top, left, edge);
        }
        while (below < quantile.lower || !pixels.inside(pivot, top, left, edge)) {
            below += pixels.inside(pivot, top, left, edge);
            ++pivot;
        }
        const float lower = key_to_float(pixels.by_rank[pivot].key);
        float upper = lower;
        if (quantile.needs_upper) {
            std::int64_t next = pivot + 1;
            while (!pixels.inside(next, top, left, edge)) ++next;
            upper = key_to_float(pixels.by_rank[next].key);
        }
        write(t, quantile_value(quantile, lower, upper));
    }
}

T3_BLOCK_FUNCTION void order_tile(const Block &block, const StatisticsRun &run, const Tile &tile, unsigned char *shared,
                                  std::uint32_t *workspace) {
    RowRange *ranges = reinterpret_cast<RowRange *>(shared);
    std::uint32_t *bins = reinterpret_cast<std::uint32_t *>(ranges + kOrderRows + 1);
    if (!find_rows(block, run, tile, ranges)) return;

    const std::int64_t size = run.size, rows = tile.height() + size - 1, columns = tile.width() + size - 1;
    const std::int64_t count = rows * columns, capacity = order_capacity(size, block.lanes());
    const std::uint32_t lanes = static_cast<std::uint32_t>(block.lanes());
    const std::uint32_t share = static_cast<std::uint32_t>(lane_share(count, block.lanes()));
    KeyedPixel *by_rank = reinterpret_cast<KeyedPixel *>(workspace), *spare = by_rank + capacity;
    std::uint32_t *ranks = workspace + 4 * capacity;
    const float *corner = run.images.image(tile.image) + tile.y0 * run.images.width + tile.x0;
    block.phase([&](int lane) {
        for (std::int64_t i = lane; i < count; i += block.lanes()) {
            const std::int64_t y = i / columns, x = i % columns;
            const std::uint32_t at = interleaved(static_cast<std::uint32_t>(i), share, lanes);
            by_rank[at] = {float_to_key(corner[y * run.images.width + x]), static_cast<std::uint32_t>(y << 16 | x)};
        }
    });
    sort_block(block, by_rank, spare, count, bins);
    block.phase([&](int lane) {
        for (std::int64_t rank = lane; rank < count; rank += block.lanes()) {
            ranks[(by_rank[rank].yx >> 16) * columns + (by_rank[rank].yx & 0xFFFFu)] = static_cast<std::uint32_t>(rank);
        }
    });
    const RankedPixels pixels{by_rank, ranks, columns, count};
    block.phase([&](int lane) {
        for (int k = 0; k < run.request_count; ++k) {
            const BlockRequest &request = run.requests[k];
            const QuantilePosition quantile =
                quantile_position(size * size, request.fraction, request.kind == Statistic::median);
            float *out = run.out + request.slot * run.plane;
            for (std::int64_t x = lane; x < tile.width(); x += block.lanes()) {
                slide_column(pixels, x, tile.height(), size, quantile, request.fraction,
                             [&](std::int64_t t, float value) {
                                 const std::int64_t at = output_index(run, tile, ranges, tile.y0 + t, tile.x0 + x);
                                 if (at >= 0) out[at] = value;
                             });
            }
        }
    });
}

}  // namespace t3ssfast
