// The two twins, cpu:: and cuda::, as plain functions over views. No torch, no Python.
//
// The caller has validated everything (python/t3ssfast/_native) and owns every buffer. A cpu function takes
// the number of OpenMP threads; a cuda function takes device pointers and a Launch, only enqueues work on that
// stream, never allocates device memory and never synchronises. Results do not depend on the thread count.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/element.h"
#include "core/score_windows_simt.h"
#include "core/statistic.h"
#include "core/view.h"
#include "core/tensor_core_program.h"

namespace t3ssfast {

// ---------------------------------------------------------------------------------------------- unfold

struct UnfoldRequest {
    std::int64_t size;
    bool zscore;  // each window to mean 0, standard deviation 1; a constant window to zeros
    Element element;
};

namespace cpu {
// out: (windows, size, size) of request.element, C-contiguous. `stream` writes past the caches: faster where `out`
// is larger than they are and its pages are there already, slower otherwise.
void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out,
            bool stream, int threads);
}  // namespace cpu

namespace cuda {
void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out,
            Launch launch);
}  // namespace cuda

// ------------------------------------------------------------------------------------------ statistics

namespace cpu {
// out: (statistics, windows) float32, C-contiguous. `stream` writes moments and extrema past the caches. `check` looks
// for values that are not finite, which the kernels cannot take: the index of the first, and then `out` is left as it
// is; -1 where there is none.
std::int64_t window_statistics(ImageStack<const float> images, std::int64_t size,
                               const std::vector<StatisticRequest> &statistics, WindowList windows, float *out,
                               bool stream, bool check, int threads);

// Index of the first NaN or Inf, or -1.
std::int64_t first_nonfinite(const float *values, std::int64_t count, int threads);
}  // namespace cpu

namespace cuda {
// Bytes of device workspace that window_statistics needs; may be 0.
std::int64_t window_statistics_workspace(ImageStack<const float> images, std::int64_t size,
                                         const std::vector<StatisticRequest> &statistics, Launch launch);

void window_statistics(ImageStack<const float> images, std::int64_t size,
                       const std::vector<StatisticRequest> &statistics, WindowList windows, float *out,
                       void *workspace, std::int64_t workspace_bytes, Launch launch);
}  // namespace cuda

// --------------------------------------------------------------------------------------------- sliding

namespace cpu {
enum class SimdLevel : int;  // cpu/simd.h

// A program's weights as one instruction set reads them: made once, used for many images.
struct PreparedProgram;

// least_of_nine: asked for in nine windows that lie together from which all nine get their first hidden layer at once,
// by minimal filtering; above 9 every window gets it by itself.
std::shared_ptr<PreparedProgram> prepare_program(const LayerProgram &program, std::int64_t parameter_count,
                                                       std::int64_t least_of_nine, SimdLevel level);

// What a chain of layers answers on each window. An answer depends on the window's pixels and, within rounding, on
// which windows of its patch of the image are asked for (cpu/sliding/places.h); not on others, on the tiling or on
// the thread count.
void score_windows(ImageStack<const float> images, std::int64_t size, const PreparedProgram &program,
                   WindowList windows, Scores out, int threads);

// The CUDA twin's schedule, run on the host by blocks of `lanes` lanes, in reversed order where asked: a barrier
// that is missing shows only then. For tests.
void score_windows_blocks(const TileBatch &batch, int lanes, bool reversed);
}  // namespace cpu

namespace cuda {
// One batch of tiles; all pointers are device pointers but program.layers, which is read on the host.
void score_windows(const TileBatch &batch, Launch launch);
}  // namespace cuda

// How blocks of warps run on the host: lanes a block, in which order, whether copies land as late as they may, and
// which of the two shapes of a head.
struct WarpChoice {
    int lanes;
    bool reversed, late, wide;
};

namespace cpu {
// The schedule of cuda::score_windows_warps on the host; all pointers are host pointers. For tests.
void score_windows_warps(const WarpRun &run, Precision precision, const WarpChoice &choice);

// One product of fragments, lane by lane: a (32, 4), b (32, 2), d (32, 4). For tests.
void multiply_fragments(Precision precision, const std::uint32_t *a, const std::uint32_t *b, float *d);
}  // namespace cpu

namespace cuda {
// Shared memory that one block may have, and each of two on one multiprocessor, on a device that multiplies TF32 and
// bfloat16; 0 on an older one.
struct WarpMemory {
    std::int64_t one, two;
};
WarpMemory warp_memory(int device);

// Windows of one batch of images, on tensor cores; all pointers are device pointers. Packs the weights first where
// asked to, and notes the tiles that windows look at where there is a list of them. `lanes` a block of the head; 0
// leaves the choice to the device.
void score_windows_warps(const WarpRun &run, Precision precision, bool pack, int lanes, Launch launch);
}  // namespace cuda

// ---------------------------------------------------------------------------------------------- device

namespace cuda {
// Devices that can be used now: 0 without a driver, without a device, or in a CPU-only build.
int device_count();

// Why there are none, in the CUDA runtime's words; empty where there are some.
std::string device_problem();
}  // namespace cuda

}  // namespace t3ssfast
