// window_statistics on the device. One kernel computes moments and extrema, marching down strips of lattice cells; the
// other computes order statistics from the ranks of the pixels under a tile. Both run the block algorithms of
// core/moment_strip.h and core/order_tile.h. Blocks loop over strips and tiles, so the workspace does not grow with the
// volume. A tile without a listed window costs only a search in the list.
//
// Order statistics from tile ranks, as on the CPU, are exact for float32 values, take time linear in the window's edge,
// and need no table of the image's values.
#include <algorithm>
#include <type_traits>

#include "backend.h"
#include "core/device_instructions.h"
#include "core/moment_strip.h"
#include "core/order_tile.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

using i64 = std::int64_t;

constexpr int kMomentThreads = 128;
// Ranks of 16 bits in shared memory; ranks of 32 bits in the workspace.
constexpr int kOrderThreads = 512, kWideOrderThreads = 128;
// Tiles of windows, the best first: those with the least pixels per window.
constexpr i64 kOrderTiles[][2] = {{64, 128}, {48, 128}, {64, 64}, {48, 64}, {32, 64}};
// Blocks of a launch without workspace per multiprocessor, several times as many as are resident; they loop over tiles.
constexpr i64 kLaunchedBlocks = 8;
// Blocks per multiprocessor: enough to hide latency, few enough to keep the workspace small. As a launch bound it
// leaves the kernels enough registers.
constexpr i64 kBlocksPerMultiprocessor = 4;
constexpr i64 kMomentBlocksPerMultiprocessor = 2;
// Shared memory of a block that the driver reserves.
constexpr i64 kReservedBytes = 1024;
// Strips are whole columns of cells unless that gives each resident block fewer strips than this.
constexpr i64 kStripsPerBlock = 4;

// Launch configuration of the kernel for moments and extrema.
struct MomentPlan {
    MomentMemory memory;
    StripGrid grid;
    i64 blocks;
    bool workspace;

    // What any strips of these images need.
    i64 workspace_bytes;
};

MomentPlan moment_plan(const StatisticsRun &run, int device) {
    const i64 per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const i64 multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
    MomentPlan plan{{run.size, true}, {}, 0, false, 0};
    if (plan.memory.bytes() > per_block) plan.memory.ring = false;
    plan.workspace = plan.memory.bytes() > per_block;
    const i64 fitting = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) /
                        (plan.workspace ? 1 : plan.memory.bytes() + kReservedBytes);
    const i64 resident = multiprocessors * std::min(fitting, kMomentBlocksPerMultiprocessor);
    // With a list, cells without a listed window are skipped, so a strip is one cell.
    plan.grid = strip_grid(run, 1);
    if (plan.workspace) plan.workspace_bytes = std::min(plan.grid.count, resident) * plan.memory.bytes();
    if (run.windows.dense()) {
        const i64 cells = plan.grid.count;
        plan.grid = strip_grid(run, std::clamp<i64>(cells / (kStripsPerBlock * resident), 1, plan.grid.cells.rows));
    }
    plan.blocks = std::min(plan.grid.count, plan.workspace ? resident : kLaunchedBlocks * multiprocessors);
    return plan;
}

// The largest tile whose ranks have 16 bits and whose memory fits; rows is 0 if there is none.
OrderMemory<std::uint16_t> order_memory(i64 size, int device) {
    const i64 per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    for (const i64(&tile)[2] : kOrderTiles) {
        const OrderMemory<std::uint16_t> memory{size, tile[0], tile[1], kOrderThreads};
        if (memory.fits_ranks() && memory.list_bytes() + memory.sort_bytes() + memory.pixel_bytes() <= per_block) {
            return memory;
        }
    }
    return {size, 0, 0, kOrderThreads};
}

OrderMemory<std::uint32_t> wide_order_memory(i64 size) {
    return {size, kOrderTiles[0][0], kOrderTiles[0][1], kWideOrderThreads};
}

BlockGrid wide_order_grid(const StatisticsRun &run) { return block_grid(run, kOrderTiles[0][0], kOrderTiles[0][1], 0); }

i64 wide_order_blocks(const StatisticsRun &run, int device) {
    return std::min(wide_order_grid(run).count,
                    kBlocksPerMultiprocessor * attribute(cudaDevAttrMultiProcessorCount, device));
}

template <bool kWorkspace>
__global__ void __launch_bounds__(kMomentThreads, kMomentBlocksPerMultiprocessor)
    moment_kernel(const __grid_constant__ StatisticsRun run, StripGrid grid, MomentMemory memory,
                  unsigned char *workspace) {
    unsigned char *const start =
        kWorkspace ? workspace + blockIdx.x * memory.bytes() : device::shared_memory<unsigned char>();
    const DeviceBlock block;
    using Upper = std::conditional_t<kWorkspace, UpperInMemory, UpperInRegisters>;
    for (i64 i = blockIdx.x; i < grid.count; i += gridDim.x) moment_strip<Upper>(block, run, grid, i, memory, start);
}

