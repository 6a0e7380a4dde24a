#pragma once
#include <cstdint>
#include "core/macros.h"
namespace t3ssfast {
struct HostBlock {
    int lane_count;
    bool reversed;
    int lanes() const { return lane_count; }
    template <typename F>
    void phase(F f) const {
        for (int i = 0; i < lane_count; ++i) f(reversed ? lane_count - 1 - i : i);
    }
};
#if defined(__CUDACC__)
struct DeviceBlock {
    __device__ int lanes() const { return blockDim.x; }
    template <typename F>
    __device__ void phase(F f) const {
        f(static_cast<int>(threadIdx.x));
        __syncthreads();
    }
};
#endif
}  // namespace t3ssfast
