// score_windows: the answers of a LeNet-like chain on every window asked for.
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/sliding/packed.h"

namespace t3ssfast {
namespace {

// The program's table comes as rows of integers; a wrong one must not read outside the parameters.
using Rows = std::vector<std::array<std::int64_t, 9>>;

std::vector<Layer> read_layers(const Rows &rows) {
    std::vector<Layer> layers;
    for (const auto &row : rows)
        layers.push_back({static_cast<LayerKind>(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7],
                          row[8]});
    return layers;
}

LayerProgram checked_program(const std::vector<Layer> &layers, std::int64_t map_layers, std::uintptr_t parameters,
                             std::int64_t parameter_count, std::int64_t size) {
    const LayerProgram program{layers.data(), static_cast<std::int64_t>(layers.size()), map_layers,
                               reinterpret_cast<const float *>(parameters)};
    if (const char *problem = program_problem(program, parameter_count, size))
        throw std::invalid_argument(std::string("score_windows: ") + problem + ".");
    return program;
}

using Prepared = std::shared_ptr<cpu::PreparedProgram>;

// Weights as the CPU kernel reads them.
Prepared prepare_program(const Rows &rows, std::int64_t map_layers, std::uintptr_t parameters,
                         std::int64_t parameter_count, std::int64_t size, std::int64_t least_of_nine, int level) {
    // An instruction set that this processor does not have would end the process.
    if (level < 0 || level > static_cast<int>(cpu::simd_level()))
        throw std::invalid_argument("score_windows: this processor lacks the instruction set asked for.");
    const std::vector<Layer> layers = read_layers(rows);
    return cpu::prepare_program(checked_program(layers, map_layers, parameters, parameter_count, size),
                                parameter_count, least_of_nine, static_cast<cpu::SimdLevel>(level));
}

void score_windows_cpu(std::uintptr_t images, std::int64_t count, std::int64_t height, std::int64_t width,
                       std::int64_t size, const cpu::PreparedProgram &program, std::uintptr_t windows,
                       std::int64_t window_count, std::uintptr_t out, std::int64_t window_stride,
                       std::int64_t class_stride, int threads) {
    cpu::score_windows(image_stack(images, count, height, width), size, program, window_list(windows, window_count),
                       {reinterpret_cast<float *>(out), window_stride, class_stride}, threads);
}

// Floats of device workspace that a tile of `tile` x `tile` windows takes.
std::int64_t score_windows_tile_floats(const Rows &rows, std::int64_t map_layers, std::int64_t tile) {
    const std::vector<Layer> layers = read_layers(rows);
    const LayerProgram program{layers.data(), static_cast<std::int64_t>(layers.size()), map_layers, nullptr};
    return 2 * tile_map_floats(program, tile);
}

// One batch of tiles, on a CUDA device or, where `lanes` is given, by host blocks of so many lanes.
void score_windows_tiles(std::uintptr_t images, std::int64_t count, std::int64_t height, std::int64_t width,
                         std::int64_t size, const Rows &rows, std::int64_t map_layers, std::uintptr_t parameters,
                         std::int64_t parameter_count, std::int64_t tile, std::uintptr_t tiles,
                         std::int64_t tile_count, std::uintptr_t windows, std::uintptr_t window_rows,
                         std::uintptr_t slots, std::int64_t window_count, std::uintptr_t maps, std::uintptr_t out,
                         std::int64_t window_stride, std::int64_t class_stride, int device, std::uintptr_t stream,
                         int lanes, bool reversed) {
    const std::vector<Layer> layers = read_layers(rows);
    const LayerProgram program = checked_program(layers, map_layers, parameters, parameter_count, size);
    const TileBatch batch{image_stack(images, count, height, width),
                          size,
                          program,
                          tile,
                          reinterpret_cast<const std::int64_t *>(tiles),
                          tile_count,
                          reinterpret_cast<const std::int64_t *>(windows),
                          reinterpret_cast<const std::int64_t *>(window_rows),
                          reinterpret_cast<const std::int64_t *>(slots),
                          window_count,
                          reinterpret_cast<float *>(maps),
                          tile_map_floats(program, tile),
                          {reinterpret_cast<float *>(out), window_stride, class_stride}};
    if (lanes > 0)
        cpu::score_windows_blocks(batch, lanes, reversed);
    else
        cuda::score_windows(batch, {device, stream});
}

}  // namespace

void register_sliding(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    pybind11::class_<cpu::PreparedProgram, std::shared_ptr<cpu::PreparedProgram>>(module, "PreparedProgram");
    module.def("prepare_program", &prepare_program);
    module.def("score_windows_cpu", &score_windows_cpu, release());
    module.def("score_windows_tile_floats", &score_windows_tile_floats);
    module.def("score_windows_tiles", &score_windows_tiles, release());
}

}  // namespace t3ssfast
