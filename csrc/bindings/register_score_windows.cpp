// score_windows: the answers of a LeNet-like chain on every window asked for.
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "cpu/score_windows/packed.h"

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

// ---------------------------------------------------------------------------------------- on tensor cores

// How a program runs in blocks of warps: (why it cannot or "", words of packed weights, words of a pixel of the
// feature map, its rows and columns beyond those of the windows, rows and columns of a tile of it). A tile may take
// `tile_bytes` of shared memory and a head `head_bytes`; on a CUDA device (0 or more) what it has.
using WarpLayout = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                              std::int64_t>;

// The device has a shape a precision; the host runs either.
HeadColumns head_columns(Precision precision, int device, bool wide) {
    const bool whole = device < 0 ? wide : precision == Precision::float32;
    return whole ? HeadColumns::whole : HeadColumns::halves;
}

WarpLayout score_windows_warp_layout(const Rows &rows, std::int64_t map_layers, int precision, int device,
                                     std::int64_t tile_bytes, std::int64_t head_bytes, bool wide) {
    const auto refuse = [](const char *why) { return WarpLayout(why, 0, 0, 0, 0, 0, 0); };
    if (device >= 0) {
        const cuda::WarpMemory memory = cuda::warp_memory(device);
        if (memory.one == 0) return refuse("the device multiplies neither TF32 nor bfloat16");
        tile_bytes = memory.two;
        head_bytes = memory.one;
    }
    const std::vector<Layer> layers = read_layers(rows);
    const LayerProgram program{layers.data(), static_cast<std::int64_t>(layers.size()), map_layers, nullptr};
    const auto numbers = static_cast<Precision>(precision);
    StageProgram stages;
    std::int64_t packed_words;
    const HeadColumns shape = head_columns(numbers, device, wide);
    if (const char *problem = read_stages(program, numbers, shape, stages, packed_words)) return refuse(problem);
    const int per_word = values_per_word(numbers);
    const Extent tile = choose_map_tile(stages, per_word, tile_bytes);
    if (tile.area() == 0) return refuse("its feature maps are larger than shared memory");
    constexpr int kRows = 128;
    if (head_shared_bytes(stages, per_word, kRows) > head_bytes)
        return refuse("its hidden layers are larger than shared memory");
    return WarpLayout("", packed_words, stages.pixel_words, stages.head().reach_y(), stages.head().reach_x(),
                      tile.height, tile.width);
}

// One batch of images: (images, count, height, width), the program, (first image, images, first row, rows) of
// windows whose maps are at hand together, (rows, columns) of a tile, buffers and answers. On a CUDA device, or
// where it is -1 by emulated warps on the host.
void score_windows_warps(std::uintptr_t images, std::int64_t count, std::int64_t height, std::int64_t width,
                         std::int64_t size, const Rows &rows, std::int64_t map_layers, std::uintptr_t parameters,
                         std::int64_t parameter_count, int precision, const std::array<std::int64_t, 4> &planes,
                         const std::array<std::int64_t, 2> &tile, std::uintptr_t packed, bool pack,
                         std::uintptr_t maps, std::uintptr_t touched, std::uintptr_t windows,
                         std::int64_t first_window, std::int64_t window_count, std::uintptr_t out,
                         std::int64_t window_stride, std::int64_t class_stride, int device, std::uintptr_t stream,
                         int lanes, bool reversed, bool late, bool wide) {
    const std::vector<Layer> layers = read_layers(rows);
    const LayerProgram program = checked_program(layers, map_layers, parameters, parameter_count, size);
    const auto numbers = static_cast<Precision>(precision);
    WarpRun run{};
    std::int64_t packed_words;
    const HeadColumns shape = head_columns(numbers, device, wide);
    if (const char *problem = read_stages(program, numbers, shape, run.program, packed_words))
        throw std::invalid_argument(std::string("score_windows: ") + problem + ".");
    run.images = image_stack(images, count, height, width);
    run.windows_y = valid_windows(height, size);
    run.windows_x = valid_windows(width, size);
    run.first_image = planes[0];
    run.planes = planes[1];
    run.first_row = planes[2];
    run.rows = planes[3];
    run.parameters = program.parameters;
    run.packed = reinterpret_cast<std::uint32_t *>(packed);
    run.maps = reinterpret_cast<std::uint32_t *>(maps);
    run.touched = reinterpret_cast<std::uint8_t *>(touched);
    run.windows = reinterpret_cast<const std::int64_t *>(windows);
    run.first_window = first_window;
    run.window_count = window_count;
    run.map = {run.rows + run.program.head().reach_y(), run.windows_x + run.program.head().reach_x()};
    run.tile = {tile[0], tile[1]};
    run.memory = map_memory(run.program, values_per_word(numbers), run.tile);
    run.out = {reinterpret_cast<float *>(out), window_stride, class_stride};
    if (device < 0)
        cpu::score_windows_warps(run, numbers, {lanes, reversed, late, wide});
    else
        cuda::score_windows_warps(run, numbers, pack, lanes, {device, stream});
}

// Row and word of A (4 registers), word and column of B (2), row and column of D (4) that a lane holds.
using FragmentPlaces = std::array<std::array<std::pair<int, int>, 4>, 3>;

FragmentPlaces fragment_places(int lane) {
    FragmentPlaces places{};
    for (int r = 0; r < 4; ++r) {
        places[0][r] = {a_row(lane, r), a_word(lane, r)};
        places[1][r] = {b_word(lane, r % 2), b_column(lane)};
        places[2][r] = {d_row(lane, r), d_column(lane, r)};
    }
    return places;
}

// d += a b of one product: float32 bits in, one lane a row.
void multiply_fragments(int precision, std::uintptr_t a, std::uintptr_t b, std::uintptr_t d) {
    cpu::multiply_fragments(static_cast<Precision>(precision), reinterpret_cast<const std::uint32_t *>(a),
                            reinterpret_cast<const std::uint32_t *>(b), reinterpret_cast<float *>(d));
}

// The terms that values become, two a value for "float32", else one, as floats.
void convert_values(int precision, std::uintptr_t values, std::int64_t count, std::uintptr_t terms) {
    const auto *from = reinterpret_cast<const float *>(values);
    auto *to = reinterpret_cast<std::uint32_t *>(terms);
    for (std::int64_t i = 0; i < count; ++i) {
        if (static_cast<Precision>(precision) == Precision::float32) {
            SplitTf32::terms(SplitTf32::word(from + i), reinterpret_cast<std::uint32_t(&)[2]>(to[2 * i]));
        } else if (static_cast<Precision>(precision) == Precision::tf32) {
            to[i] = bits_of(Tf32::prepare(from[i]));
        } else {
            const float pair[2] = {from[i], 0.0f};
            to[i] = BFloat16Pair::word(pair) << 16;
        }
    }
}

}  // namespace

void register_sliding(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    pybind11::class_<cpu::PreparedProgram, std::shared_ptr<cpu::PreparedProgram>>(module, "PreparedProgram");
    module.def("prepare_program", &prepare_program);
    module.def("score_windows_cpu", &score_windows_cpu, release());
    module.def("score_windows_tile_floats", &score_windows_tile_floats);
    module.def("score_windows_tiles", &score_windows_tiles, release());
    module.def("score_windows_warp_layout", &score_windows_warp_layout);
    module.def("score_windows_warps", &score_windows_warps, release());
    module.def("fragment_places", &fragment_places);
    module.def("multiply_fragments", &multiply_fragments);
    module.def("convert_values", &convert_values);
}

}  // namespace t3ssfast
