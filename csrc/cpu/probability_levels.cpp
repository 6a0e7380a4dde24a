// Averages of neighbouring slices in levels of 8 bits, on the CPU.
#include <algorithm>
#include <atomic>

#include "backend.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Pixels per task: about 10 us of work.
constexpr i64 kPixelsPerTask = 1 << 16;

struct NoWorkspace {};

#define T3_SIMD_KERNEL "cpu/probability_levels_kernel.h"
#include "cpu/simd_dispatch.h"

}  // namespace

bool probability_levels(const LevelsRun &run, int threads) {
    std::atomic<bool> finite{true};
    parallel_tasks<NoWorkspace>((run.count + kPixelsPerTask - 1) / kPixelsPerTask, threads, [&](NoWorkspace &, i64 task) {
        const i64 begin = task * kPixelsPerTask, end = std::min(run.count, begin + kPixelsPerTask);
        if (!T3_SIMD_DISPATCH(write, run, begin, end)) finite = false;
    });
    return finite;
}

}  // namespace t3ssfast::cpu
