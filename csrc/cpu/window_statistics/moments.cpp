// Moments: tasks of kCellsPerBatch lattice cells, and workspace.
#include "cpu/window_statistics/moments.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/simd.h"

// Vectors are only passed between inlined functions, so the calling convention does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"
#define T3_SIMD_KERNEL "cpu/window_statistics/moments_kernel.h"
#include "cpu/simd_dispatch.h"

namespace t3ssfast::cpu {
namespace {

class MomentWorkspace : public StatisticTasks::Workspace {
public:
    std::vector<float> gathered[kCellsPerBatch];

    MomentBuffers buffers(i64 size) {
        const std::size_t sums = static_cast<std::size_t>(moment_doubles(size)) * sizeof(double);
        const std::size_t values = static_cast<std::size_t>(moment_values(size)) * sizeof(float);
        const std::size_t pixels = static_cast<std::size_t>(2 * size * kCellsPerBatch) * sizeof(float);
        constexpr std::size_t kLine = kCellsPerBatch * sizeof(double);
        const std::size_t needed = sums + 2 * values + pixels;
        std::size_t space = needed + kLine;
        // Not zeroed: the sums of a thread fill most of its L2 cache.
        if (bytes_ == nullptr) bytes_.reset(new unsigned char[space]);
        void *start = bytes_.get();
        std::align(kLine, needed, start, space);
        unsigned char *const first = static_cast<unsigned char *>(start);
        return {reinterpret_cast<double *>(first), reinterpret_cast<float *>(first + sums),
                reinterpret_cast<float *>(first + sums + values), reinterpret_cast<float *>(first + sums + 2 * values)};
    }

private:
    std::unique_ptr<unsigned char[]> bytes_;
};

// The first `count` tiles of a grid, sorted by shape: the lanes of a batch then do the same work, and none waits for a
// tile that is cropped by the edge of the image or by the window list.
std::vector<i64> by_shape(const TileGrid &grid, i64 count) {
    std::vector<i64> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), i64{0});
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
        const Tile first = grid[a], second = grid[b];
        return std::make_pair(first.height(), first.width()) > std::make_pair(second.height(), second.width());
    });
    return order;
}

// Batches per task: adjacent batches share cache lines of the output, which would otherwise move between cores.
constexpr i64 kBatchesPerTask = 3;

class MomentTasks : public StatisticTasks {
public:
    MomentTasks(const Images &images, i64 size, std::vector<MomentPlane> planes, i64 plane_count,
                const WindowList &windows, const Output &output)
        : images_(images),
          size_(size),
          planes_(std::move(planes)),
          plane_count_(plane_count),
          output_(output),
          grid_(images, size, windows, size, size, size - 1),
          // Without a window list the tiles of all images are the same.
          period_(windows.dense() ? grid_.count() / images.count : grid_.count()),
          order_(by_shape(grid_, period_)) {}

    i64 tasks() const override { return (batches() + kBatchesPerTask - 1) / kBatchesPerTask; }

    std::unique_ptr<Workspace> make_workspace() const override { return std::make_unique<MomentWorkspace>(); }

    void run(Workspace &workspace, i64 task) const override {
        const i64 end = std::min(batches(), (task + 1) * kBatchesPerTask);
        for (i64 batch = task * kBatchesPerTask; batch < end; ++batch)
            run_batch(static_cast<MomentWorkspace &>(workspace), batch);
    }

private:
    i64 batches() const { return (grid_.count() + kCellsPerBatch - 1) / kCellsPerBatch; }

    void run_batch(MomentWorkspace &workspace, i64 batch) const {
        MomentCell cells[kCellsPerBatch];
        Tile tiles[kCellsPerBatch];
        const int used = static_cast<int>(std::min<i64>(kCellsPerBatch, grid_.count() - batch * kCellsPerBatch));
        for (int lane = 0; lane < used; ++lane) {
            const i64 i = batch * kCellsPerBatch + lane;
            const Tile tile = grid_[i / period_ * period_ + order_[static_cast<std::size_t>(i % period_)]];
            const i64 row = lattice_cell(tile.y0, size_), column = lattice_cell(tile.x0, size_);
            const i64 y = cell_begin(row, size_), x = cell_begin(column, size_);
            tiles[lane] = tile;
            cells[lane] = {images_.image(tile.image),
                           images_.height,
                           images_.width,
                           row * size_,
                           column * size_,
                           tile.y0 - y,
                           tile.y1 - y,
                           tile.x0 - x,
                           tile.x1 - x,
                           output_.begin_tile(tile, plane_count_, workspace.gathered[lane])};
        }
        T3_SIMD_DISPATCH(moments_of_cells, cells, used, size_, planes_.data(), static_cast<int>(planes_.size()),
                         workspace.buffers(size_));
        for (int lane = 0; lane < used; ++lane) {
            for (const MomentPlane &plane : planes_) output_.finish_tile(tiles[lane], cells[lane].out, plane.slot);
        }
    }

    Images images_;
    i64 size_;
    std::vector<MomentPlane> planes_;
    i64 plane_count_;
    Output output_;
    TileGrid grid_;
    i64 period_;
    std::vector<i64> order_;
};

}  // namespace

std::unique_ptr<StatisticTasks> moment_tasks(const Images &images, i64 size, std::vector<MomentPlane> planes,
                                             i64 plane_count, const WindowList &windows, const Output &output) {
    return std::make_unique<MomentTasks>(images, size, std::move(planes), plane_count, windows, output);
}

}  // namespace t3ssfast::cpu