template <typename Rank>
__device__ __forceinline__ void order_tiles(const StatisticsRun &run, const BlockGrid &grid,
                                            const OrderMemory<Rank> &memory, unsigned char *shared,
                                            unsigned char *pixel_memory) {
    const DeviceBlock block;
    for (i64 i = blockIdx.x; i < grid.count; i += gridDim.x) {
        order_tile<Rank>(block, run, memory, grid.tile(i, run.windows_y, run.windows_x), shared, pixel_memory);
    }
}

__global__ void __launch_bounds__(kOrderThreads, 1)
    order_kernel(const __grid_constant__ StatisticsRun run, BlockGrid grid, OrderMemory<std::uint16_t> memory) {
    unsigned char *const pixels = device::shared_memory<unsigned char>();
    order_tiles(run, grid, memory, pixels + memory.pixel_bytes(), pixels);
}

__global__ void __launch_bounds__(kWideOrderThreads, kBlocksPerMultiprocessor)
    wide_order_kernel(const __grid_constant__ StatisticsRun run, BlockGrid grid, OrderMemory<std::uint32_t> memory,
                      unsigned char *workspace) {
    order_tiles(run, grid, memory, device::shared_memory<unsigned char>(),
                workspace + blockIdx.x * memory.pixel_bytes());
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
    i64 bytes = 0;
    for (const StatisticRequest &request : statistics) {
        if (is_order(request.kind)) {
            if (order_memory(size, launch.device).rows > 0) continue;
            bytes = std::max(bytes, wide_order_blocks(run, launch.device) * wide_order_memory(size).pixel_bytes());
        } else {
            bytes = std::max(bytes, moment_plan(run, launch.device).workspace_bytes);
        }
    }
    return bytes;
}

void window_statistics(ImageStack<const float> images, i64 size, const std::vector<StatisticRequest> &statistics,
                       WindowList windows, float *out, void *workspace, i64 workspace_bytes, i64 *first_nonfinite,
                       Launch launch) {
    StatisticsRun run = statistics_run(images, size, windows, out);
    if (run.plane == 0) return;
    if (workspace_bytes < window_statistics_workspace(images, size, statistics, launch)) {
        throw std::invalid_argument("window_statistics: the workspace is smaller than window_statistics_workspace.");
    }
    const DeviceGuard guard(launch.device);
    unsigned char *const memory = static_cast<unsigned char *>(workspace);
    run.first_nonfinite = reinterpret_cast<unsigned long long *>(first_nonfinite);
    for_requests(run, statistics, false, [&](const StatisticsRun &part) {
        const MomentPlan plan = moment_plan(part, launch.device);
        const LaunchShape shape{dim3(static_cast<unsigned>(plan.blocks)), kMomentThreads,
                                plan.workspace ? 0 : plan.memory.bytes()};
        const auto kernel = plan.workspace ? moment_kernel<true> : moment_kernel<false>;
        if (!plan.workspace) allow_shared(kernel, launch.device);
        launch_kernel("window_statistics (moments)", kernel, shape, stream_of(launch), part, plan.grid, plan.memory,
                      memory);
    });
    const OrderMemory<std::uint16_t> narrow = order_memory(size, launch.device);
    const OrderMemory<std::uint32_t> wide = wide_order_memory(size);
    const char *const order = "window_statistics (order)";
    for_requests(run, statistics, true, [&](const StatisticsRun &part) {
        if (narrow.rows > 0) {
            const BlockGrid grid = block_grid(part, narrow.rows, narrow.columns, 0);
            const i64 blocks =
                std::min(grid.count, kLaunchedBlocks * attribute(cudaDevAttrMultiProcessorCount, launch.device));
            const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), kOrderThreads,
                                    narrow.pixel_bytes() + narrow.list_bytes() + narrow.sort_bytes()};
            allow_shared(order_kernel, launch.device);
            launch_kernel(order, order_kernel, shape, stream_of(launch), part, grid, narrow);
        } else {
            const LaunchShape shape{dim3(static_cast<unsigned>(wide_order_blocks(part, launch.device))),
                                    kWideOrderThreads, wide.list_bytes() + wide.sort_bytes()};
            launch_kernel(order, wide_order_kernel, shape, stream_of(launch), part, wide_order_grid(part), wide,
                          memory);
        }
    });
}

}  // namespace t3ssfast::cuda
