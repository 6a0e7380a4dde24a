// score_windows on tensor cores: packs the weights, marks the feature map tiles that windows read, computes those
// tiles, then computes the fully connected layers. The block algorithms are in core/tensor_core_feature_maps.h and
// core/tensor_core_fully_connected.h. They require TF32 and bfloat16 tensor cores (compute capability 8.0 or newer);
// csrc/cuda/score_windows/simt.cu serves older devices.
#include <algorithm>
#include <stdexcept>

#include "backend.h"
#include "core/device_instructions.h"
#include "core/tensor_core_feature_maps.h"
#include "core/tensor_core_fully_connected.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kMapLanes = 256;
constexpr int kPackBlocks = 32;
// The driver reserves this much shared memory per block.
constexpr std::int64_t kReservedBytes = 1024;

template <typename Format>
__global__ void __launch_bounds__(kMapLanes) pack_kernel(const __grid_constant__ TensorCoreRun run) {
#if __CUDA_ARCH__ >= 800
    DeviceWarps block;
    pack_weights<Format>(block, run, static_cast<int>(blockIdx.y), blockIdx.x, gridDim.x);
#endif
}

__global__ void __launch_bounds__(kMapLanes) mark_kernel(const __grid_constant__ TensorCoreRun run) {
    DeviceWarps block;
    mark_needed_tiles(block, run, static_cast<std::int64_t>(blockIdx.x) * kMapLanes);
}

template <typename Format>
__global__ void __launch_bounds__(kMapLanes, 2) feature_map_kernel(const __grid_constant__ TensorCoreRun run) {
#if __CUDA_ARCH__ >= 800
    DeviceWarps block;
    feature_map_tile<Format>(block, run, blockIdx.x, device::shared_memory<float>());
#endif
}

template <typename Shape>
__global__ void __launch_bounds__(kMaxFullyConnectedLanes, 1)
    fully_connected_kernel(const __grid_constant__ TensorCoreRun run) {
#if __CUDA_ARCH__ >= 800
    DeviceWarps block;
    fully_connected_block<Shape>(block, run, static_cast<std::int64_t>(blockIdx.x) * Shape::rows(block.warps()),
                                 device::shared_memory<unsigned char>());
#endif
}

unsigned grid(std::int64_t work, std::int64_t share) {
    const std::int64_t blocks = (work + share - 1) / share;
    if (blocks > 0x7FFFFFFF)
        throw std::invalid_argument("score_windows: the batch needs more blocks than a CUDA grid allows.");
    return static_cast<unsigned>(blocks);
}

template <typename Shape>
void launch_stages(const TensorCoreRun &run, bool pack, int block_lanes, Launch target) {
    using Format = typename Shape::Format;
    const char *const what = "score_windows";
    const cudaStream_t stream = stream_of(target);
    if (pack) {
        const LaunchShape shape{dim3(kPackBlocks, run.program.count), kMapLanes, 0};
        launch_kernel(what, pack_kernel<Format>, shape, stream, run);
    }
    if (run.needed_tiles != nullptr) {
        const LaunchShape shape{dim3(grid(run.window_count, kMapLanes)), kMapLanes, 0};
        launch_kernel(what, mark_kernel, shape, stream, run);
    }
    allow_shared(feature_map_kernel<Format>, target.device);
    const LaunchShape map_shape{dim3(grid(run.tile_count(), 1)), kMapLanes, run.buffers.bytes()};
    launch_kernel(what, feature_map_kernel<Format>, map_shape, stream, run);

    constexpr ColumnSplit split = Shape::kWarpsAcross == 1 ? ColumnSplit::whole : ColumnSplit::halves;
    if (block_lanes == 0) {
        const SharedMemory memory = tensor_core_shared_memory(target.device);
        block_lanes = choose_block_lanes(run.program, Format::kPerWord, split, memory);
    }
    const int rows = Shape::rows(block_lanes / kWarpLanes);
    allow_shared(fully_connected_kernel<Shape>, target.device);
    const LaunchShape shape{dim3(grid(run.window_count, rows)), static_cast<unsigned>(block_lanes),
                            fully_connected_shared_bytes(run.program, Format::kPerWord, rows)};
    launch_kernel(what, fully_connected_kernel<Shape>, shape, stream, run);
}

}  // namespace

SharedMemory tensor_core_shared_memory(int device) {
    if (attribute(cudaDevAttrComputeCapabilityMajor, device) < 8) return {0, 0};
    const std::int64_t block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const std::int64_t all = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    return {block, std::min(block, all / 2 - kReservedBytes)};
}

void score_windows_tensor_core(const TensorCoreRun &run, Precision precision, bool pack, int block_lanes,
                               Launch launch) {
    if (run.window_count == 0) return;
    if (block_lanes != 0 && block_lanes != kFullyConnectedLanes && block_lanes != kMaxFullyConnectedLanes)
        throw std::invalid_argument("score_windows: block_lanes must be 0, 128 or 256.");
    const DeviceGuard guard(launch.device);
    switch (precision) {
        case Precision::float32: return launch_stages<WideBlock<SplitTf32>>(run, pack, block_lanes, launch);
        case Precision::tf32: return launch_stages<SquareBlock<Tf32>>(run, pack, block_lanes, launch);
        case Precision::bfloat16: return launch_stages<SquareBlock<BFloat16Pair>>(run, pack, block_lanes, launch);
    }
}

}  // namespace t3ssfast::cuda
