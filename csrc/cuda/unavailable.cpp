// The cuda namespace of a CPU-only build: every kernel raises the same error.
#include <stdexcept>

#include "backend.h"

// Why they were not built, from cmake/cuda.cmake.
#ifndef T3SSFAST_CUDA_PROBLEM
#define T3SSFAST_CUDA_PROBLEM "it was built without CMake"
#endif

namespace t3ssfast::cuda {
namespace {

[[noreturn]] void unavailable() {
    throw std::runtime_error(
        "This build of t3ssfast has no CUDA kernels; move the data to the CPU, or reinstall t3ssfast where nvcc is "
        "available.");
}

}  // namespace

void unfold(ImageStack<const float>, const UnfoldRequest &, WindowList, void *, Launch) { unavailable(); }

std::int64_t window_statistics_workspace(ImageStack<const float>, std::int64_t, const std::vector<StatisticRequest> &,
                                         Launch) {
    unavailable();
}

void window_statistics(ImageStack<const float>, std::int64_t, const std::vector<StatisticRequest> &, WindowList,
                       float *, void *, std::int64_t, std::int64_t *, Launch) {
    unavailable();
}

void first_nonfinite(const float *, std::int64_t, std::int64_t *, Launch) { unavailable(); }

void score_windows_simt(const TileBatch &, Launch) { unavailable(); }

void probability_levels(const LevelsRun &, std::int64_t *, Launch) { unavailable(); }

SharedMemory tensor_core_shared_memory(int) { return {0, 0}; }

void score_windows_tensor_core(const TensorCoreRun &, Precision, bool, int, Launch) { unavailable(); }

int device_count() { return 0; }

std::string device_problem() { return "this build of t3ssfast has no CUDA kernels: " T3SSFAST_CUDA_PROBLEM; }

}  // namespace t3ssfast::cuda
