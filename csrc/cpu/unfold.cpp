// unfold on the CPU.
#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "backend.h"
#include "core/element.h"
#include "core/window.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Windows per task: enough to hide the task's overhead, few enough to balance the work of a small mask.
constexpr i64 kWindowsPerTask = 64;

// Bytes staged in the L1 cache before they are written with non-temporal stores.
constexpr i64 kStagingBytes = 16 << 10;
constexpr i64 kCacheLine = 64;

struct StagingBuffer {
    std::vector<unsigned char> bytes;

    unsigned char *aligned(i64 row_bytes) {
        bytes.resize(kStagingBytes + row_bytes + 2 * kCacheLine);
        const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes.data());
        return bytes.data() + (kCacheLine - address % kCacheLine) % kCacheLine;
    }
};

struct Request {
    ImageStack<const float> images;
    i64 size;
    bool zscore;
    Element element;
    WindowList windows;
};

#define T3_SIMD_KERNEL "cpu/unfold_kernel.h"
#include "cpu/simd_dispatch.h"

}  // namespace

void unfold(ImageStack<const float> images, const UnfoldRequest &unfold_request, WindowList windows, void *out,
            bool stream, int threads) {
    const Request request{images, unfold_request.size, unfold_request.zscore, unfold_request.element, windows};
    const i64 total = windows.dense() ? images.count * valid_windows(images.height, unfold_request.size) *
                                            valid_windows(images.width, unfold_request.size)
                                      : windows.count;
    const i64 word = unfold_request.element == Element::float32 ? 4 : 2;
    const i64 row_bytes = unfold_request.size * word, window_bytes = unfold_request.size * row_bytes;
    const i64 tasks = (total + kWindowsPerTask - 1) / kWindowsPerTask;
    parallel_tasks<StagingBuffer>(tasks, threads, [&](StagingBuffer &staging, i64 task) {
        const i64 begin = task * kWindowsPerTask, end = std::min(total, begin + kWindowsPerTask);
        unsigned char *to = static_cast<unsigned char *>(out) + begin * window_bytes;
        unsigned char *staged = stream ? staging.aligned(row_bytes) : nullptr;
        T3_SIMD_DISPATCH(write, request, begin, end, to, staged);
    });
}

}  // namespace t3ssfast::cpu
