// CUDA errors as exceptions, and a guard for the current device.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/view.h"

namespace t3ssfast::cuda {

// A failed call also leaves its error behind for cudaGetLastError; it is cleared, or a later check would report it.
inline void check(cudaError_t status, const char *what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    throw std::runtime_error(std::string(what) + " failed on the CUDA device: " + cudaGetErrorString(status) + ".");
}

// Makes a device current for its lifetime, then restores the previous one.
class DeviceGuard {
public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "Reading the current device");
        if (device != previous_) {
            check(cudaSetDevice(device), "Choosing the device");
            changed_ = true;
        }
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(previous_);
    }
    DeviceGuard(const DeviceGuard &) = delete;
    DeviceGuard &operator=(const DeviceGuard &) = delete;

private:
    int previous_ = 0;
    bool changed_ = false;
};

inline cudaStream_t stream_of(const Launch &launch) { return reinterpret_cast<cudaStream_t>(launch.stream); }

inline int attribute(cudaDeviceAttr name, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device), "Reading a device attribute");
    return value;
}

}  // namespace t3ssfast::cuda
