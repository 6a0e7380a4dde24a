// What was built, what was found on this machine, and the block-level algorithms run on the host for the tests.
#include <omp.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "core/tile.h"
#include "cpu/simd.h"

#ifndef T3SSFAST_CUDA_ARCHITECTURES
#define T3SSFAST_CUDA_ARCHITECTURES ""
#endif

namespace t3ssfast {
namespace {

std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

pybind11::dict build_info() {
    pybind11::dict info;
    info["compiler"] = compiler();
    info["openmp"] = _OPENMP;
    info["simd"] = cpu::simd_name();
    info["simd_level"] = static_cast<int>(cpu::simd_level());
#if defined(T3SSFAST_WITH_CUDA)
    info["cuda"] = true;
#else
    info["cuda"] = false;
#endif
    info["cuda_architectures"] = std::string(T3SSFAST_CUDA_ARCHITECTURES);
    info["cuda_devices"] = cuda::device_count();
    info["cuda_problem"] = cuda::device_problem();
    return info;
}

using i64 = std::int64_t;

// The CUDA half's statistics, tile after tile, by a block of `lanes` lanes on the host.
void block_window_statistics(std::uintptr_t images, i64 count, i64 height, i64 width, i64 size,
                             const std::vector<std::pair<int, double>> &requests, std::uintptr_t windows,
                             i64 window_count, std::uintptr_t out, int lanes, bool reversed, i64 panel) {
    const HostBlock block(lanes, reversed);
    StatisticsRun run = statistics_run(image_stack(images, count, height, width), size,
                                       window_list(windows, window_count), reinterpret_cast<float *>(out));
    std::vector<double> shared(
        (std::max(moment_block_bytes(size, panel), order_shared_bytes(lanes)) + sizeof(double) - 1) / sizeof(double));
    std::vector<std::uint32_t> workspace(order_workspace_bytes(size) / sizeof(std::uint32_t));
    unsigned char *const memory = reinterpret_cast<unsigned char *>(shared.data());
    for (i64 slot = 0; slot < static_cast<i64>(requests.size()); ++slot) {
        const Statistic kind = static_cast<Statistic>(requests[slot].first);
        run.requests[0] = {kind, slot, requests[slot].second};
        run.request_count = 1;
        const bool order = is_order(kind);
        const BlockGrid grid = order ? order_grid(run) : moment_grid(run);
        for (i64 i = 0; i < grid.count; ++i) {
            const Tile tile = grid.tile(i, run.windows_y, run.windows_x);
            if (order) {
                order_tile(block, run, tile, memory, workspace.data());
            } else {
                moment_tile(block, run, tile, panel, memory);
            }
        }
    }
}

void block_unfold(std::uintptr_t images, i64 count, i64 height, i64 width, i64 size, bool zscore, int element,
                  std::uintptr_t windows, i64 window_count, std::uintptr_t out, int lanes, bool reversed) {
    const HostBlock block(lanes, reversed);
    const UnfoldRun run = unfold_run(image_stack(images, count, height, width), size, zscore,
                                     window_list(windows, window_count), reinterpret_cast<void *>(out));
    std::vector<double> shared(unfold_shared_bytes(lanes) / sizeof(double));
    unsigned char *const memory = reinterpret_cast<unsigned char *>(shared.data());
    for (i64 i = 0; i < run.count; ++i) {
        switch (static_cast<Element>(element)) {
            case Element::float32: unfold_window<Float32>(block, run, i, memory); break;
            case Element::float16: unfold_window<Float16>(block, run, i, memory); break;
            case Element::bfloat16: unfold_window<BFloat16>(block, run, i, memory); break;
        }
    }
}

}  // namespace

void register_build(pybind11::module_ &module) {
    module.def("build_info", &build_info);
    module.def("block_window_statistics", &block_window_statistics);
    module.def("block_unfold", &block_unfold);
}

}  // namespace t3ssfast
