// score_windows on a CUDA device (SIMT): one launch per feature map layer over the tiles of a batch, then one launch
// for the fully connected layers of the requested windows. Tiles without windows are not launched.
#include <algorithm>
#include <stdexcept>

#include "backend.h"
#include "core/block.h"
#include "core/device_instructions.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kThreads = 256;
// Both kernel arguments together stay below the 4 KiB that every driver accepts.
constexpr std::int64_t kMaxLayers = 48;
// Blocks per tile, so that a few tiles also fill the device.
constexpr std::int64_t kBlocksPerTile = 8;
// Limit of grid.y.
constexpr std::int64_t kMaxGridTiles = 65535;

// The layers are a kernel argument, which avoids a copy to the device and its synchronisation.
struct LayerTable {
    Layer layers[kMaxLayers];
};

__device__ TileBatch with_layers(TileBatch batch, const LayerTable &table) {
    batch.program.layers = table.layers;
    return batch;
}

__global__ void __launch_bounds__(kThreads)
    feature_map_kernel(const __grid_constant__ TileBatch batch, const __grid_constant__ LayerTable table,
                       std::int64_t index, std::int64_t first_slot) {
    const DeviceBlock block;
    feature_map_layer(block, with_layers(batch, table), index, first_slot + blockIdx.y, blockIdx.x, gridDim.x);
}

__global__ void __launch_bounds__(kThreads)
    fully_connected_kernel(const __grid_constant__ TileBatch batch, const __grid_constant__ LayerTable table,
                           std::int64_t block_windows, std::int64_t width) {
    const DeviceBlock block;
    fully_connected_layers(block, with_layers(batch, table), blockIdx.x * block_windows, block_windows, width,
                           device::shared_memory<float>());
}

}  // namespace

void score_windows_simt(const TileBatch &batch, Launch launch) {
    if (batch.window_count == 0) return;
    const LayerProgram &program = batch.program;
    const std::int64_t block_windows = windows_per_block(program), width = fully_connected_width(program);
    if (program.count > kMaxLayers || block_windows < 1)
        throw std::invalid_argument(
            "score_windows: the model has more layers, or wider layers, than a CUDA block supports.");
    const DeviceGuard guard(launch.device);
    const cudaStream_t stream = stream_of(launch);
    LayerTable table{};
    std::copy(program.layers, program.layers + program.count, table.layers);
    for (std::int64_t index = 0; index < program.map_layers; ++index) {
        for (std::int64_t first = 0; first < batch.tile_count; first += kMaxGridTiles) {
            const auto slots = static_cast<unsigned>(std::min(kMaxGridTiles, batch.tile_count - first));
            const LaunchShape shape{dim3(kBlocksPerTile, slots), kThreads, 0};
            launch_kernel("score_windows", feature_map_kernel, shape, stream, batch, table, index, first);
        }
    }
    const auto blocks = static_cast<unsigned>((batch.window_count + block_windows - 1) / block_windows);
    const LaunchShape shape{dim3(blocks), kThreads,
                            2 * block_windows * width * static_cast<std::int64_t>(sizeof(float))};
    launch_kernel("score_windows", fully_connected_kernel, shape, stream, batch, table, block_windows, width);
}

}  // namespace t3ssfast::cuda
