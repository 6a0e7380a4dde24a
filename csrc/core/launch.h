// What a block-wise run of a family looks like: parameters, tiles, and the memory that a block needs.
#pragma once

#include "core/element.h"
#include "core/moments.h"
#include "core/order.h"
#include "core/statistic.h"
#include "core/window.h"

namespace t3ssfast {

// ------------------------------------------------------------------------------------------ statistics

struct BlockRequest {
    Statistic kind;
    std::int64_t slot;  // plane of the output
    double fraction;
};

// Requests travel to the device by value, so their number is bounded; longer lists take several launches.
constexpr int kMaxRequests = 16;

struct StatisticsRun {
    ImageStack<const float> images;
    std::int64_t size, windows_y, windows_x;
    WindowList windows;
    float *out;
    std::int64_t plane;  // windows written, the distance of two planes of the output
    BlockRequest requests[kMaxRequests];
    int request_count;
};

// Tiles of a run; the grid starts `lead` windows before the first one (see core/moments.h).
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

// Order statistics come from ranks, all others from power sums and extrema.
inline bool is_order(Statistic kind) { return kind == Statistic::median || kind == Statistic::quantile; }

inline StatisticsRun statistics_run(ImageStack<const float> images, std::int64_t size, WindowList windows,
                                    float *out) {
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

// Where the list's entries for the rows of a tile lie; kept beside the tile's other memory.
struct RowRange {
    std::int64_t begin, end;
};

// Power sums (4) and extrema (2) of each row of a lattice cell's pixels.
constexpr int kMomentChannels = 6;

T3_HD std::int64_t moment_block_bytes(std::int64_t size, std::int64_t panel) {
    // One more value a row keeps lanes that work on neighbouring rows off the same memory bank.
    return (2 * size - 1) * (kMomentChannels * panel + 1) * static_cast<std::int64_t>(sizeof(double)) +
           (size + 1) * static_cast<std::int64_t>(sizeof(RowRange));
}

inline BlockGrid moment_grid(const StatisticsRun &run) { return block_grid(run, run.size, run.size, run.size - 1); }

// Windows in a tile of the order statistics: a lane slides down one column.
constexpr std::int64_t kOrderRows = 64, kOrderColumns = 128;
constexpr int kDigitBits = 4, kDigits = 1 << kDigitBits;

T3_HD std::int64_t order_pixels(std::int64_t size) { return (kOrderRows + size - 1) * (kOrderColumns + size - 1); }

inline BlockGrid order_grid(const StatisticsRun &run) { return block_grid(run, kOrderRows, kOrderColumns, 0); }

// Keys and places, twice for the sort, and the ranks.
T3_HD std::int64_t order_workspace_bytes(std::int64_t size) {
    return order_pixels(size) * 5 * static_cast<std::int64_t>(sizeof(std::uint32_t));
}

T3_HD std::int64_t order_shared_bytes(int lanes) {
    return (kDigits * lanes + kDigits) * static_cast<std::int64_t>(sizeof(std::uint32_t)) +
           (kOrderRows + 1) * static_cast<std::int64_t>(sizeof(RowRange));
}

// ---------------------------------------------------------------------------------------------- unfold

struct UnfoldRun {
    ImageStack<const float> images;
    std::int64_t size, windows_y, windows_x;
    WindowList windows;
    std::int64_t count;
    bool zscore;
    void *out;
};

inline UnfoldRun unfold_run(ImageStack<const float> images, std::int64_t size, bool zscore, WindowList windows,
                            void *out) {
    const std::int64_t windows_y = valid_windows(images.height, size), windows_x = valid_windows(images.width, size);
    const std::int64_t count = windows.dense() ? images.count * windows_y * windows_x : windows.count;
    return {images, size, windows_y, windows_x, windows, count, zscore, out};
}

T3_HD std::int64_t unfold_shared_bytes(int lanes) { return 2 * lanes * static_cast<std::int64_t>(sizeof(double)); }

}  // namespace t3ssfast
