// Moments: lattice cells, kMomentLanes at a time, and the memory for them.
#include "cpu/statistics/moments.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/parallel.h"
#include "cpu/simd.h"

// Vectors are passed between functions that are always inlined: there is no calling convention to differ.
#pragma GCC diagnostic ignored "-Wpsabi"
#define T3_KERNEL "cpu/statistics/moments_kernel.h"
#include "cpu/each_level.h"

namespace t3ssfast::cpu {
namespace {

class MomentScratch {
public:
    std::vector<float> gathered[kMomentLanes];

    MomentMemory memory(i64 size) {
        constexpr std::size_t kAlignment = kMomentLanes * sizeof(double);
        const std::size_t bytes = static_cast<std::size_t>(moment_doubles(size)) * sizeof(double);
        sums_.resize(bytes + kAlignment);
        values_.resize(static_cast<std::size_t>(kMomentKinds * moment_panel(size) * kMomentLanes));
        void *start = sums_.data();
        std::size_t space = sums_.size();
        return {static_cast<double *>(std::align(kAlignment, bytes, start, space)), values_.data()};
    }

private:
    std::vector<unsigned char> sums_;
    std::vector<float> values_;
};

// The first `count` tiles of a grid, those of one shape after each other: lanes then do the same work, and none waits
// for a tile that is cut by the edge of the image or by the list of windows.
std::vector<i64> by_shape(const TileGrid &grid, i64 count) {
    std::vector<i64> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), i64{0});
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
        const Tile first = grid[a], second = grid[b];
        return std::make_pair(first.height(), first.width()) > std::make_pair(second.height(), second.width());
    });
    return order;
}

}  // namespace

void moments(const Images &images, i64 size, const std::vector<MomentPlane> &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const TileGrid grid(images, size, windows, size, size, size - 1);
    // Dense images are all cut alike.
    const i64 period = windows.dense() ? grid.count() / images.count : grid.count();
    const std::vector<i64> order = by_shape(grid, period);
    const i64 batches = (grid.count() + kMomentLanes - 1) / kMomentLanes;
    parallel_tasks<MomentScratch>(batches, threads, [&](MomentScratch &scratch, i64 batch) {
        MomentCell cells[kMomentLanes];
        Tile tiles[kMomentLanes];
        const int used = static_cast<int>(std::min<i64>(kMomentLanes, grid.count() - batch * kMomentLanes));
        for (int lane = 0; lane < used; ++lane) {
            const i64 i = batch * kMomentLanes + lane;
            const Tile tile = grid[i / period * period + order[static_cast<std::size_t>(i % period)]];
            const i64 row = lattice_cell(tile.y0, size), column = lattice_cell(tile.x0, size);
            const i64 y = cell_begin(row, size), x = cell_begin(column, size);
            tiles[lane] = tile;
            cells[lane] = {images.image(tile.image), images.height, images.width, row * size, column * size,
                           tile.y0 - y, tile.y1 - y, tile.x0 - x, tile.x1 - x,
                           output.open(tile, plane_count, scratch.gathered[lane])};
        }
        T3_ON_LEVEL(moments_of_cells, cells, used, size, planes.data(), static_cast<int>(planes.size()),
                    scratch.memory(size));
        for (int lane = 0; lane < used; ++lane) {
            for (const MomentPlane &plane : planes) output.close(tiles[lane], cells[lane].out, plane.slot);
        }
    });
}

}  // namespace t3ssfast::cpu
