// smooth_along: averages scores at some voxels of a volume along an axis.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/sparse_smoothing.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;
// (addresses of indices and values, their count, height, width)
using VoxelsArgument = std::tuple<std::uintptr_t, std::uintptr_t, i64, i64, i64>;
// (address of the weights, radius, address of the sums of weights inside of the volume)
using KernelArgument = std::tuple<std::uintptr_t, i64, std::uintptr_t>;

void smooth_along_cpu(const VoxelsArgument &voxels, int axis, const KernelArgument &kernel, std::uintptr_t out,
                      int threads) {
    const auto &[index, value, count, height, width] = voxels;
    const auto &[weights, radius, inside] = kernel;
    cpu::smooth_along({pointer<const i64>(index), pointer<const float>(value), count, height, width}, axis,
                      {pointer<const double>(weights), radius, pointer<const float>(inside)}, pointer<float>(out),
                      threads);
}

}  // namespace

void register_sparse_smoothing(pybind11::module_ &module) {
    module.def("smooth_along_cpu", &smooth_along_cpu, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace t3ssfast
