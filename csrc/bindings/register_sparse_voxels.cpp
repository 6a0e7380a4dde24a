// Scores at some voxels of a volume: which matter, averages along an axis, local maxima and their centroids.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/sparse_smoothing.h"
#include "cpu/sparse_voxels.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;
// (addresses of indices and values, their count, height, width)
using VoxelsArgument = std::tuple<std::uintptr_t, std::uintptr_t, i64, i64, i64>;
// (address of the weights, radius, address of the sums of weights inside of the volume)
using KernelArgument = std::tuple<std::uintptr_t, i64, std::uintptr_t>;

cpu::SparseVoxels sparse_voxels(const VoxelsArgument &argument) {
    const auto &[index, value, count, height, width] = argument;
    return {pointer<const i64>(index), pointer<const float>(value), count, height, width};
}

void smooth_along_cpu(const VoxelsArgument &voxels, int axis, const KernelArgument &kernel, std::uintptr_t out,
                      int threads) {
    const auto &[weights, radius, inside] = kernel;
    cpu::smooth_along(sparse_voxels(voxels), axis,
                      {pointer<const double>(weights), radius, pointer<const float>(inside)}, pointer<float>(out),
                      threads);
}

bool ascend_cpu(std::uintptr_t index, i64 count, int threads) {
    return cpu::ascend(pointer<const i64>(index), count, threads);
}

void mark_columns_cpu(const VoxelsArgument &voxels, float floor, std::uintptr_t columns, int threads) {
    cpu::mark_columns(sparse_voxels(voxels), floor, pointer<std::uint8_t>(columns), threads);
}

void widen_columns_cpu(const std::vector<std::uintptr_t> &planes, i64 height, i64 width, i64 reach, std::uintptr_t out,
                       int threads) {
    std::vector<const std::uint8_t *> marks;
    for (const std::uintptr_t plane : planes) marks.push_back(pointer<const std::uint8_t>(plane));
    cpu::widen_columns(marks, height, width, reach, pointer<std::uint8_t>(out), threads);
}

// `columns` is an address, or 0 where `floor` decides.
std::vector<i64> count_kept_cpu(const VoxelsArgument &voxels, std::uintptr_t columns, float floor, int threads) {
    return cpu::count_kept(sparse_voxels(voxels), {pointer<const std::uint8_t>(columns), floor}, threads);
}

void write_kept_cpu(const VoxelsArgument &voxels, std::uintptr_t columns, float floor, std::uintptr_t starts,
                    std::uintptr_t index, std::uintptr_t value, int threads) {
    cpu::write_kept(sparse_voxels(voxels), {pointer<const std::uint8_t>(columns), floor}, pointer<const i64>(starts),
                    pointer<i64>(index), pointer<float>(value), threads);
}

std::vector<i64> local_maxima_cpu(const VoxelsArgument &voxels, float threshold, int threads) {
    return cpu::local_maxima(sparse_voxels(voxels), threshold, threads);
}

void centroids_cpu(const VoxelsArgument &voxels, std::uintptr_t peaks, i64 count, i64 radius, std::uintptr_t out,
                   int threads) {
    cpu::centroids(sparse_voxels(voxels), pointer<const i64>(peaks), count, radius, pointer<double>(out), threads);
}

}  // namespace

void register_sparse_voxels(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    module.def("smooth_along_cpu", &smooth_along_cpu, release());
    module.def("ascend_cpu", &ascend_cpu, release());
    module.def("mark_columns_cpu", &mark_columns_cpu, release());
    module.def("widen_columns_cpu", &widen_columns_cpu, release());
    module.def("count_kept_cpu", &count_kept_cpu, release());
    module.def("write_kept_cpu", &write_kept_cpu, release());
    module.def("local_maxima_cpu", &local_maxima_cpu, release());
    module.def("centroids_cpu", &centroids_cpu, release());
}

}  // namespace t3ssfast
