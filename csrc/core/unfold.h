// Block algorithm of unfold.
#pragma once

#include "core/block.h"
#include "core/element.h"
#include "core/moments.h"
#include "core/window.h"

namespace t3ssfast {

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

// Sums over all lanes, in an order that depends only on their number. Every lane may read sums[0] afterwards.
T3_BLOCK_FUNCTION void add_lanes(const Block &block, double *sums) {
    int span = 1;
    while (span < block.lanes()) span *= 2;
    for (span /= 2; span > 0; span /= 2) {
        block.phase([&](int lane) {
            if (lane < span && lane + span < block.lanes()) sums[lane] += sums[lane + span];
        });
    }
}

T3_TYPED_BLOCK_FUNCTION void unfold_window(const Block &block, const UnfoldRun &run, std::int64_t i,
                                           unsigned char *shared) {
    const std::int64_t size = run.size, stride = run.images.width, pixels = size * size;
    const WindowPosition at =
        window_position(run.windows.dense() ? i : run.windows.data[i], run.windows_y, run.windows_x);
    const float *corner = run.images.image(at.image) + at.y * stride + at.x;
    typename Type::Word *target = static_cast<typename Type::Word *>(run.out) + i * pixels;
    Scaling scaling{0.0, 1.0};
    if (run.zscore) {
        double *sums = reinterpret_cast<double *>(shared), *squares = sums + block.lanes();
        const double origin = corner[0];
        block.phase([&](int lane) {
            double sum = 0.0, square = 0.0;
            for (std::int64_t p = lane; p < pixels; p += block.lanes()) {
                const double d = corner[p / size * stride + p % size] - origin;
                sum += d;
                square += product(d, d);
            }
            sums[lane] = sum;
            squares[lane] = square;
        });
        add_lanes(block, sums);
        add_lanes(block, squares);
        scaling = zscore_scaling(origin, sums[0], squares[0], size);
    }
    block.phase([&](int lane) {
        for (std::int64_t p = lane; p < pixels; p += block.lanes()) {
            const float value = corner[p / size * stride + p % size];
            target[p] = Type::from(run.zscore ? scaling(value) : value);
        }
    });
}

}  // namespace t3ssfast
