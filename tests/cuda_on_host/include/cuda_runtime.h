// The part of the CUDA language and runtime that csrc/cuda uses, for a C++ compiler; included before every .cu file.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

// ------------------------------------------------------------------------------------------ language

#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the lane that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

void __syncthreads();
unsigned long long atomicMin(unsigned long long *address, unsigned long long value);

// Rounded once, and counted.
double __dmul_rn(double a, double b);
double __dadd_rn(double a, double b);
double __dsub_rn(double a, double b);

// Rounded once.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

// ------------------------------------------------------------------------------------------- runtime

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchOutOfResources = 701,
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
typedef struct CUstream_st *cudaStream_t;

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);

namespace cuda_on_host {

// A kernel and its arguments, in a copy that only the kernel reads.
class Call {
public:
    virtual ~Call() = default;
    virtual void run() = 0;
    const void *function = nullptr;
    std::size_t parameter_bytes = 0;
    std::size_t object_bytes = 0;
};

template <typename... Parameters>
class CallOf final : public Call {
public:
    CallOf(void (*kernel)(Parameters...), void **arguments)
        : CallOf(kernel, arguments, std::index_sequence_for<Parameters...>()) {}
    void run() override { std::apply(kernel_, values_); }

private:
    template <std::size_t... I>
    CallOf(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>)
        : kernel_(kernel), values_(*static_cast<Parameters *>(arguments[I])...) {
        function = reinterpret_cast<const void *>(kernel);
        parameter_bytes = sizeof(values_);
        object_bytes = sizeof(*this);
    }

    void (*kernel_)(Parameters...);
    std::tuple<Parameters...> values_;
};

cudaError_t launch(Call &call, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream);
cudaError_t set_shared_limit(const void *function, int bytes);

}  // namespace cuda_on_host

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void **arguments,
                             std::size_t shared_bytes, cudaStream_t stream) {
    cuda_on_host::CallOf<Parameters...> call(kernel, arguments);
    return cuda_on_host::launch(call, grid, block, shared_bytes, stream);
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel *kernel, cudaFuncAttribute, int value) {
    return cuda_on_host::set_shared_limit(reinterpret_cast<const void *>(kernel), value);
}
