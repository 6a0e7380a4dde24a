// Order statistics: tasks, workspace, and the choice of the kernel by window size.
#include "cpu/window_statistics/order_statistics.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#if defined(__x86_64__)
#if !defined(__clang__)
// False positive of gcc 12 in its own header.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

#include "cpu/simd.h"

#define T3_SIMD_KERNEL "cpu/window_statistics/order_statistics_kernels.h"
#include "cpu/simd_dispatch.h"

namespace t3ssfast::cpu {
namespace {

// Edges of a tile in windows.
constexpr i64 kRankTile = 128;
constexpr i64 kMaskedTile = 48;
// Entries past the last one that vector loads and stores may touch.
constexpr i64 kSlack = 64;

template <typename T>
T *grown(std::vector<T> &memory, i64 count) {
    const std::size_t needed = static_cast<std::size_t>(count + kSlack);
    if (memory.size() < needed) memory.resize(needed);
    return memory.data();
}

// The same, aligned to a cache line.
template <typename T>
T *aligned(std::vector<T> &memory, i64 count) {
    constexpr std::size_t kLine = 64;
    const std::size_t needed = static_cast<std::size_t>(count + kSlack) + kLine / sizeof(T);
    if (memory.size() < needed) memory.resize(needed);
    void *start = memory.data();
    std::size_t space = memory.size() * sizeof(T);
    return static_cast<T *>(std::align(kLine, kLine, start, space));
}

class HistogramWorkspace : public StatisticTasks::Workspace {
public:
    std::vector<float> gathered;

    void run(const OrderStatisticTile &tile) { T3_SIMD_DISPATCH(order_statistics_by_histogram, tile, buffers(tile)); }

private:
    HistogramBuffers buffers(const OrderStatisticTile &tile) {
        const i64 high = tile.rows + tile.size - 1, wide = tile.columns + tile.size - 1, pixels = high * wide;
        first_threshold_.resize(static_cast<std::size_t>(tile.plane_count));
        const i64 padded = pixels + 1024;
        return {grown(list_, pixels),
                grown(spare_, pixels),
                grown(buckets_, high * (wide + kSlack)),
                grown(y_, pixels),
                grown(x_, pixels),
                grown(values_, pixels),
                aligned(band_y_, padded),
                aligned(band_x_, padded),
                grown(band_values_, padded),
                aligned(counts_, wide * 320),
                aligned(remaining_, kHistogramTile * 32),
                grown(remaining_index_, kHistogramTile),
                grown(bucket_of_window_, kHistogramTile),
                first_threshold_.data()};
    }

    std::vector<std::uint64_t> list_, spare_;
    std::vector<std::int8_t> buckets_;
    std::vector<std::uint8_t> y_, x_, band_y_, band_x_, counts_, bucket_of_window_;
    std::vector<float> values_, band_values_;
    std::vector<std::int16_t> remaining_;
    std::vector<std::uint16_t> remaining_index_;
    std::vector<int> first_threshold_;
};

class RankWorkspace : public StatisticTasks::Workspace {
public:
    std::vector<float> gathered;

    void run(const OrderStatisticTile &tile) { T3_SIMD_DISPATCH(order_statistics_by_rank, tile, buffers(tile)); }

private:
    RankBuffers buffers(const OrderStatisticTile &tile) {
        const i64 high = tile.rows + tile.size - 1, wide = tile.columns + tile.size - 1, pixels = high * wide;
        // Ranks beside the tile are above every pivot.
        ranks_.assign(static_cast<std::size_t>(high * rank_stride(wide)), std::numeric_limits<std::int32_t>::max());
        return {grown(pairs_, pixels),
                grown(spare_, pixels),
                ranks_.data(),
                grown(y_, pixels + 2 * kRankPad),
                grown(x_, pixels + 2 * kRankPad),
                grown(values_, pixels)};
    }

    std::vector<std::uint64_t> pairs_, spare_;
    std::vector<std::int32_t> ranks_;
    std::vector<std::uint16_t> y_, x_;
    std::vector<float> values_;
};

// Edge of a tile: smaller with a window list.
i64 tile_edge(i64 windows, const WindowList &list, i64 dense) {
    return even_split(windows, list.dense() ? dense : kMaskedTile);
}

template <typename Scratch, i64 kTile>
class OrderStatisticTasks : public StatisticTasks {
public:
    OrderStatisticTasks(const Images &images, i64 size, std::vector<OrderPlane> planes, i64 plane_count,
                        const WindowList &windows, const Output &output)
        : images_(images),
          size_(size),
          planes_(std::move(planes)),
          plane_count_(plane_count),
          output_(output),
          grid_(images, size, windows, tile_edge(valid_windows(images.height, size), windows, kTile),
                tile_edge(valid_windows(images.width, size), windows, kTile), 0) {
        // Measured costs in units of one sorted pixel: windows of small tiles share few pixels.
        constexpr i64 kTileCost = 5000, kWindowCost = 3;
        grid_.merge(kTile, [size](const Tile &tile) {
            return kTileCost + (tile.height() + size - 1) * (tile.width() + size - 1) +
                   kWindowCost * tile.height() * tile.width();
        });
    }

    i64 tasks() const override { return grid_.count(); }

    std::unique_ptr<Workspace> make_workspace() const override { return std::make_unique<Scratch>(); }

    void run(Workspace &workspace, i64 task) const override {
        Scratch &scratch = static_cast<Scratch &>(workspace);
        const Tile tile = grid_[task];
        const TileOutput out = output_.begin_tile(tile, plane_count_, scratch.gathered);
        scratch.run({images_.image(tile.image) + tile.y0 * images_.width + tile.x0, images_.width, size_, tile.height(),
                     tile.width(), planes_.data(), static_cast<int>(planes_.size()), out});
        for (const OrderPlane &plane : planes_) output_.finish_tile(tile, out, plane.slot);
    }

private:
    Images images_;
    i64 size_;
    std::vector<OrderPlane> planes_;
    i64 plane_count_;
    Output output_;
    TileGrid grid_;
};

}  // namespace

std::unique_ptr<StatisticTasks> order_statistic_tasks(const Images &images, i64 size, std::vector<OrderPlane> planes,
                                                      i64 plane_count, const WindowList &windows,
                                                      const Output &output) {
    if (size <= kMaxHistogramSize) {
        return std::make_unique<OrderStatisticTasks<HistogramWorkspace, kHistogramTile>>(
            images, size, std::move(planes), plane_count, windows, output);
    }
    return std::make_unique<OrderStatisticTasks<RankWorkspace, kRankTile>>(images, size, std::move(planes), plane_count,
                                                                           windows, output);
}

}  // namespace t3ssfast::cpu
