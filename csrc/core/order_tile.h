// Block algorithm of window_statistics: order statistics of a tile of windows, from the ranks of its pixels.
#pragma once

#include "core/order_statistics.h"
#include "core/window_statistics.h"

namespace t3ssfast {

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
