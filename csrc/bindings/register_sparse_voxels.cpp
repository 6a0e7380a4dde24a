// Scores at some voxels of a volume: averages along an axis, local maxima, and centroids around them.
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
    module.def("local_maxima_cpu", &local_maxima_cpu, release());
    module.def("centroids_cpu", &centroids_cpu, release());
}

}  // namespace t3ssfast
