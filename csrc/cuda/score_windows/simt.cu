// score_windows on a CUDA device: one launch a layer over the tiles of a batch, then the head over the windows
// asked for. Nothing is launched for tiles without windows.
#include <algorithm>
#include <stdexcept>

#include "backend.h"
#include "core/block.h"
#include "cuda/check.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kLanes = 256;
// Both kernel arguments together stay below the 4 KiB that every driver takes.
constexpr std::int64_t kMaxLayers = 48;
// Blocks that share a tile's map, so that a few tiles fill the device too.
constexpr std::int64_t kBlocksPerTile = 8;
// grid.y is 16 bits.
constexpr std::int64_t kMostTiles = 65535;

// The layers travel as a kernel argument, so that no copy to the device has to be waited for.
struct LayerTable {
    Layer layers[kMaxLayers];
};

__device__ TileBatch with_layers(TileBatch batch, const LayerTable &table) {
    batch.program.layers = table.layers;
    return batch;
}

__global__ void __launch_bounds__(kLanes)
    map_kernel(const __grid_constant__ TileBatch batch, const __grid_constant__ LayerTable table,
               std::int64_t index, std::int64_t first_slot) {
    const DeviceBlock block;
    map_layer(block, with_layers(batch, table), index, first_slot + blockIdx.y, blockIdx.x, gridDim.x);
}

__global__ void __launch_bounds__(kLanes)
    head_kernel(const __grid_constant__ TileBatch batch, const __grid_constant__ LayerTable table,
                std::int64_t positions, std::int64_t width) {
    extern __shared__ float shared[];
    const DeviceBlock block;
    head_layers(block, with_layers(batch, table), blockIdx.x * positions, positions, width, shared);
}

}  // namespace

void score_windows(const TileBatch &batch, Launch launch) {
    if (batch.window_count == 0) return;
    const LayerProgram &program = batch.program;
    const std::int64_t positions = block_positions(program), width = head_width(program);
    if (program.count > kMaxLayers || positions < 1)
        throw std::invalid_argument("score_windows: the model has more layers, or wider ones, than a CUDA block holds.");
    const DeviceGuard guard(launch.device);
    const cudaStream_t stream = stream_of(launch);
    LayerTable table{};
    std::copy(program.layers, program.layers + program.count, table.layers);
    for (std::int64_t index = 0; index < program.map_layers; ++index) {
        for (std::int64_t first = 0; first < batch.tile_count; first += kMostTiles) {
            const auto slots = static_cast<unsigned>(std::min(kMostTiles, batch.tile_count - first));
            map_kernel<<<dim3(kBlocksPerTile, slots), kLanes, 0, stream>>>(batch, table, index, first);
            check(cudaGetLastError(), "score_windows");
        }
    }
    const auto blocks = static_cast<unsigned>((batch.window_count + positions - 1) / positions);
    const auto shared = static_cast<std::size_t>(2 * positions * width) * sizeof(float);
    head_kernel<<<blocks, kLanes, shared, stream>>>(batch, table, positions, width);
    check(cudaGetLastError(), "score_windows");
}

}  // namespace t3ssfast::cuda
