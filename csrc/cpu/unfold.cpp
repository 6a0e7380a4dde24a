// Gathering windows on the CPU: rows of windows are copied side by side, each window scaled on its own if asked.
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

// Windows in a task: enough to hide its overhead, few enough to share the work of a small mask.
constexpr i64 kWindowsPerTask = 64;

// Bytes gathered in the L1 cache before they are written past the caches.
constexpr i64 kStage = 16 << 10;
constexpr i64 kLine = 64;

struct Stage {
    std::vector<unsigned char> bytes;

    unsigned char *aligned(i64 row_bytes) {
        bytes.resize(kStage + row_bytes + 2 * kLine);
        const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes.data());
        return bytes.data() + (kLine - address % kLine) % kLine;
    }
};

struct Request {
    ImageStack<const float> images;
    i64 size;
    bool zscore;
    Element element;
    WindowList windows;
};

#define T3_KERNEL "cpu/unfold_kernel.h"
#include "cpu/each_level.h"

}  // namespace

void unfold(ImageStack<const float> images, const UnfoldRequest &wanted, WindowList windows, void *out, bool stream,
            int threads) {
    const Request request{images, wanted.size, wanted.zscore, wanted.element, windows};
    const i64 total = windows.dense() ? images.count * valid_windows(images.height, wanted.size) *
                                            valid_windows(images.width, wanted.size)
                                      : windows.count;
    const i64 word = wanted.element == Element::float32 ? 4 : 2;
    const i64 row_bytes = wanted.size * word, window_bytes = wanted.size * row_bytes;
    const i64 tasks = (total + kWindowsPerTask - 1) / kWindowsPerTask;
    parallel_tasks<Stage>(tasks, threads, [&](Stage &stage, i64 task) {
        const i64 begin = task * kWindowsPerTask, end = std::min(total, begin + kWindowsPerTask);
        unsigned char *to = static_cast<unsigned char *>(out) + begin * window_bytes;
        unsigned char *lines = stream ? stage.aligned(row_bytes) : nullptr;
        T3_ON_LEVEL(write, request, begin, end, to, lines);
    });
}

}  // namespace t3ssfast::cpu
