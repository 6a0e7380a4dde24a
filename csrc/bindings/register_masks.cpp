// Masks of 8 bits, C-contiguous: components and edges, the voxels of a mask and near it, counts of levels, and
// thresholds.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>

#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/mask_components.h"
#include "cpu/mask_edges.h"
#include "cpu/masks.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;
using cpu::MaskComponents;
using cpu::MaskEdges;

// (voxels, step, spacing, addresses of weights, radius, addresses of positions and boxes, number of boxes)
using EdgeAxisArgument = std::tuple<i64, i64, double, std::uintptr_t, i64, std::uintptr_t, std::uintptr_t, i64>;

cpu::EdgeAxis edge_axis(const EdgeAxisArgument &argument) {
    const auto &[voxels, step, spacing, weights, radius, position, box, boxes] = argument;
    return {voxels, step, spacing, pointer<const double>(weights), radius, pointer<const float>(position),
            pointer<const i64>(box), boxes};
}

std::unique_ptr<MaskEdges> find_edges(std::uintptr_t mask, const EdgeAxisArgument &z, const EdgeAxisArgument &y,
                                      const EdgeAxisArgument &x, float min_squared, int threads) {
    const cpu::EdgeGrid grid{
        pointer<const std::uint8_t>(mask), {edge_axis(z), edge_axis(y), edge_axis(x)}, min_squared};
    return std::make_unique<MaskEdges>(grid, threads);
}

void near_mask_cpu(const ImagesArgument &mask, i64 first, i64 end, i64 limit, std::uintptr_t out, int threads) {
    const auto &[address, depth, height, width] = mask;
    cpu::near_mask({pointer<const std::uint8_t>(address), depth, height, width, first, end, limit},
                   pointer<std::uint8_t>(out), threads);
}

void count_levels_cpu(std::uintptr_t levels, i64 count, std::uintptr_t counts, int threads) {
    cpu::count_levels(pointer<const std::uint8_t>(levels), count, pointer<i64>(counts), threads);
}

void threshold_levels_cpu(std::uintptr_t levels, i64 count, std::uint8_t lower, std::uint8_t upper, int threads) {
    cpu::threshold_levels(pointer<std::uint8_t>(levels), count, lower, upper, threads);
}

void count_nonzero_cpu(std::uintptr_t mask, i64 count, i64 length, std::uintptr_t counts, int threads) {
    cpu::count_nonzero({pointer<const std::uint8_t>(mask), count, length}, pointer<i64>(counts), threads);
}

void list_nonzero_cpu(std::uintptr_t mask, i64 count, i64 length, std::uintptr_t starts, std::uintptr_t index,
                      int threads) {
    cpu::list_nonzero({pointer<const std::uint8_t>(mask), count, length}, pointer<const i64>(starts),
                      pointer<i64>(index), threads);
}

// `squares`: (addresses of the marks of each plane, side) of each.
void keep_in_squares_cpu(const ImagesArgument &mask, i64 offset, i64 thickness,
                         const std::vector<std::tuple<std::vector<std::uintptr_t>, i64>> &squares, std::uintptr_t out,
                         int threads) {
    const auto &[address, depth, height, width] = mask;
    std::vector<cpu::MarkedSquares> marked;
    for (const auto &[addresses, side] : squares) {
        cpu::MarkedSquares &each = marked.emplace_back();
        each.side = side;
        for (const std::uintptr_t marks : addresses) each.planes.push_back(pointer<const std::uint8_t>(marks));
    }
    cpu::keep_in_squares({pointer<const std::uint8_t>(address), depth, height, width, offset, thickness}, marked,
                         pointer<std::uint8_t>(out), threads);
}

void mark_high_sums_cpu(const std::vector<std::uintptr_t> &images, const std::vector<double> &weights, i64 count,
                        double limit, std::uintptr_t marks, int threads) {
    cpu::WeightedImages weighted{{}, weights, count};
    for (const std::uintptr_t image : images) weighted.values.push_back(pointer<const float>(image));
    cpu::mark_high_sums(weighted, limit, pointer<std::uint8_t>(marks), threads);
}

void lower(const MaskComponents &components, std::uintptr_t slices, i64 first, i64 count, std::uintptr_t kept,
           i64 kept_count, int threads) {
    if (first < 0 || count < 0 || first + count > components.depth())
        throw std::invalid_argument("the slices to lower were not added");
    if (static_cast<std::size_t>(kept_count) != components.count())
        throw std::invalid_argument("expected one entry for each component");
    components.lower(pointer<std::uint8_t>(slices), first, count, pointer<const std::uint8_t>(kept), threads);
}

}  // namespace

void register_masks(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    module.def("near_mask_cpu", &near_mask_cpu, release());
    module.def("count_levels_cpu", &count_levels_cpu, release());
    module.def("threshold_levels_cpu", &threshold_levels_cpu, release());
    module.def("count_nonzero_cpu", &count_nonzero_cpu, release());
    module.def("list_nonzero_cpu", &list_nonzero_cpu, release());
    module.def("keep_in_squares_cpu", &keep_in_squares_cpu, release());
    module.def("mark_high_sums_cpu", &mark_high_sums_cpu, release());
    pybind11::class_<MaskComponents>(module, "MaskComponents")
        .def(pybind11::init<i64, i64, std::uint8_t>())
        .def(
            "add",
            [](MaskComponents &components, std::uintptr_t slices, i64 count, int threads) {
                components.add(pointer<const std::uint8_t>(slices), count, threads);
            },
            release())
        .def("faces", &MaskComponents::faces, release())
        .def("lower", &lower, release());
    pybind11::class_<MaskEdges>(module, "MaskEdges")
        .def(pybind11::init(&find_edges), release())
        .def("count", &MaskEdges::count)
        .def(
            "write",
            [](const MaskEdges &edges, std::uintptr_t box, std::uintptr_t rows, int threads) {
                edges.write(pointer<i64>(box), pointer<float>(rows), threads);
            },
            release());
}

}  // namespace t3ssfast
