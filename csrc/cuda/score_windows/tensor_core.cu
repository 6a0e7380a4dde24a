// score_windows on tensor cores: weights are packed, the tiles of the feature map that windows look at are marked and
// made, then the head answers the windows. The blocks are those of core/warp_sliding.h; they are built for devices
// that multiply TF32 and bfloat16 (compute capability 8.0 and newer), and csrc/cuda/score_windows/simt.cu serves others.
#include <algorithm>
#include <stdexcept>

#include "backend.h"
#include "core/score_windows_tensor_core.h"
#include "cuda/check.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kMapLanes = 256;
// Registers bound a head to 256 lanes a multiprocessor; in two blocks one begins or ends while the other multiplies.
constexpr int kMostHeadLanes = 256, kHeadLanes = 128;
constexpr int kPackBlocks = 32;
// Of each block the driver keeps this much for itself.
constexpr std::int64_t kReservedBytes = 1024;

template <typename Numbers>
__global__ void __launch_bounds__(kMapLanes) pack_kernel(const __grid_constant__ WarpRun run) {
#if __CUDA_ARCH__ >= 800
    DeviceWarps block;
    pack_weights<Numbers>(block, run, static_cast<int>(blockIdx.y), blockIdx.x, gridDim.x);
#endif
}

__global__ void __launch_bounds__(kMapLanes) mark_kernel(const __grid_constant__ WarpRun run) {
    DeviceWarps block;
    mark_tiles(block, run, static_cast<std::int64_t>(blockIdx.x) * kMapLanes);
}

template <typename Numbers>
__global__ void __launch_bounds__(kMapLanes, 2) map_kernel(const __grid_constant__ WarpRun run) {
#if __CUDA_ARCH__ >= 800
    extern __shared__ Quad shared[];
    DeviceWarps block;
    map_tile<Numbers>(block, run, blockIdx.x, reinterpret_cast<float *>(shared));
#endif
}

template <typename HeadKind>
__global__ void __launch_bounds__(kMostHeadLanes, 1) head_kernel(const __grid_constant__ WarpRun run) {
#if __CUDA_ARCH__ >= 800
    extern __shared__ Quad shared[];
    DeviceWarps block;
    answer_windows<HeadKind>(block, run, static_cast<std::int64_t>(blockIdx.x) * HeadKind::rows(block.warps()),
                             reinterpret_cast<unsigned char *>(shared));
#endif
}

template <typename Kernel>
void allow_shared(Kernel *kernel, std::int64_t bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "Asking for shared memory");
}

unsigned grid(std::int64_t work, std::int64_t share) {
    const std::int64_t blocks = (work + share - 1) / share;
    if (blocks > 0x7FFFFFFF) throw std::invalid_argument("score_windows: the batch has too many blocks.");
    return static_cast<unsigned>(blocks);
}

template <typename HeadKind>
void launch_stages(const WarpRun &run, bool pack, int lanes, cudaStream_t stream) {
    using Numbers = typename HeadKind::Numbers;
    const char *const what = "score_windows";
    if (pack) {
        pack_kernel<Numbers><<<dim3(kPackBlocks, run.program.count), kMapLanes, 0, stream>>>(run);
        check(cudaGetLastError(), what);
    }
    if (run.touched != nullptr) {
        mark_kernel<<<grid(run.window_count, kMapLanes), kMapLanes, 0, stream>>>(run);
        check(cudaGetLastError(), what);
    }
    const std::int64_t map_bytes = run.memory.bytes();
    allow_shared(map_kernel<Numbers>, map_bytes);
    map_kernel<Numbers><<<grid(run.tile_count(), 1), kMapLanes, map_bytes, stream>>>(run);
    check(cudaGetLastError(), what);

    const int rows = HeadKind::rows(lanes / kWarpLanes);
    const std::int64_t head_bytes = head_shared_bytes(run.program, Numbers::kPerWord, rows);
    allow_shared(head_kernel<HeadKind>, head_bytes);
    head_kernel<HeadKind><<<grid(run.window_count, rows), lanes, head_bytes, stream>>>(run);
    check(cudaGetLastError(), what);
}

}  // namespace

WarpMemory warp_memory(int device) {
    if (attribute(cudaDevAttrComputeCapabilityMajor, device) < 8) return {0, 0};
    const std::int64_t block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const std::int64_t all = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    return {block, std::min(block, all / 2 - kReservedBytes)};
}

void score_windows_warps(const WarpRun &run, Precision precision, bool pack, int lanes, Launch launch) {
    if (run.window_count == 0) return;
    if (lanes == 0) lanes = kHeadLanes;
    if (lanes != kHeadLanes && lanes != kMostHeadLanes)
        throw std::invalid_argument("score_windows: a head has 128 or 256 lanes.");
    const DeviceGuard guard(launch.device);
    const cudaStream_t stream = stream_of(launch);
    switch (precision) {
        case Precision::float32: return launch_stages<WideHead<SplitTf32>>(run, pack, lanes, stream);
        case Precision::tf32: return launch_stages<SquareHead<Tf32>>(run, pack, lanes, stream);
        case Precision::bfloat16: return launch_stages<SquareHead<BFloat16Pair>>(run, pack, lanes, stream);
    }
}

}  // namespace t3ssfast::cuda
