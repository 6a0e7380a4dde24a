// score_windows: class scores of a chain of layers on every requested window.
#include <array>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/score_windows/packed_weights.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;

// ------------------------------------------------------------------------------------------- programs

// Layers as rows of nine integers (core/layers.h).
using Rows = std::vector<std::array<i64, 9>>;

// (rows, number of layers on feature maps, address of the parameters, number of parameters)
using ProgramArgument = std::tuple<Rows, i64, std::uintptr_t, i64>;

std::vector<Layer> read_layers(const Rows &rows) {
    std::vector<Layer> layers;
    for (const auto &row : rows)
        layers.push_back(
            {static_cast<LayerKind>(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]});
    return layers;
}

// The program without parameters: enough to compute sizes.
LayerProgram program_shape(const std::vector<Layer> &layers, i64 map_layers) {
    return {layers.data(), static_cast<i64>(layers.size()), map_layers, nullptr};
}

// The program whose layers are `layers`; throws std::invalid_argument if it is inconsistent.
LayerProgram checked_program(const std::vector<Layer> &layers, const ProgramArgument &argument, i64 size) {
    LayerProgram program = program_shape(layers, std::get<1>(argument));
    program.parameters = pointer<const float>(std::get<2>(argument));
    check_program(program, std::get<3>(argument), size);
    return program;
}

// ------------------------------------------------------------------------------------------------ CPU

std::shared_ptr<cpu::PreparedProgram> prepare_program(const ProgramArgument &argument, i64 size,
                                                      i64 winograd_min_windows, int level, i64 stride) {
    // An instruction set that this processor lacks would end the process.
    if (level < 0 || level > static_cast<int>(cpu::simd_level()))
        throw std::invalid_argument("score_windows: this processor lacks the instruction set that `simd` names.");
    std::vector<Layer> layers = read_layers(std::get<0>(argument));
    const LayerProgram program = checked_program(layers, argument, size);
    with_stride(layers, program.map_layers, stride);
    return cpu::prepare_program(program, std::get<3>(argument), winograd_min_windows,
                                static_cast<cpu::SimdLevel>(level));
}

void score_windows_cpu(const ImagesArgument &images, i64 size, const cpu::PreparedProgram &program,
                       const WindowsArgument &windows, const ScoresArgument &out, int threads) {
    cpu::score_windows(image_stack(images), size, program, window_list(windows), scores(out), threads);
}

// ----------------------------------------------------------------------------------------------- SIMT

// Floats of device workspace per tile of `tile` x `tile` windows.
i64 score_windows_simt_tile_floats(const Rows &rows, i64 map_layers, i64 tile) {
    const std::vector<Layer> layers = read_layers(rows);
    return 2 * tile_map_floats(program_shape(layers, map_layers), tile);
}

// One batch of tiles on a CUDA device or, where `lanes` is not 0, by emulated blocks of `lanes` lanes on the host.
void score_windows_simt(const ImagesArgument &images, i64 size, const ProgramArgument &argument, i64 tile,
                        std::uintptr_t tiles, i64 tile_count, std::uintptr_t windows, std::uintptr_t output_rows,
                        std::uintptr_t slots, i64 window_count, std::uintptr_t feature_maps, const ScoresArgument &out,
                        const LaunchArgument &target, int lanes, bool reversed) {
    const std::vector<Layer> layers = read_layers(std::get<0>(argument));
    const LayerProgram program = checked_program(layers, argument, size);
    const TileBatch batch{image_stack(images),
                          size,
                          program,
                          tile,
                          pointer<const i64>(tiles),
                          tile_count,
                          pointer<const i64>(windows),
                          pointer<const i64>(output_rows),
                          pointer<const i64>(slots),
                          window_count,
                          pointer<float>(feature_maps),
                          tile_map_floats(program, tile),
                          scores(out)};
    if (lanes > 0)
        cpu::emulate_score_windows_simt(batch, lanes, reversed);
    else
        cuda::score_windows_simt(batch, launch(target));
}

// --------------------------------------------------------------------------------------- tensor cores

// (32-bit words of packed weights, words per pixel of the feature map, rows and columns of the map beyond those of the
// windows, rows and columns of a tile of the map)
using TensorCoreLayout = std::tuple<i64, i64, i64, i64, i64, i64>;

// A device uses one split per precision; the emulation runs either.
ColumnSplit column_split(Precision precision, int device, bool wide) {
    const bool whole = device < 0 ? wide : precision == Precision::float32;
    return whole ? ColumnSplit::whole : ColumnSplit::halves;
}

// Sizes for a program on tensor cores. Feature map tiles use up to `tile_bytes` of shared memory and the fully
// connected layers up to `fully_connected_bytes`; for a CUDA device (0 or more) the device's limits replace both. Blocks
// of the fully connected layers have `block_lanes` threads; 0 lets the device decide.
// Throws std::invalid_argument if the program or the device does not support the tensor-core path.
TensorCoreLayout score_windows_tensor_core_layout(const Rows &rows, i64 map_layers, int precision, int device,
                                                  i64 tile_bytes, i64 fully_connected_bytes, bool wide,
                                                  int block_lanes) {
    SharedMemory memory{fully_connected_bytes, tile_bytes};
    if (device >= 0) {
        memory = cuda::tensor_core_shared_memory(device);
        if (memory.per_block == 0) reject_program("the device has no TF32 and bfloat16 tensor cores");
        tile_bytes = memory.per_block_of_two;
    }
    const std::vector<Layer> layers = read_layers(rows);
    const auto format = static_cast<Precision>(precision);
    const ColumnSplit split = column_split(format, device, wide);
    const BuiltStages built = build_stages(program_shape(layers, map_layers), format, split);
    const StageProgram &stages = built.program;
    const int per_word = values_per_word(format);
    const Extent tile = choose_feature_map_tile(stages, per_word, tile_bytes);
    if (tile.area() == 0) reject_program("the feature maps are larger than shared memory");
    if (block_lanes == 0) block_lanes = choose_block_lanes(stages, per_word, split, memory);
    if (fully_connected_shared_bytes(stages, per_word, block_rows(split, block_lanes)) > memory.per_block)
        reject_program("the hidden layers are larger than shared memory");
    const Stage &first = stages.first_fully_connected();
    return {built.packed_words, stages.pixel_words, first.reach_y(), first.reach_x(), tile.height, tile.width};
}

