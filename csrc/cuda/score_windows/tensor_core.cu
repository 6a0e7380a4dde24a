// score_windows on tensor cores: packs the weights, marks the feature map tiles that windows read, computes those
// tiles, then computes the fully connected layers. The block algorithms are in core/tensor_core_feature_maps.h and
// core/tensor_core_fully_connected.h. They require TF32 and bfloat16 tensor cores (compute capability 8.0 or newer);
// csrc/cuda/score_windows/simt.cu serves older devices.
#include <algorithm>
#include <stdexcept>

#include "backend.h"
#include "core/tensor_core_feature_maps.h"
#include "core/tensor_core_fully_connected.h"
#include "cuda/check.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kMapLanes = 256;
// Registers limit the fully connected layers to 256 lanes per multiprocessor. With two blocks of 128 one can load or
// store while the other multiplies.
constexpr int kMaxFullyConnectedLanes = 256, kFullyConnectedLanes = 128;
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
    extern __shared__ Quad shared[];
    DeviceWarps block;
    feature_map_tile<Format>(block, run, blockIdx.x, reinterpret_cast<float *>(shared));
#endif
}

template <typename Shape>
__global__ void __launch_bounds__(kMaxFullyConnectedLanes, 1)
    fully_connected_kernel(const __grid_constant__ TensorCoreRun run) {
#if __CUDA_ARCH__ >= 800
    extern __shared__ Quad shared[];
    DeviceWarps block;
    fully_connected_block<Shape>(block, run, static_cast<std::int64_t>(blockIdx.x) * Shape::rows(block.warps()),
                                 reinterpret_cast<unsigned char *>(shared));
#endif
}

template <typename Kernel>
void allow_shared(Kernel *kernel, std::int64_t bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "Setting the shared memory limit");
}

unsigned grid(std::int64_t work, std::int64_t share) {
    const std::int64_t blocks = (work + share - 1) / share;
    if (blocks > 0x7FFFFFFF)
        throw std::invalid_argument("score_windows: the batch needs more blocks than a CUDA grid allows.");
    return static_cast<unsigned>(blocks);
}

template <typename Shape>
void launch_stages(const TensorCoreRun &run, bool pack, int block_lanes, cudaStream_t stream) {
    using Format = typename Shape::Format;
    const char *const what = "score_windows";
    if (pack) {
        pack_kernel<Format><<<dim3(kPackBlocks, run.program.count), kMapLanes, 0, stream>>>(run);
        check(cudaGetLastError(), what);
    }
    if (run.needed_tiles != nullptr) {
        mark_kernel<<<grid(run.window_count, kMapLanes), kMapLanes, 0, stream>>>(run);
        check(cudaGetLastError(), what);
    }
    const std::int64_t map_bytes = run.buffers.bytes();
    allow_shared(feature_map_kernel<Format>, map_bytes);
    feature_map_kernel<Format><<<grid(run.tile_count(), 1), kMapLanes, map_bytes, stream>>>(run);
    check(cudaGetLastError(), what);

    const int rows = Shape::rows(block_lanes / kWarpLanes);
    const std::int64_t fully_connected_bytes = fully_connected_shared_bytes(run.program, Format::kPerWord, rows);
    allow_shared(fully_connected_kernel<Shape>, fully_connected_bytes);
    fully_connected_kernel<Shape><<<grid(run.window_count, rows), block_lanes, fully_connected_bytes, stream>>>(run);
    check(cudaGetLastError(), what);
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
    if (block_lanes == 0) block_lanes = kFullyConnectedLanes;
    if (block_lanes != kFullyConnectedLanes && block_lanes != kMaxFullyConnectedLanes)
        throw std::invalid_argument("score_windows: block_lanes must be 0, 128 or 256.");
    const DeviceGuard guard(launch.device);
    const cudaStream_t stream = stream_of(launch);
    switch (precision) {
        case Precision::float32: return launch_stages<WideBlock<SplitTf32>>(run, pack, block_lanes, stream);
        case Precision::tf32: return launch_stages<SquareBlock<Tf32>>(run, pack, block_lanes, stream);
        case Precision::bfloat16: return launch_stages<SquareBlock<BFloat16Pair>>(run, pack, block_lanes, stream);
    }
}

}  // namespace t3ssfast::cuda
