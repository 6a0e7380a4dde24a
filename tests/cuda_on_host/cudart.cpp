// A small CUDA runtime: devices with the limits of an architecture, errors that stay until they are fetched, and
// launches that are refused as the driver refuses them.
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "lanes.h"
#include "runtime.h"

namespace cuda_on_host {
namespace {

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": shared memory per block (with
// opt-in) and per multiprocessor, bytes.
struct Architecture {
    int number, per_block, per_multiprocessor;
};
constexpr int kKiB = 1024;
constexpr Architecture kArchitectures[] = {
    {75, 64 * kKiB, 64 * kKiB},   {80, 163 * kKiB, 164 * kKiB}, {86, 99 * kKiB, 100 * kKiB},
    {89, 99 * kKiB, 100 * kKiB},  {90, 227 * kKiB, 228 * kKiB}, {100, 227 * kKiB, 228 * kKiB},
    {120, 99 * kKiB, 100 * kKiB},
};
// Without opt-in.
constexpr int kSharedBytes = 48 * kKiB;
constexpr std::size_t kMaxParameterBytes = 4096;
constexpr unsigned kMaxGridX = 0x7FFFFFFF, kMaxGridYZ = 65535, kMaxLanes = 1024;

std::mutex one_at_a_time;
Architecture architecture = kArchitectures[4];
int devices = 1, multiprocessors = 3, current_device = 0;
cudaError_t driver_error = cudaSuccess;  // of every call that counts devices
cudaError_t last_error = cudaSuccess;
std::set<int> contexts;
std::map<std::pair<const void *, int>, int> shared_limits;
std::set<int> limits_set;
bool out_of_resources = false;  // every launch is refused

cudaError_t fail(cudaError_t error) {
    last_error = error;
    return error;
}

}  // namespace

cudaError_t set_shared_limit(const void *function, int bytes) {
    const std::lock_guard<std::mutex> guard(one_at_a_time);
    contexts.insert(current_device);
    if (bytes < 0 || bytes > architecture.per_block) return fail(cudaErrorInvalidValue);
    shared_limits[{function, current_device}] = bytes;
    limits_set.insert(bytes);
    return cudaSuccess;
}

cudaError_t launch(Call &call, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t) {
    const std::lock_guard<std::mutex> guard(one_at_a_time);
    contexts.insert(current_device);
    const std::string name = "grid " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + ", " +
                             std::to_string(block.x) + " lanes, " + std::to_string(shared_bytes) + " shared bytes";
    const auto limit = shared_limits.find({call.function, current_device});
    const std::size_t allowed = limit == shared_limits.end() ? kSharedBytes : limit->second;
    const bool configured = grid.x > 0 && grid.y > 0 && grid.z == 1 && grid.x <= kMaxGridX && grid.y <= kMaxGridYZ &&
                            block.x > 0 && block.x <= kMaxLanes && block.y == 1 && block.z == 1;
    if (!configured) return fail(cudaErrorInvalidConfiguration);
    if (out_of_resources) return fail(cudaErrorLaunchOutOfResources);
    if (shared_bytes > allowed || call.parameter_bytes > kMaxParameterBytes) return fail(cudaErrorInvalidValue);
    run_grid(call, grid, block, shared_bytes, name);
    return cudaSuccess;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}

// Since CUDA 12 choosing a device creates its context.
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= devices) return fail(cudaErrorInvalidDevice);
    current_device = device;
    contexts.insert(device);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    if (driver_error != cudaSuccess) return fail(driver_error);
    *count = devices;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device < 0 || device >= devices) return fail(cudaErrorInvalidDevice);
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = multiprocessors; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = architecture.number / 10; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = architecture.per_block; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = architecture.per_multiprocessor; return cudaSuccess;
    }
    return fail(cudaErrorInvalidValue);
}

// ------------------------------------------------------------------------------------------- for the tests

extern "C" {

// Starts anew with devices of one architecture; false if it is unknown. `error` is that of every call that counts
// devices.
__attribute__((visibility("default"))) int cuda_on_host_devices(int number, int count, int error) {
    for (const Architecture &known : kArchitectures) {
        if (known.number != number) continue;
        architecture = known;
        devices = count;
        driver_error = static_cast<cudaError_t>(error);
        current_device = 0;
        last_error = cudaSuccess;
        contexts.clear();
        shared_limits.clear();
        limits_set.clear();
        out_of_resources = false;
        return 1;
    }
    return 0;
}

// What torch.cuda.device does.
__attribute__((visibility("default"))) int cuda_on_host_exchange_device(int device) {
    contexts.insert(device);
    return std::exchange(current_device, device);
}

// What torch.cuda.device does at its end: a device without a context stays without.
__attribute__((visibility("default"))) void cuda_on_host_restore_device(int device) { current_device = device; }

__attribute__((visibility("default"))) int cuda_on_host_has_context(int device) { return contexts.count(device) != 0; }

__attribute__((visibility("default"))) void cuda_on_host_refuse_launches() { out_of_resources = true; }

// The error that a failed call left behind.
__attribute__((visibility("default"))) int cuda_on_host_take_last_error() { return cudaGetLastError(); }

// Number of different shared memory limits that kernels were given.
__attribute__((visibility("default"))) int cuda_on_host_limits_set() { return static_cast<int>(limits_set.size()); }

// As another library's failed call would leave it.
__attribute__((visibility("default"))) void cuda_on_host_set_last_error(int error) {
    last_error = static_cast<cudaError_t>(error);
}
}