// One batch of images on a CUDA device or, where its index is -1, by emulated warps on the host. `range` is (first
// image, images, first row, rows) of the windows whose feature maps are in memory together, `tile` the (rows, columns)
// of a feature map tile, `blocks` (lanes, reversed, late, wide) of a WarpEmulation; a device only uses the lanes.
void score_windows_tensor_core(const ImagesArgument &images, i64 size, const ProgramArgument &argument, int precision,
                               const std::array<i64, 4> &range, const std::array<i64, 2> &tile,
                               std::uintptr_t packed_weights, bool pack, std::uintptr_t feature_maps,
                               std::uintptr_t needed_tiles, std::uintptr_t windows, i64 first_window, i64 window_count,
                               const ScoresArgument &out, const LaunchArgument &target,
                               const std::tuple<int, bool, bool, bool> &blocks) {
    const auto &[lanes, reversed, late, wide] = blocks;
    const int device = std::get<0>(target);
    const std::vector<Layer> layers = read_layers(std::get<0>(argument));
    const LayerProgram program = checked_program(layers, argument, size);
    const auto format = static_cast<Precision>(precision);
    TensorCoreRun run{};
    run.program = build_stages(program, format, column_split(format, device, wide)).program;
    run.images = image_stack(images);
    run.windows_y = valid_windows(run.images.height, size);
    run.windows_x = valid_windows(run.images.width, size);
    run.first_image = range[0];
    run.image_count = range[1];
    run.first_row = range[2];
    run.rows = range[3];
    run.parameters = program.parameters;
    run.packed_weights = pointer<std::uint32_t>(packed_weights);
    run.feature_maps = pointer<std::uint32_t>(feature_maps);
    run.needed_tiles = pointer<std::uint8_t>(needed_tiles);
    run.windows = pointer<const i64>(windows);
    run.first_window = first_window;
    run.window_count = window_count;
    const Stage &first = run.program.first_fully_connected();
    run.map = {run.rows + first.reach_y(), run.windows_x + first.reach_x()};
    run.tile = {tile[0], tile[1]};
    run.buffers = map_buffers(run.program, values_per_word(format), run.tile);
    run.out = scores(out);
    if (device < 0)
        cpu::emulate_score_windows_tensor_core(run, format, {lanes, reversed, late, wide});
    else
        cuda::score_windows_tensor_core(run, format, pack, lanes, launch(target));
}

// ------------------------------------------------------------------------------------------ for tests

// For a lane: (row, word) of its registers of A, (word, column) of B, of which two exist, and (row, column) of D.
using FragmentLayout = std::array<std::array<std::pair<int, int>, 4>, 3>;

FragmentLayout fragment_layout(int lane) {
    FragmentLayout layout{};
    for (int r = 0; r < 4; ++r) {
        layout[0][r] = {a_row(lane, r), a_word(lane, r)};
        layout[1][r] = {b_word(lane, r % 2), b_column(lane)};
        layout[2][r] = {d_row(lane, r), d_column(lane, r)};
    }
    return layout;
}

// d += a b for one product of fragments, one row per lane.
void multiply_fragments(int precision, std::uintptr_t a, std::uintptr_t b, std::uintptr_t d) {
    cpu::multiply_fragments(static_cast<Precision>(precision), pointer<const std::uint32_t>(a),
                            pointer<const std::uint32_t>(b), pointer<float>(d));
}

// The operands that represent each value, as floats: two per value for float32, otherwise one.
void convert_to_operands(int precision, std::uintptr_t values, i64 count, std::uintptr_t operands) {
    const auto *from = pointer<const float>(values);
    auto *to = pointer<std::uint32_t>(operands);
    for (i64 i = 0; i < count; ++i) {
        if (static_cast<Precision>(precision) == Precision::float32) {
            SplitTf32::terms(SplitTf32::word(from + i), reinterpret_cast<std::uint32_t (&)[2]>(to[2 * i]));
        } else if (static_cast<Precision>(precision) == Precision::tf32) {
            to[i] = bits_of(Tf32::prepare(from[i]));
        } else {
            const float pair[2] = {from[i], 0.0f};
            to[i] = BFloat16Pair::word(pair) << 16;
        }
    }
}

}  // namespace

void register_score_windows(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    pybind11::class_<cpu::PreparedProgram, std::shared_ptr<cpu::PreparedProgram>>(module, "PreparedProgram")
        .def_property_readonly("window_stride",
                               [](const cpu::PreparedProgram &prepared) { return prepared.program().window_stride(); });
    module.def("prepare_program", &prepare_program);
    module.def("score_windows_cpu", &score_windows_cpu, release());
    module.def("score_windows_simt_tile_floats", &score_windows_simt_tile_floats);
    module.def("score_windows_simt", &score_windows_simt, release());
    module.def("score_windows_tensor_core_layout", &score_windows_tensor_core_layout);
    module.def("score_windows_tensor_core", &score_windows_tensor_core, release());
    module.def("fragment_layout", &fragment_layout);
    module.def("multiply_fragments", &multiply_fragments);
    module.def("convert_to_operands", &convert_to_operands);
}

}  // namespace t3ssfast
