// Order statistics: tiles, the memory for one, and which kernel a size of window takes.
#include "cpu/window_statistics/order.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#if defined(__x86_64__)
// gcc 12 takes the undefined vectors in its own header for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#include "cpu/simd.h"

#define T3_KERNEL "cpu/window_statistics/order_kernels.h"
#include "cpu/each_level.h"

namespace t3ssfast::cpu {
namespace {

// Windows along an edge of a tile.
constexpr i64 kRankTile = 128;
constexpr i64 kMaskedTile = 48;
// Entries that vector loads and stores may reach beyond the last one.
constexpr i64 kSlack = 64;

template <typename T>
T *grown(std::vector<T> &memory, i64 count) {
    const std::size_t needed = static_cast<std::size_t>(count + kSlack);
    if (memory.size() < needed) memory.resize(needed);
    return memory.data();
}

// The same, from the start of a cache line on.
template <typename T>
T *aligned(std::vector<T> &memory, i64 count) {
    constexpr std::size_t kLine = 64;
    const std::size_t needed = static_cast<std::size_t>(count + kSlack) + kLine / sizeof(T);
    if (memory.size() < needed) memory.resize(needed);
    void *start = memory.data();
    std::size_t space = memory.size() * sizeof(T);
    return static_cast<T *>(std::align(kLine, kLine, start, space));
}

class BandScratch : public Family::Memory {
public:
    std::vector<float> gathered;

    void run(const OrderTask &task) { T3_ON_LEVEL(order_of_tile, task, memory(task)); }

private:
    BandMemory memory(const OrderTask &task) {
        const i64 high = task.rows + task.size - 1, wide = task.columns + task.size - 1, pixels = high * wide;
        const i64 band = pixels;
        starts_.resize(static_cast<std::size_t>(task.plane_count));
        const i64 padded = band + 1024;
        return {grown(list_, pixels),
                grown(spare_, pixels),
                grown(granules_, high * (wide + kSlack)),
                grown(y_, pixels),
                grown(x_, pixels),
                grown(values_, pixels),
                aligned(band_y_, padded),
                aligned(band_x_, padded),
                grown(band_values_, padded),
                aligned(counts_, wide * 320),
                aligned(sums_, kBandTile * 32),
                grown(slots_, kBandTile),
                grown(places_, kBandTile),
                starts_.data()};
    }

    std::vector<std::uint64_t> list_, spare_;
    std::vector<std::int8_t> granules_;
    std::vector<std::uint8_t> y_, x_, band_y_, band_x_, counts_, places_;
    std::vector<float> values_, band_values_;
    std::vector<std::int16_t> sums_;
    std::vector<std::uint16_t> slots_;
    std::vector<int> starts_;
};

class RankScratch : public Family::Memory {
public:
    std::vector<float> gathered;

    void run(const OrderTask &task) { T3_ON_LEVEL(rank_tile, task, memory(task)); }

private:
    RankMemory memory(const OrderTask &task) {
        const i64 high = task.rows + task.size - 1, wide = task.columns + task.size - 1, pixels = high * wide;
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

// Edges of tiles for windows that are all wanted, and for a list of them.
i64 tile_edge(i64 windows, const WindowList &list, i64 dense) {
    return even_share(windows, list.dense() ? dense : kMaskedTile);
}

template <typename Scratch, i64 kTile>
class OrderFamily : public Family {
public:
    OrderFamily(const Images &images, i64 size, std::vector<OrderPlane> planes, i64 plane_count,
                const WindowList &windows, const Output &output)
        : images_(images),
          size_(size),
          planes_(std::move(planes)),
          plane_count_(plane_count),
          output_(output),
          grid_(images, size, windows, tile_edge(valid_windows(images.height, size), windows, kTile),
                tile_edge(valid_windows(images.width, size), windows, kTile), 0) {
        // In pixels that are sorted, as measured: windows of small tiles share few of them.
        constexpr i64 kTask = 5000, kWindow = 3;
        grid_.join(kTile, [size](const Tile &tile) {
            return kTask + (tile.height() + size - 1) * (tile.width() + size - 1) + kWindow * tile.height() * tile.width();
        });
    }

    i64 tasks() const override { return grid_.count(); }

    std::unique_ptr<Memory> memory() const override { return std::make_unique<Scratch>(); }

    void run(Memory &memory, i64 task) const override {
        Scratch &scratch = static_cast<Scratch &>(memory);
        const Tile tile = grid_[task];
        const TileOutput out = output_.open(tile, plane_count_, scratch.gathered);
        scratch.run({images_.image(tile.image) + tile.y0 * images_.width + tile.x0, images_.width, size_, tile.height(),
                     tile.width(), planes_.data(), static_cast<int>(planes_.size()), out});
        for (const OrderPlane &plane : planes_) output_.close(tile, out, plane.slot);
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

std::unique_ptr<Family> order_statistics(const Images &images, i64 size, std::vector<OrderPlane> planes, i64 plane_count,
                                         const WindowList &windows, const Output &output) {
    if (size <= kBandSize) {
        return std::make_unique<OrderFamily<BandScratch, kBandTile>>(images, size, std::move(planes), plane_count,
                                                                     windows, output);
    }
    return std::make_unique<OrderFamily<RankScratch, kRankTile>>(images, size, std::move(planes), plane_count, windows,
                                                                 output);
}

}  // namespace t3ssfast::cpu
