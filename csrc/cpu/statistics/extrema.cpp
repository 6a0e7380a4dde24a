// Extrema: tiles, and the memory for one.
#include <algorithm>
#include <cstring>

#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/statistics/families.h"

#define T3_KERNEL "cpu/statistics/extrema_kernel.h"
#include "cpu/each_level.h"

namespace t3ssfast::cpu {
namespace {

// Rows and columns of windows in a tile.
constexpr i64 kExtremaTile = 256;

struct ExtremaScratch {
    std::vector<float> gathered, memory;
};

}  // namespace

void extrema(const Images &images, i64 size, const ExtremaPlanes &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const i64 rows = std::min(size, kExtremaTile);
    const TileGrid grid(images, size, windows, rows, kExtremaTile, 0);
    parallel_tasks<ExtremaScratch>(grid.count(), threads, [&](ExtremaScratch &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        const i64 pixels = tile.width() + size - 1;
        scratch.memory.resize(static_cast<std::size_t>((2 * size + 4) * pixels));
        std::vector<float *> low, high, range;
        for (i64 slot : planes.low) low.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.high) high.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.range) range.push_back(out.data + slot * out.plane);
        T3_ON_LEVEL(extrema_of_rows, images.image(tile.image) + tile.y0 * images.width + tile.x0, images.width, size,
                    tile.height(), tile.width(), scratch.memory.data(), low.data(), high.data(), range.data(),
                    static_cast<int>(low.size()), static_cast<int>(high.size()), static_cast<int>(range.size()),
                    out.stride);
        for (const std::vector<i64> *slots : {&planes.low, &planes.high, &planes.range}) {
            for (i64 slot : *slots) output.close(tile, out, slot);
        }
    });
}

}  // namespace t3ssfast::cpu
