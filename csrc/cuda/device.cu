// Availability of CUDA devices; a machine without a driver gets an answer instead of an error.
#include "backend.h"
#include "cuda/check.h"

namespace t3ssfast::cuda {
namespace {

cudaError_t count_devices(int *count) {
    *count = 0;
    const cudaError_t status = cudaGetDeviceCount(count);
    if (status != cudaSuccess) {
        *count = 0;
        cudaGetLastError();  // clear the error: a later check must not report it
    }
    return status;
}

}  // namespace

int device_count() {
    int count;
    count_devices(&count);
    return count;
}

std::string device_problem() {
    int count;
    const cudaError_t status = count_devices(&count);
    if (status != cudaSuccess) return cudaGetErrorString(status);
    return count > 0 ? "" : "no CUDA device was found";
}

}  // namespace t3ssfast::cuda
