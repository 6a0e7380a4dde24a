// Order statistics: tiles, the memory for one, and which kernel a size of window takes.
#include "cpu/statistics/order.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#if defined(__x86_64__)
// gcc 12 takes the undefined vectors in its own header for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#include "cpu/parallel.h"
#include "cpu/simd.h"

#define T3_KERNEL "cpu/statistics/order_kernels.h"
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

class BandScratch {
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

class RankScratch {
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

// Cuts a length into parts of at most `most`, all but the last of one size: a narrow rest would cost its whole rim.
i64 even_share(i64 length, i64 most) {
    const i64 parts = (length + most - 1) / most;
    return (length + parts - 1) / parts;
}

template <typename Scratch>
void over_tiles(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                const WindowList &windows, const Output &output, int threads, i64 edge) {
    const i64 most = windows.dense() ? edge : kMaskedTile;
    const i64 height = even_share(valid_windows(images.height, size), most);
    const i64 width = even_share(valid_windows(images.width, size), most);
    const TileGrid grid(images, size, windows, height, width, 0);
    parallel_tasks<Scratch>(grid.count(), threads, [&](Scratch &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        scratch.run({images.image(tile.image) + tile.y0 * images.width + tile.x0, images.width, size, tile.height(),
                     tile.width(), planes.data(), static_cast<int>(planes.size()), out});
        for (const OrderPlane &plane : planes) output.close(tile, out, plane.slot);
    });
}

}  // namespace

void order_statistics(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                      const WindowList &windows, const Output &output, int threads) {
    if (size <= kBandSize) {
        over_tiles<BandScratch>(images, size, planes, plane_count, windows, output, threads, kBandTile);
    } else {
        over_tiles<RankScratch>(images, size, planes, plane_count, windows, output, threads, kRankTile);
    }
}

}  // namespace t3ssfast::cpu
