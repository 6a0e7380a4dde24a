// Gathering windows on the CPU: rows of windows are copied side by side, each window scaled on its own if asked.
#include <algorithm>

#include "backend.h"
#include "core/element.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Windows in a task: enough to hide its overhead, few enough to share the work of a small mask.
constexpr i64 kWindowsPerTask = 64;

struct NoScratch {};

// Sums of d and d^2 in eight partial sums each: a fixed order, whatever the vector length.
T3_ALWAYS_INLINE Scaling zscore_of(const float *corner, i64 stride, i64 size) {
    alignas(64) double sum[8] = {}, squares[8] = {};
    const double origin = corner[0];
    for (i64 y = 0; y < size; ++y) {
        const float *row = corner + y * stride;
        i64 x = 0;
        for (; x + 8 <= size; x += 8) {
            for (int i = 0; i < 8; ++i) {
                const double d = row[x + i] - origin;
                sum[i] += d;
                squares[i] += d * d;
            }
        }
        for (int i = 0; x < size; ++x, ++i) {
            const double d = row[x] - origin;
            sum[i] += d;
            squares[i] += d * d;
        }
    }
    for (int i = 1; i < 8; ++i) {
        sum[0] += sum[i];
        squares[0] += squares[i];
    }
    return zscore_scaling(origin, sum[0], squares[0], size);
}

template <typename Type>
T3_ALWAYS_INLINE void copy_windows(ImageStack<const float> images, i64 size, bool zscore, WindowList windows,
                                   i64 begin, i64 end, void *out) {
    const i64 windows_y = valid_windows(images.height, size), windows_x = valid_windows(images.width, size);
    const i64 stride = images.width;
    for (i64 i = begin; i < end; ++i) {
        const WindowPosition at = window_position(windows.dense() ? i : windows.data[i], windows_y, windows_x);
        const float *corner = images.image(at.image) + at.y * stride + at.x;
        typename Type::Word *target = static_cast<typename Type::Word *>(out) + i * size * size;
        if (zscore) {
            const Scaling scaling = zscore_of(corner, stride, size);
            for (i64 y = 0; y < size; ++y) {
                for (i64 x = 0; x < size; ++x) target[y * size + x] = Type::from(scaling(corner[y * stride + x]));
            }
        } else {
            for (i64 y = 0; y < size; ++y) {
                for (i64 x = 0; x < size; ++x) target[y * size + x] = Type::from(corner[y * stride + x]);
            }
        }
    }
}

T3_SIMD_CLONES void copy_float32(ImageStack<const float> images, i64 size, bool zscore, WindowList windows, i64 begin,
                                 i64 end, void *out) {
    copy_windows<Float32>(images, size, zscore, windows, begin, end, out);
}

T3_SIMD_CLONES void copy_float16(ImageStack<const float> images, i64 size, bool zscore, WindowList windows, i64 begin,
                                 i64 end, void *out) {
    copy_windows<Float16>(images, size, zscore, windows, begin, end, out);
}

T3_SIMD_CLONES void copy_bfloat16(ImageStack<const float> images, i64 size, bool zscore, WindowList windows, i64 begin,
                                  i64 end, void *out) {
    copy_windows<BFloat16>(images, size, zscore, windows, begin, end, out);
}

}  // namespace

void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out, int threads) {
    const i64 total = windows.dense() ? images.count * valid_windows(images.height, request.size) *
                                            valid_windows(images.width, request.size)
                                      : windows.count;
    const i64 tasks = (total + kWindowsPerTask - 1) / kWindowsPerTask;
    parallel_tasks<NoScratch>(tasks, threads, [&](NoScratch &, i64 task) {
        const i64 begin = task * kWindowsPerTask, end = std::min(total, begin + kWindowsPerTask);
        switch (request.element) {
            case Element::float32: return copy_float32(images, request.size, request.zscore, windows, begin, end, out);
            case Element::float16: return copy_float16(images, request.size, request.zscore, windows, begin, end, out);
            case Element::bfloat16:
                return copy_bfloat16(images, request.size, request.zscore, windows, begin, end, out);
        }
    });
}

}  // namespace t3ssfast::cpu
