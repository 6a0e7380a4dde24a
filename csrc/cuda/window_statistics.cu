// window_statistics on the device. One kernel computes moments and extrema from sums along columns, then rows, in
// shared memory; the other computes order statistics from the ranks of the pixels under a tile. Both run the block
// algorithms of core/moment_tile.h and core/order_tile.h. Blocks loop over the tiles, so the workspace does not grow with the volume. A
// tile without a listed window costs only a search in the list.
//
// Order statistics from tile ranks, as on the CPU, are exact for float32 values, take time linear in the window's edge,
// and need no table of the image's values.
#include <algorithm>

#include "backend.h"
#include "core/device_instructions.h"
#include "core/moment_tile.h"
#include "core/order_tile.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

using i64 = std::int64_t;

constexpr int kMomentThreads = 128;
constexpr int kOrderThreads = 128;
// Dynamic shared memory that every device provides without opting in.
constexpr i64 kSharedBytes = 48 << 10;
// Rows of windows per pass of a block: at most 16. Below 3, device memory is faster than shared memory.
constexpr i64 kMaxPanel = 16, kMinPanel = 3, kWorkspacePanel = 8;
constexpr i64 kMaxBlocks = 1 << 20;
// Blocks per multiprocessor: enough to hide latency, few enough to keep the workspace small. As a launch bound it
// leaves the kernels enough registers.
constexpr i64 kBlocksPerMultiprocessor = 4;

// Launch configuration of the kernel for moments and extrema.
struct MomentPlan {
    i64 panel, bytes, blocks;
    bool workspace;
};

MomentPlan moment_plan(const StatisticsRun &run, int multiprocessors) {
    const i64 tiles = moment_grid(run).count;
    i64 panel = std::min(kMaxPanel, run.size);
    while (panel > 1 && moment_block_bytes(run.size, panel) > kSharedBytes) --panel;
    if (moment_block_bytes(run.size, panel) <= kSharedBytes && panel >= std::min(kMinPanel, run.size)) {
        return {panel, moment_block_bytes(run.size, panel), std::min(tiles, kMaxBlocks), false};
    }
    return {kWorkspacePanel, moment_block_bytes(run.size, kWorkspacePanel),
            std::min(tiles, kBlocksPerMultiprocessor * multiprocessors), true};
}

i64 order_blocks(const StatisticsRun &run, int multiprocessors) {
    return std::min(order_grid(run).count, kBlocksPerMultiprocessor * multiprocessors);
}

__global__ void __launch_bounds__(kMomentThreads, kBlocksPerMultiprocessor)
    moment_kernel(StatisticsRun run, BlockGrid grid, i64 panel, unsigned char *workspace, i64 bytes) {
    unsigned char *memory =
        workspace != nullptr ? workspace + blockIdx.x * bytes : device::shared_memory<unsigned char>();
    const DeviceBlock block;
    for (i64 i = blockIdx.x; i < grid.count; i += gridDim.x) {
        moment_tile(block, run, grid.tile(i, run.windows_y, run.windows_x), panel, memory);
    }
}

__global__ void __launch_bounds__(kOrderThreads, kBlocksPerMultiprocessor)
    order_kernel(StatisticsRun run, BlockGrid grid, unsigned char *workspace, i64 bytes) {
    const DeviceBlock block;
    for (i64 i = blockIdx.x; i < grid.count; i += gridDim.x) {
        order_tile(block, run, grid.tile(i, run.windows_y, run.windows_x), device::shared_memory<unsigned char>(),
                   reinterpret_cast<std::uint32_t *>(workspace + blockIdx.x * bytes));
    }
}

// Calls launch_run(run) with as many requests of one kernel at a time as fit a launch.
template <typename LaunchRun>
void for_requests(StatisticsRun run, const std::vector<StatisticRequest> &statistics, bool order,
                  const LaunchRun &launch_run) {
    run.request_count = 0;
    for (std::size_t slot = 0; slot < statistics.size(); ++slot) {
        const StatisticRequest &request = statistics[slot];
        if (is_order(request.kind) == order) {
            run.requests[run.request_count++] = {request.kind, static_cast<i64>(slot), request.fraction};
        }
        if (run.request_count == kMaxRequests || (slot + 1 == statistics.size() && run.request_count > 0)) {
            launch_run(run);
            run.request_count = 0;
        }
    }
}

}  // namespace

i64 window_statistics_workspace(ImageStack<const float> images, i64 size,
                                const std::vector<StatisticRequest> &statistics, Launch launch) {
    const StatisticsRun run = statistics_run(images, size, {nullptr, 0}, nullptr);
    const int multiprocessors = attribute(cudaDevAttrMultiProcessorCount, launch.device);
    i64 bytes = 0;
    for (const StatisticRequest &request : statistics) {
        if (is_order(request.kind)) {
            bytes = std::max(bytes, order_blocks(run, multiprocessors) * order_workspace_bytes(size, kOrderThreads));
        } else {
            const MomentPlan plan = moment_plan(run, multiprocessors);
            bytes = std::max(bytes, plan.workspace ? plan.blocks * plan.bytes : 0);
        }
    }
    return bytes;
}

void window_statistics(ImageStack<const float> images, i64 size, const std::vector<StatisticRequest> &statistics,
                       WindowList windows, float *out, void *workspace, i64 workspace_bytes, Launch launch) {
    const StatisticsRun run = statistics_run(images, size, windows, out);
    if (run.plane == 0) return;
    if (workspace_bytes < window_statistics_workspace(images, size, statistics, launch)) {
        throw std::invalid_argument("window_statistics: the workspace is smaller than window_statistics_workspace.");
    }
    const DeviceGuard guard(launch.device);
    const int multiprocessors = attribute(cudaDevAttrMultiProcessorCount, launch.device);
    unsigned char *const memory = static_cast<unsigned char *>(workspace);
    for_requests(run, statistics, false, [&](const StatisticsRun &part) {
        const MomentPlan plan = moment_plan(part, multiprocessors);
        const LaunchShape shape{dim3(static_cast<unsigned>(plan.blocks)), kMomentThreads,
                                plan.workspace ? 0 : plan.bytes};
        launch_kernel("window_statistics (moments)", moment_kernel, shape, stream_of(launch), part, moment_grid(part),
                      plan.panel, plan.workspace ? memory : nullptr, plan.bytes);
    });
    for_requests(run, statistics, true, [&](const StatisticsRun &part) {
        const LaunchShape shape{dim3(static_cast<unsigned>(order_blocks(part, multiprocessors))), kOrderThreads,
                                order_shared_bytes(kOrderThreads)};
        launch_kernel("window_statistics (order)", order_kernel, shape, stream_of(launch), part, order_grid(part),
                      memory, order_workspace_bytes(size, kOrderThreads));
    });
}

}  // namespace t3ssfast::cuda
