// Averages of neighbouring slices in levels of 8 bits, on the device: neighbouring threads take neighbouring pixels.
#include <algorithm>

#include "backend.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kThreads = 256;
// Pixels of a thread, a block's width apart, all loaded before the first is stored: their loads overlap.
constexpr int kPixels = 4;
constexpr std::int64_t kGroup = kThreads * kPixels;
// Resident on every architecture; each goes through the groups of pixels with the stride of the grid.
constexpr int kBlocksPerMultiprocessor = 4;

__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    probability_levels_kernel(LevelsRun run, unsigned long long *first) {
    std::int64_t bad = run.count;
    for (std::int64_t group = blockIdx.x * kGroup; group < run.count; group += gridDim.x * kGroup) {
        const std::int64_t mine = group + threadIdx.x;
        float below[kPixels], middle[kPixels], above[kPixels];
        T3_UNROLL for (int k = 0; k < kPixels; ++k) {
            const std::int64_t i = mine + k * kThreads;
            if (i >= run.count) continue;
            below[k] = run.below[i];
            middle[k] = run.middle[i];
            above[k] = run.above[i];
        }
        T3_UNROLL for (int k = 0; k < kPixels; ++k) {
            const std::int64_t i = mine + k * kThreads;
            if (i >= run.count) continue;
            const float scaled = scaled_average(run, below[k], middle[k], above[k]);
            if (!is_finite(scaled) && i < bad) bad = i;
            run.out[i] = nearest_level(scaled);
        }
    }
    if (bad < run.count) atomicMin(first, static_cast<unsigned long long>(bad));
}

}  // namespace

void probability_levels(const LevelsRun &run, std::int64_t *first_nonfinite, Launch launch) {
    if (run.count == 0) return;
    const DeviceGuard guard(launch.device);
    const std::int64_t resident = static_cast<std::int64_t>(kBlocksPerMultiprocessor) *
                                  attribute(cudaDevAttrMultiProcessorCount, launch.device);
    const std::int64_t blocks = std::min((run.count + kGroup - 1) / kGroup, resident);
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), kThreads, 0};
    launch_kernel("Averaging slices", probability_levels_kernel, shape, stream_of(launch), run,
                  reinterpret_cast<unsigned long long *>(first_nonfinite));
}

}  // namespace t3ssfast::cuda
