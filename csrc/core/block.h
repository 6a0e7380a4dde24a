// A block of lanes that work in phases: within a phase lanes do not see each other's writes, after it they do.
//
// An algorithm written as a template over a Block runs on the device (a lane is a thread, a phase ends in a
// barrier) and on the host (a phase is a loop over the lanes). Results must not depend on the number of lanes or
// on their order; the tests run the host version at several counts, forwards and backwards, where a missing
// barrier shows.
#pragma once

#include "core/macros.h"

namespace t3ssfast {

class HostBlock {
public:
    HostBlock(int lanes, bool reversed) : lanes_(lanes), reversed_(reversed) {}

    int lanes() const { return lanes_; }

    template <typename Lane>
    void phase(const Lane &lane) const {
        for (int i = 0; i < lanes_; ++i) lane(reversed_ ? lanes_ - 1 - i : i);
    }

private:
    int lanes_;
    bool reversed_;
};

#if defined(__CUDACC__)
class DeviceBlock {
public:
    __device__ __forceinline__ int lanes() const { return static_cast<int>(blockDim.x); }

    template <typename Lane>
    __device__ __forceinline__ void phase(const Lane &lane) const {
        lane(static_cast<int>(threadIdx.x));
        __syncthreads();
    }
};
#endif

}  // namespace t3ssfast
