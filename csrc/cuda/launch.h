// Launches of kernels.
#pragma once

#include <cstdint>

#include "cuda/check.h"

namespace t3ssfast::cuda {

struct LaunchShape {
    dim3 grid;
    unsigned lanes;  // threads per block
    std::int64_t shared_bytes;
};

// Lets a kernel use all the shared memory that a block may opt in to. The limit belongs to the kernel, which threads
// share, so every thread sets the same one; a launch still occupies only what it asks for.
template <typename Kernel>
void allow_shared(Kernel *kernel, int device) {
    const int bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "Setting the shared memory limit");
}

template <typename T>
struct ParameterOf {
    using type = T;
};

// Launches a kernel; throws the error of this launch. cudaLaunchKernel, unlike cudaGetLastError after <<<...>>>, does
// not report an error that somebody else's call left behind.
template <typename... Parameters>
void launch_kernel(const char *what, void (*kernel)(Parameters...), const LaunchShape &shape, cudaStream_t stream,
                   typename ParameterOf<Parameters>::type... arguments) {
    void *pointers[] = {&arguments...};
    check(cudaLaunchKernel(kernel, shape.grid, dim3(shape.lanes), pointers,
                           static_cast<std::size_t>(shape.shared_bytes), stream),
          what);
}

}  // namespace t3ssfast::cuda
