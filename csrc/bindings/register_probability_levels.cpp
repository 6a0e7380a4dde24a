// probability_levels: averages three slices, and rounds to levels of 8 bits.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;
// (addresses of three slices)
using SlicesArgument = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t>;
// (their weights)
using WeightsArgument = std::tuple<float, float, float>;

LevelsRun levels_run(const SlicesArgument &slices, const WeightsArgument &weights, i64 count, std::uintptr_t out) {
    const auto &[below, middle, above] = slices;
    const auto &[lowest, second, highest] = weights;
    return {pointer<const float>(below), pointer<const float>(middle), pointer<const float>(above),
            {lowest, second, highest}, count, pointer<std::uint8_t>(out)};
}

bool probability_levels_cpu(const SlicesArgument &slices, const WeightsArgument &weights, i64 count, std::uintptr_t out,
                            int threads) {
    return cpu::probability_levels(levels_run(slices, weights, count, out), threads);
}

void probability_levels_cuda(const SlicesArgument &slices, const WeightsArgument &weights, i64 count,
                             std::uintptr_t out, std::uintptr_t first_nonfinite, const LaunchArgument &target) {
    cuda::probability_levels(levels_run(slices, weights, count, out), pointer<i64>(first_nonfinite), launch(target));
}

}  // namespace

void register_probability_levels(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    module.def("probability_levels_cpu", &probability_levels_cpu, release());
    module.def("probability_levels_cuda", &probability_levels_cuda, release());
}

}  // namespace t3ssfast
