// The check for NaN and Inf on the device: one pass over the values.
#include <algorithm>

#include "backend.h"
#include "core/fragment.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kThreads = 256;
// Enough blocks for every multiprocessor; each goes through the values with the stride of the grid.
constexpr std::int64_t kBlocksPerMultiprocessor = 8;

// The smallest index is found whatever the order of the blocks.
__global__ void __launch_bounds__(kThreads)
    first_nonfinite_kernel(const float *values, std::int64_t count, unsigned long long *first) {
    constexpr std::uint32_t kExponent = 0x7F800000u;
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
    std::int64_t mine = count;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
        if ((bits_of(values[i]) & kExponent) == kExponent && i < mine) mine = i;
    }
    if (mine < count) atomicMin(first, static_cast<unsigned long long>(mine));
}

}  // namespace

void first_nonfinite(const float *values, std::int64_t count, std::int64_t *first, Launch launch) {
    if (count == 0) return;
    const DeviceGuard guard(launch.device);
    const std::int64_t resident = kBlocksPerMultiprocessor * attribute(cudaDevAttrMultiProcessorCount, launch.device);
    const std::int64_t blocks = std::min((count + kThreads - 1) / kThreads, resident);
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), kThreads, 0};
    launch_kernel("The check for NaN and Inf", first_nonfinite_kernel, shape, stream_of(launch), values, count,
                  reinterpret_cast<unsigned long long *>(first));
}

}  // namespace t3ssfast::cuda
