// A block of lanes that run in phases. A write becomes visible to the other lanes at the end of the phase.
//
// An algorithm written as a template over a Block runs on the device, where a lane is a CUDA thread and a phase ends in
// a barrier, and on the host, where a phase is a loop over the lanes. Results must not depend on the number or the
// order of the lanes. Tests run the host version with several lane counts, forwards and backwards, which exposes a
// missing barrier.
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
