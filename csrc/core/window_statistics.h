// What the block algorithms of window_statistics share (core/moment_strip.h, core/order_tile.h): templates over a Block
// (core/block.h), which the CUDA kernels run and tests run on the host. `shared` is the block's shared memory,
// `workspace` its part of device memory.
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
    double inverse_count;  // of the pixels of a window
    BlockRequest requests[kMaxRequests];
    int request_count;
    // Lowered to the index of the first NaN or Inf; null where the pixels are known to be finite.
    unsigned long long *first_nonfinite;
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
    run.inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    run.plane = windows.dense() ? images.count * run.windows_y * run.windows_x : windows.count;
    return run;
}

T3_HD void lower_to(unsigned long long *least, std::int64_t index) {
    const unsigned long long value = static_cast<unsigned long long>(index);
#if defined(__CUDA_ARCH__)
    atomicMin(least, value);
#else
    if (value < *least) *least = value;
#endif
}

// Range of window list entries in one row of a tile; kept in shared memory.
struct RowRange {
    std::int64_t begin, end;
};

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

// Whether windows are listed in rows [begin, end) of a tile.
T3_HD bool any_listed(const StatisticsRun &run, const RowRange *ranges, std::int64_t begin, std::int64_t end) {
    if (run.windows.dense()) return true;
    for (std::int64_t t = begin; t < end; ++t)
        if (ranges[t].begin < ranges[t].end) return true;
    return false;
}

}  // namespace t3ssfast
