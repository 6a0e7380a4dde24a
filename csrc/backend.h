// The native API: namespaces cpu and cuda as plain functions over views. No torch, no Python.
//
// The caller (python/t3ssfast/kernels/_native) validates all arguments and owns every buffer. A cpu function takes the
// number of OpenMP threads. A cuda function takes device pointers and a Launch; it only enqueues work on that stream,
// never allocates device memory and never synchronises. Results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/element.h"
#include "core/probability_levels.h"
#include "core/score_windows_simt.h"
#include "core/statistic.h"
#include "core/tensor_core_program.h"
#include "core/view.h"

namespace t3ssfast {

// ---------------------------------------------------------------------------------------------- unfold

struct UnfoldRequest {
    std::int64_t size;
    bool zscore;  // scale each window to mean 0 and standard deviation 1; a constant window becomes zeros
    Element element;
};

namespace cpu {
// out: (windows, size, size) of request.element, C-contiguous. `stream` uses non-temporal stores: faster where `out` is
// larger than the caches and its pages are already mapped, slower otherwise.
void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out, bool stream,
            int threads);
}  // namespace cpu

namespace cuda {
void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out, Launch launch);
}  // namespace cuda

// ----------------------------------------------------------------------------------- window_statistics

namespace cpu {
// out: (statistics, windows) float32, C-contiguous. `stream` uses non-temporal stores for moments and extrema. The
// kernels require finite values: with `check`, returns the index of the first NaN or Inf and leaves `out` unchanged.
std::optional<std::int64_t> window_statistics(ImageStack<const float> images, std::int64_t size,
                                              const std::vector<StatisticRequest> &statistics, WindowList windows,
                                              float *out, bool stream, bool check, int threads);

// Index of the first NaN or Inf.
std::optional<std::int64_t> first_nonfinite(const float *values, std::int64_t count, int threads);
}  // namespace cpu

namespace cuda {
// Lowers `*first` to the index of the first NaN or Inf; `first` is device memory that holds `count` before.
void first_nonfinite(const float *values, std::int64_t count, std::int64_t *first, Launch launch);

// Bytes of device workspace that window_statistics needs; may be 0.
std::int64_t window_statistics_workspace(ImageStack<const float> images, std::int64_t size,
                                         const std::vector<StatisticRequest> &statistics, Launch launch);

// `first_nonfinite`, if it is not null, is lowered as first_nonfinite does. That needs every window and a moment or an
// extremum among the statistics, and costs no pass of its own. The values written are then undefined.
void window_statistics(ImageStack<const float> images, std::int64_t size,
                       const std::vector<StatisticRequest> &statistics, WindowList windows, float *out, void *workspace,
                       std::int64_t workspace_bytes, std::int64_t *first_nonfinite, Launch launch);
}  // namespace cuda

// --------------------------------------------------------------------------------------- score_windows

namespace cpu {
enum class SimdLevel : int;  // cpu/simd.h

// A program's weights in the layout of one instruction set; prepared once, used for many images.
struct PreparedProgram;

// winograd_min_windows: minimum number of requested windows per 3 x 3 block for the Winograd path; above 9 the path is
// never used. The windows are program.window_stride() pixels apart.
std::shared_ptr<PreparedProgram> prepare_program(const LayerProgram &program, std::int64_t parameter_count,
                                                 std::int64_t winograd_min_windows, SimdLevel level);

// Class scores of each window of those that are program.window_stride() pixels apart; listed windows are numbered among
// them. A score depends on the window's pixels and, within rounding, on which other windows of
// its patch of the image are requested (cpu/score_windows/dispatch.h). It does not depend on windows elsewhere, on the
// tiling or on the number of threads.
void score_windows(ImageStack<const float> images, std::int64_t size, const PreparedProgram &program,
                   WindowList windows, Scores out, int threads);
}  // namespace cpu

namespace cuda {
// SIMT path: one batch of tiles. All pointers are device pointers except program.layers, which is read on the host.
void score_windows_simt(const TileBatch &batch, Launch launch);

// Shared memory of a device with TF32 and bfloat16 tensor cores; zeros for an older device.
SharedMemory tensor_core_shared_memory(int device);

// Tensor-core path: the windows of one batch of images. All pointers are device pointers. `pack` packs the weights
// first. `block_lanes` is the number of threads per block of the fully connected layers; 0 lets the device decide.
void score_windows_tensor_core(const TensorCoreRun &run, Precision precision, bool pack, int block_lanes,
                               Launch launch);
}  // namespace cuda

// -------------------------------------------------------------------------------------- probability_levels

namespace cpu {
// Averages a slice with its neighbours, in levels of 8 bits. Returns whether all averages are finite.
bool probability_levels(const LevelsRun &run, int threads);
}  // namespace cpu

namespace cuda {
// The same on a device. Lowers `*first_nonfinite` to the index of the first average that is not finite.
void probability_levels(const LevelsRun &run, std::int64_t *first_nonfinite, Launch launch);
}  // namespace cuda

// --------------------------------------------------------------- the CUDA algorithms on the host, for tests

// How blocks of warps are emulated: lanes per block, whether warps and lanes run in reversed order, whether
// asynchronous copies complete as late as allowed, and which of the two column splits the fully connected layers use.
struct WarpEmulation {
    int lanes;
    bool reversed, late, wide;
};

namespace cpu {
// The algorithm of cuda::score_windows_simt, run by blocks of `lanes` lanes. Running the lanes in reversed order
// exposes a missing barrier.
void emulate_score_windows_simt(const TileBatch &batch, int lanes, bool reversed);

// The algorithm of cuda::score_windows_tensor_core; all pointers are host pointers.
void emulate_score_windows_tensor_core(const TensorCoreRun &run, Precision precision, const WarpEmulation &emulation);

// One product of fragments, one row per lane: a (32, 4), b (32, 2), d (32, 4).
void multiply_fragments(Precision precision, const std::uint32_t *a, const std::uint32_t *b, float *d);
}  // namespace cpu

// ---------------------------------------------------------------------------------------------- device

namespace cuda {
// Number of usable devices; 0 without a driver, without a device, or in a CPU-only build.
int device_count();

// Why there is no usable device, in the CUDA runtime's words; empty if there is one.
std::string device_problem();
}  // namespace cuda

}  // namespace t3ssfast
