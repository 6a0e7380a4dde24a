// Stands in for the CUDA half in a build without it.
#include <stdexcept>

#include "backend.h"

namespace t3ssfast::cuda {
namespace {

[[noreturn]] void unavailable() {
    throw std::runtime_error(
        "This build of t3ssfast has no CUDA kernels; move the data to the CPU, or install it again where nvcc is "
        "found.");
}

}  // namespace

// ------------------------------------------------------------------------------- unfold and statistics

void unfold(ImageStack<const float>, const UnfoldRequest &, WindowList, void *, Launch) { unavailable(); }

std::int64_t window_statistics_workspace(ImageStack<const float>, std::int64_t, const std::vector<StatisticRequest> &,
                                         Launch) {
    unavailable();
}

void window_statistics(ImageStack<const float>, std::int64_t, const std::vector<StatisticRequest> &, WindowList,
                       float *, void *, std::int64_t, Launch) {
    unavailable();
}

// --------------------------------------------------------------------------------------------- sliding

void score_windows(const TileBatch &, Launch) { unavailable(); }

WarpMemory warp_memory(int) { return {0, 0}; }

void score_windows_warps(const WarpRun &, Precision, bool, int, Launch) { unavailable(); }

// ---------------------------------------------------------------------------------------------- device

int device_count() { return 0; }

std::string device_problem() { return "this build of t3ssfast has no CUDA kernels"; }

}  // namespace t3ssfast::cuda
