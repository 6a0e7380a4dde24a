// Extrema: tasks and workspace.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/simd.h"
#include "cpu/window_statistics/tasks.h"

namespace t3ssfast::cpu {

// Rows of the kernel's buffer are whole, aligned cache lines.
constexpr i64 kExtremaLine = 64 / sizeof(float);
constexpr i64 extrema_pitch(i64 pixels) { return (pixels + kExtremaLine - 1) / kExtremaLine * kExtremaLine; }

}  // namespace t3ssfast::cpu

#define T3_SIMD_KERNEL "cpu/window_statistics/extrema_kernel.h"
#include "cpu/simd_dispatch.h"

namespace t3ssfast::cpu {
namespace {

// Maximum rows and columns of windows in a tile.
constexpr i64 kExtremaRows = 256, kExtremaColumns = 512;

class ExtremaWorkspace : public StatisticTasks::Workspace {
public:
    std::vector<float> gathered;

    float *rows(i64 size, i64 pixels) {
        const std::size_t needed = static_cast<std::size_t>((2 * size + 4) * extrema_pitch(pixels));
        if (rows_.size() < needed + kExtremaLine) rows_.resize(needed + kExtremaLine);
        void *start = rows_.data();
        std::size_t space = rows_.size() * sizeof(float);
        return static_cast<float *>(std::align(kExtremaLine * sizeof(float), needed * sizeof(float), start, space));
    }

private:
    std::vector<float> rows_;
};

class ExtremaTasks : public StatisticTasks {
public:
    ExtremaTasks(const Images &images, i64 size, ExtremaPlanes planes, i64 plane_count, const WindowList &windows,
                 const Output &output)
        : images_(images),
          size_(size),
          planes_(std::move(planes)),
          plane_count_(plane_count),
          output_(output),
          grid_(images, size, windows, std::min(size, kExtremaRows),
                even_split(valid_windows(images.width, size), kExtremaColumns), 0) {}

    i64 tasks() const override { return grid_.count(); }

    std::unique_ptr<Workspace> make_workspace() const override { return std::make_unique<ExtremaWorkspace>(); }

    void run(Workspace &workspace, i64 task) const override {
        ExtremaWorkspace &scratch = static_cast<ExtremaWorkspace &>(workspace);
        const Tile tile = grid_[task];
        const TileOutput out = output_.begin_tile(tile, plane_count_, scratch.gathered);
        const i64 pixels = tile.width() + size_ - 1;
        float *const rows = scratch.rows(size_, pixels);
        std::vector<float *> low, high, range;
        for (i64 slot : planes_.low) low.push_back(out.data + slot * out.plane);
        for (i64 slot : planes_.high) high.push_back(out.data + slot * out.plane);
        for (i64 slot : planes_.range) range.push_back(out.data + slot * out.plane);
        T3_SIMD_DISPATCH(extrema_of_rows, images_.image(tile.image) + tile.y0 * images_.width + tile.x0, images_.width,
                         size_, tile.height(), tile.width(), rows, low.data(), high.data(), range.data(),
                         static_cast<int>(low.size()), static_cast<int>(high.size()), static_cast<int>(range.size()),
                         out.stride, out.stream);
        for (const std::vector<i64> *slots : {&planes_.low, &planes_.high, &planes_.range}) {
            for (i64 slot : *slots) output_.finish_tile(tile, out, slot);
        }
    }

private:
    Images images_;
    i64 size_;
    ExtremaPlanes planes_;
    i64 plane_count_;
    Output output_;
    TileGrid grid_;
};

}  // namespace

std::unique_ptr<StatisticTasks> extrema_tasks(const Images &images, i64 size, ExtremaPlanes planes, i64 plane_count,
                                              const WindowList &windows, const Output &output) {
    return std::make_unique<ExtremaTasks>(images, size, std::move(planes), plane_count, windows, output);
}

}  // namespace t3ssfast::cpu
