// window_statistics, and the check for NaN and Inf.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "core/moment_strip.h"
#include "core/order_tile.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;
// (number of a Statistic, quantile)
using Requests = std::vector<std::pair<int, double>>;

std::vector<StatisticRequest> read_requests(const Requests &requests) {
    std::vector<StatisticRequest> statistics;
    for (const auto &[kind, fraction] : requests) statistics.push_back({static_cast<Statistic>(kind), fraction});
    return statistics;
}

std::optional<i64> window_statistics_cpu(const ImagesArgument &images, i64 size, const Requests &requests,
                                         const WindowsArgument &windows, std::uintptr_t out, bool stream, bool check,
                                         int threads) {
    return cpu::window_statistics(image_stack(images), size, read_requests(requests), window_list(windows),
                                  pointer<float>(out), stream, check, threads);
}

i64 window_statistics_workspace_cuda(const ImagesArgument &images, i64 size, const Requests &requests, int device) {
    return cuda::window_statistics_workspace(image_stack(images), size, read_requests(requests), {device, 0});
}

void window_statistics_cuda(const ImagesArgument &images, i64 size, const Requests &requests,
                            const WindowsArgument &windows, std::uintptr_t out, std::uintptr_t workspace,
                            i64 workspace_bytes, std::uintptr_t first_nonfinite, const LaunchArgument &target) {
    cuda::window_statistics(image_stack(images), size, read_requests(requests), window_list(windows),
                            pointer<float>(out), pointer<void>(workspace), workspace_bytes,
                            pointer<i64>(first_nonfinite), launch(target));
}

// Order statistics by a block that runs on the host. For tests.
template <typename Rank>
void emulate_order(const HostBlock &block, const StatisticsRun &run) {
    constexpr i64 kRows = 48, kColumns = 64;
    const OrderMemory<Rank> memory{run.size, kRows, kColumns, block.lanes()};
    std::vector<std::uint64_t> pixels(memory.pixel_bytes() / sizeof(std::uint64_t) + 1);
    std::vector<std::uint64_t> shared((memory.list_bytes() + memory.sort_bytes()) / sizeof(std::uint64_t) + 1);
    const BlockGrid grid = block_grid(run, kRows, kColumns, 0);
    for (i64 i = 0; i < grid.count; ++i) {
        order_tile<Rank>(block, run, memory, grid.tile(i, run.windows_y, run.windows_x),
                         reinterpret_cast<unsigned char *>(shared.data()),
                         reinterpret_cast<unsigned char *>(pixels.data()));
    }
}

// The algorithm of cuda::window_statistics, run on the host by a block of `lanes` lanes, with strips of `strip_rows`
// lattice cells; without `ring` as where the shared memory is too small. For tests.
void emulate_window_statistics(const ImagesArgument &images, i64 size, const Requests &requests,
                               const WindowsArgument &windows, std::uintptr_t out, int lanes, bool reversed,
                               i64 strip_rows, bool ring) {
    const HostBlock block(lanes, reversed);
    StatisticsRun run = statistics_run(image_stack(images), size, window_list(windows), pointer<float>(out));
    const MomentMemory moments{size, ring};
    std::vector<double> shared((moments.bytes() + sizeof(double) - 1) / sizeof(double));
    unsigned char *const memory = reinterpret_cast<unsigned char *>(shared.data());
    for (i64 slot = 0; slot < static_cast<i64>(requests.size()); ++slot) {
        const Statistic kind = static_cast<Statistic>(requests[slot].first);
        run.requests[0] = {kind, slot, requests[slot].second};
        run.request_count = 1;
        if (is_order(kind)) {
            ring ? emulate_order<std::uint16_t>(block, run) : emulate_order<std::uint32_t>(block, run);
        } else {
            const StripGrid grid = strip_grid(run, run.windows.dense() ? strip_rows : 1);
            for (i64 i = 0; i < grid.count; ++i) {
                if (ring) {
                    moment_strip<UpperInRegisters>(block, run, grid, i, moments, memory);
                } else {
                    moment_strip<UpperInMemory>(block, run, grid, i, moments, memory);
                }
            }
        }
    }
}

std::optional<i64> first_nonfinite(std::uintptr_t values, i64 count, int threads) {
    return cpu::first_nonfinite(pointer<const float>(values), count, threads);
}

void first_nonfinite_cuda(std::uintptr_t values, i64 count, std::uintptr_t first, const LaunchArgument &target) {
    cuda::first_nonfinite(pointer<const float>(values), count, pointer<i64>(first), launch(target));
}

}  // namespace

void register_window_statistics(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    module.def("window_statistics_cpu", &window_statistics_cpu, release());
    module.def("window_statistics_workspace_cuda", &window_statistics_workspace_cuda, release());
    module.def("window_statistics_cuda", &window_statistics_cuda, release());
    module.def("emulate_window_statistics", &emulate_window_statistics, release());
    module.def("first_nonfinite", &first_nonfinite, release());
    module.def("first_nonfinite_cuda", &first_nonfinite_cuda, release());
}

}  // namespace t3ssfast
