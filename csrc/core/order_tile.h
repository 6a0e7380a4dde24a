// Block algorithm of window_statistics: order statistics of a tile of windows, from the ranks of its pixels.
#pragma once

#include "core/order_statistics.h"
#include "core/window_statistics.h"

namespace t3ssfast {

constexpr int kDigitBits = 4, kDigits = 1 << kDigitBits;

// The memory of a block for tiles of rows x columns windows. With 16-bit ranks it is shared memory alone; with 32-bit
// ranks, keys and ranks are in the block's part of the workspace. The tile does not change results.
template <typename Rank>
struct OrderMemory {
    std::int64_t size, rows, columns;
    int lanes;

    T3_HD std::int64_t pixel_rows() const { return rows + size - 1; }
    T3_HD std::int64_t pixel_columns() const { return columns + size - 1; }
    // Pixels of each lane while a tile is sorted.
    T3_HD static std::int64_t share(std::int64_t count, int lanes) { return (count + lanes - 1) / lanes; }
    T3_HD std::int64_t capacity() const { return share(pixel_rows() * pixel_columns(), lanes) * lanes; }

    // A pixel's number and its packed coordinates are ranks, too.
    T3_HD bool fits_ranks() const {
        constexpr std::int64_t kSide = std::int64_t{1} << (4 * sizeof(Rank));
        return pixel_rows() <= kSide && pixel_columns() <= kSide && capacity() < kSide * kSide;
    }
    // Keys, and twice the ranks.
    T3_HD std::int64_t pixel_bytes() const {
        return capacity() * static_cast<std::int64_t>(sizeof(std::uint32_t) + 2 * sizeof(Rank));
    }
    T3_HD std::int64_t list_bytes() const { return (rows + 1) * static_cast<std::int64_t>(sizeof(RowRange)); }
    // Bins of the sort with one more word for each run of kDigits, totals of the runs and of kDigits runs.
    T3_HD std::int64_t sort_bytes() const {
        const std::int64_t runs = lanes, groups = (runs + kDigits - 1) / kDigits;
        return (runs * (kDigits + 2) + runs + groups) * static_cast<std::int64_t>(sizeof(Rank));
    }
};

// Where pair `i` of the order is kept during the sort: every lane has its own run of `share` pixels, and the runs are
// interleaved, so that neighbouring lanes read neighbouring addresses.
T3_HD std::uint32_t interleaved(std::uint32_t i, std::uint32_t share, std::uint32_t lanes) {
    return i % share * lanes + i / share;
}

// Counts of each digit and lane, replaced by where the lane's first pixel of that digit goes.
template <typename Rank>
struct SortBins {
    Rank *bins, *runs, *groups;
    int lanes;

    // Digit by digit; a run of kDigits bins is followed by two unused ones, against bank conflicts of 16-bit bins.
    T3_HD Rank &at(int i) const { return bins[i + i / kDigits * 2]; }
    T3_HD Rank &of(std::uint32_t digit, int lane) const { return at(static_cast<int>(digit) * lanes + lane); }
};

// Exclusive prefix sums of all bins: every lane sums one run of them.
T3_TYPED_BLOCK_FUNCTION void sum_bins(const Block &block, const SortBins<Type> &bins) {
    const int lanes = block.lanes();
    block.phase([&](int lane) {
        Type sum = 0;
        for (int i = 0; i < kDigits; ++i) sum = static_cast<Type>(sum + bins.at(lane * kDigits + i));
        bins.runs[lane] = sum;
    });
    block.phase([&](int lane) {
        if (lane * kDigits >= lanes) return;
        Type sum = 0;
        for (int i = lane * kDigits; i < lanes && i < (lane + 1) * kDigits; ++i) {
            sum = static_cast<Type>(sum + bins.runs[i]);
        }
        bins.groups[lane] = sum;
    });
    block.phase([&](int lane) {
        Type sum = 0;
        for (int i = 0; i < lane / kDigits; ++i) sum = static_cast<Type>(sum + bins.groups[i]);
        for (int i = lane / kDigits * kDigits; i < lane; ++i) sum = static_cast<Type>(sum + bins.runs[i]);
        for (int i = 0; i < kDigits; ++i) {
            Type &bin = bins.at(lane * kDigits + i);
            const Type count = bin;
            bin = sum;
            sum = static_cast<Type>(sum + count);
        }
    });
}

// Stable radix sort of the numbers 0 .. count - 1 of pixels by their keys, four bits per pass. Digits that all keys
// share are skipped. Returns the array that holds the order, `order` or `spare`; it is not interleaved.
T3_TYPED_BLOCK_FUNCTION Type *sort_block(const Block &block, const std::uint32_t *keys, std::uint32_t varying,
                                         Type *order, Type *spare, std::int64_t count, const SortBins<Type> &bins) {
    const int lanes = block.lanes();
    const std::uint32_t share = static_cast<std::uint32_t>(OrderMemory<Type>::share(count, lanes));
    const std::uint32_t stride = static_cast<std::uint32_t>(lanes), total = static_cast<std::uint32_t>(count);
    // At least one pass, which undoes the interleaving.
    int last = 0;
    for (int shift = 0; shift < 32; shift += kDigitBits) last = varying >> shift & (kDigits - 1) ? shift : last;
    for (int shift = 0; shift <= last; shift += kDigitBits) {
        if (shift < last && (varying >> shift & (kDigits - 1)) == 0) continue;
        const auto for_share = [&](int lane, auto work) {
            const std::uint32_t first = static_cast<std::uint32_t>(lane) * share;
            const std::uint32_t mine = first < total ? (total - first < share ? total - first : share) : 0;
            for (std::uint32_t i = 0; i < mine; ++i) {
                const Type pixel = order[i * stride + static_cast<std::uint32_t>(lane)];
                work(pixel, keys[pixel] >> shift & (kDigits - 1));
            }
        };
        block.phase([&](int lane) {
            for (std::uint32_t digit = 0; digit < kDigits; ++digit) bins.of(digit, lane) = 0;
            for_share(lane, [&](Type, std::uint32_t digit) { ++bins.of(digit, lane); });
        });
        sum_bins<Type>(block, bins);
        block.phase([&](int lane) {
            for_share(lane, [&](Type pixel, std::uint32_t digit) {
                const std::uint32_t to = bins.of(digit, lane)++;
                spare[shift == last ? to : interleaved(to, share, stride)] = pixel;
            });
        });
        Type *const previous = order;
        order = spare;
        spare = previous;
    }
    return order;
}

// Two ranks at an address that is aligned to 4 bytes.
T3_HD std::uint32_t load_pair(const std::uint16_t *aligned) {
#if defined(__CUDA_ARCH__)
    return *reinterpret_cast<const std::uint32_t *>(aligned);
#else
    std::uint32_t pair;
    memcpy(&pair, aligned, sizeof(pair));
    return pair;
#endif
}

// The pixels under a tile in ascending order, as coordinates y << kShift | x, and the rank of each pixel.
template <typename Rank>
struct RankedPixels {
    static constexpr int kShift = 4 * sizeof(Rank);

