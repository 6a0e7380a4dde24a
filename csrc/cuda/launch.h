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