    const std::uint32_t *keys;    // (rows, columns)
    const Rank *by_rank, *ranks;  // (count), (rows, columns)
    std::int64_t columns, count;

    T3_HD bool inside(std::int64_t rank, std::uint32_t top, std::uint32_t left, std::uint32_t size) const {
        const std::uint32_t yx = by_rank[rank];
        return (yx >> kShift) - top < size && (yx & ((1u << kShift) - 1)) - left < size;
    }
    T3_HD float value(std::int64_t rank) const {
        const std::uint32_t yx = by_rank[rank];
        return key_to_float(keys[(yx >> kShift) * columns + (yx & ((1u << kShift) - 1))]);
    }
};

// How many of `count` ranks from ranks[first] on are below a pivot. Ranks of 16 bits are read in pairs.
T3_HD int count_below(const std::uint32_t *ranks, std::int64_t first, int count, int pivot) {
    int below = 0;
    for (int i = 0; i < count; ++i) below += static_cast<int>(ranks[first + i]) < pivot;
    return below;
}

T3_HD int count_below(const std::uint16_t *ranks, std::int64_t first, int count, int pivot) {
    int below = 0, i = 0;
    if (first % 2 != 0) below += static_cast<int>(ranks[first + i++]) < pivot;
    const std::uint16_t *const pairs = ranks + first;
    for (; i + 1 < count; i += 2) {
        const std::uint32_t pair = load_pair(pairs + i);
        below += static_cast<int>(pair & 0xFFFFu) < pivot;
        below += static_cast<int>(pair >> 16) < pivot;
    }
    if (i < count) below += static_cast<int>(pairs[i]) < pivot;
    return below;
}

// Slides down one column of windows, row by row, like csrc/cpu/window_statistics/order_rank_kernel.h. The pivot is the
// rank of the previous result; `below` counts the window's ranks below the pivot.
template <typename Rank, typename Write>
T3_HD void slide_column(const RankedPixels<Rank> &pixels, std::int64_t column, std::int64_t begin, std::int64_t end,
                        std::int64_t size, const QuantilePosition &quantile, double fraction, const Write &write) {
    int pivot = static_cast<int>(fraction * static_cast<double>(pixels.count - 1));
    std::int64_t below = 0;
    const auto count_row = [&](std::int64_t y) {
        return count_below(pixels.ranks, y * pixels.columns + column, static_cast<int>(size), pivot);
    };
    for (std::int64_t y = begin; y < begin + size; ++y) below += count_row(y);
    const std::uint32_t left = static_cast<std::uint32_t>(column), edge = static_cast<std::uint32_t>(size);
    for (std::int64_t t = begin; t < end; ++t) {
        const std::uint32_t top = static_cast<std::uint32_t>(t);
        if (t > begin) below += count_row(t + size - 1) - count_row(t - 1);
        while (below > quantile.lower) {
            --pivot;
            below -= pixels.inside(pivot, top, left, edge);
        }
        while (below < quantile.lower || !pixels.inside(pivot, top, left, edge)) {
            below += pixels.inside(pivot, top, left, edge);
            ++pivot;
        }
        const float lower = pixels.value(pivot);
        float upper = lower;
        if (quantile.needs_upper) {
            int next = pivot + 1;
            while (!pixels.inside(next, top, left, edge)) ++next;
            upper = pixels.value(next);
        }
        write(t, quantile_value(quantile, lower, upper));
    }
}

// Order statistics of the windows of `tile`. `memory` holds the pixels, `shared` what lanes exchange during the sort.
// Every column of windows is divided among as many lanes as there are.
T3_TYPED_BLOCK_FUNCTION void order_tile(const Block &block, const StatisticsRun &run, const OrderMemory<Type> &memory,
                                        const Tile &tile, unsigned char *shared, unsigned char *pixel_memory) {
    const int lanes = block.lanes();
    RowRange *ranges = reinterpret_cast<RowRange *>(shared);
    Type *const bin_memory = reinterpret_cast<Type *>(shared + memory.list_bytes());
    const SortBins<Type> bins{bin_memory, bin_memory + lanes * (kDigits + 2), bin_memory + lanes * (kDigits + 3),
                              lanes};
    if (!find_rows(block, run, tile, ranges)) return;

    const std::int64_t size = run.size, rows = tile.height() + size - 1, columns = tile.width() + size - 1;
    const std::int64_t count = rows * columns;
    const std::uint32_t share = static_cast<std::uint32_t>(OrderMemory<Type>::share(count, lanes));
    std::uint32_t *const keys = reinterpret_cast<std::uint32_t *>(pixel_memory);
    Type *const numbers = reinterpret_cast<Type *>(keys + memory.capacity()), *const spare =
                                                                                  numbers + memory.capacity();
    const float *const corner = run.images.image(tile.image) + tile.y0 * run.images.width + tile.x0;
    const std::uint32_t first_key = float_to_key(*corner);
    // The bits in which keys differ from the first one, by lanes; the bins are not in use yet.
    std::uint32_t *const varying_bits = reinterpret_cast<std::uint32_t *>(bin_memory);
    block.phase([&](int lane) {
        std::uint32_t varying = 0;
        for (std::int64_t y = 0; y < rows; ++y) {
            for (std::int64_t x = lane; x < columns; x += lanes) {
                const std::uint32_t key = float_to_key(corner[y * run.images.width + x]);
                const std::uint32_t i = static_cast<std::uint32_t>(y * columns + x);
                keys[i] = key;
                numbers[interleaved(i, share, static_cast<std::uint32_t>(lanes))] = static_cast<Type>(i);
                varying |= key ^ first_key;
            }
        }
        if (lane < columns) varying_bits[lane] = varying;
    });
    std::uint32_t varying = 0;
    for (std::int64_t i = 0; i < columns && i < lanes; ++i) varying |= varying_bits[i];
    block.phase([](int) {});  // all lanes have read `varying_bits`
    Type *const by_rank = sort_block<Type>(block, keys, varying, numbers, spare, count, bins);
    Type *const ranks = by_rank == numbers ? spare : numbers;
    block.phase([&](int lane) {
        for (std::int64_t rank = lane; rank < count; rank += lanes) {
            const std::uint32_t i = by_rank[rank], width = static_cast<std::uint32_t>(columns);
            ranks[i] = static_cast<Type>(rank);
            by_rank[rank] = static_cast<Type>(i / width << RankedPixels<Type>::kShift | i % width);
        }
    });
    const RankedPixels<Type> pixels{keys, by_rank, ranks, columns, count};
    const int width = static_cast<int>(tile.width()), height = static_cast<int>(tile.height());
    const int parts = lanes > width ? lanes / width : 1, part_rows = (height + parts - 1) / parts;
    block.phase([&](int lane) {
        for (int i = lane; i < width * parts; i += lanes) {
            const int x = i % width, begin = i / width * part_rows;
            const int end = begin + part_rows < height ? begin + part_rows : height;
            if (begin >= end || !any_listed(run, ranges, begin, end)) continue;
            for (int k = 0; k < run.request_count; ++k) {
                const BlockRequest &request = run.requests[k];
                const QuantilePosition quantile =
                    quantile_position(size * size, request.fraction, request.kind == Statistic::median);
                float *out = run.out + request.slot * run.plane;
                slide_column(pixels, x, begin, end, size, quantile, request.fraction, [&](std::int64_t t, float value) {
                    const std::int64_t at = output_index(run, tile, ranges, tile.y0 + t, tile.x0 + x);
                    if (at >= 0) out[at] = value;
                });
            }
        }
    });
}

}  // namespace t3ssfast
