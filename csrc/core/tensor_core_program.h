// Tensor-core path of score_windows: the program, the run, and the memory they need.
//
// Layers are grouped into stages: a convolution, a fully connected layer or a pooling, with the element-wise layers
// that follow. Feature maps are computed one tile at a time in shared memory and stored once, for whole images, in (y,
// x, channel) order as the words that tensor cores read. The fully connected layers are products with one row per
// window, gathered from that map. Weights are packed once in the order in which lanes read them.
#pragma once

#include <cstdint>

#include "core/fragment.h"
#include "core/layers.h"
#include "core/macros.h"
#include "core/view.h"
#include "core/window.h"

namespace t3ssfast {

// The numbers are those of `precision` in python/t3ssfast/kernels/_native/tensor_core.py.
enum class Precision : int { float32 = 0, tf32 = 1, bfloat16 = 2 };

inline int values_per_word(Precision precision) { return precision == Precision::bfloat16 ? 2 : 1; }

// The run and its stages are one kernel argument, below the 4 KiB that every driver accepts.
constexpr int kMaxStages = 16, kMaxElementwiseLayers = 24;

// An element-wise layer.
struct ElementwiseLayer {
    LayerKind kind;
    std::int64_t parameters;
};

struct Stage {
    LayerKind kind;  // convolution, linear, max_pool or average_pool; a pooling with one tap is the identity
    int in_channels, out_channels, kernel_y, kernel_x, step_y, step_x;
    bool relu;                                 // the stage is followed directly by a ReLU
    int first_elementwise, elementwise_count;  // further element-wise layers
    // Weighted stages: K in groups, channels per tap along K, columns in fragments, offset of the packed weights, and
    // offset of the parameters.
    int groups, tap_channels, column_fragments;
    std::int64_t packed_weights, parameters;

    T3_HD bool weighted() const { return kind == LayerKind::convolution || kind == LayerKind::linear; }
    T3_HD int taps() const { return kernel_y * kernel_x; }
    T3_HD int reach_y() const { return (kernel_y - 1) * step_y; }
    T3_HD int reach_x() const { return (kernel_x - 1) * step_x; }
    T3_HD std::int64_t bias() const {
        return parameters + static_cast<std::int64_t>(taps()) * in_channels * out_channels;
    }
};

// The first `map_stages` stages compute the feature map; the last of them is a pooling or the identity. The other
// stages are fully connected. `normalisation` is softmax or log_softmax after the last layer, or relu for none.
struct StageProgram {
    Stage stages[kMaxStages];
    ElementwiseLayer elementwise[kMaxElementwiseLayers];
    int count, map_stages;
    LayerKind normalisation;
    int pixel_words;  // per pixel of the feature map, a multiple of a 16-byte quad

    T3_HD const Stage &first_fully_connected() const { return stages[map_stages]; }
    T3_HD int classes() const { return stages[count - 1].out_channels; }
};

// ----------------------------------------------------------------------------------------- fully connected

// Shape of a block that computes some rows of windows. Its warps form a grid; each holds kRowFragments x
// kColumnFragments fragments of sums, which fill its registers. The columns of all warps add up to kMaxColumnFragments,
// the widest fully connected layer supported. One warp across needs no rounding of the columns to its width, which pays
// where products dominate the time; two warps across read less shared memory per product.
constexpr int kMaxColumnFragments = 16;

template <typename FormatOf, int kRows, int kColumns>
struct BlockShape {
    using Format = FormatOf;
    static constexpr int kRowFragments = kRows, kColumnFragments = kColumns;
    static constexpr int kWarpsAcross = kMaxColumnFragments / kColumns;

    // Windows per block; `warps` is a multiple of kWarpsAcross.
    T3_HD static int rows(int warps) { return warps / kWarpsAcross * kRowFragments * kFragmentRows; }
};

// How the warps split the columns of the first fully connected layer: each takes all, or half.
enum class ColumnSplit { whole, halves };

// Threads per block; registers limit the fully connected layers to the larger number per multiprocessor.
constexpr int kMaxFullyConnectedLanes = 256, kFullyConnectedLanes = 128;

template <typename Format>
using WideBlock = BlockShape<Format, 2, 16>;
template <typename Format>
using SquareBlock = BlockShape<Format, 4, 8>;

// Windows per block of `lanes` threads.
inline int block_rows(ColumnSplit split, int lanes) {
    const int warps = lanes / kWarpLanes;
    return split == ColumnSplit::whole ? WideBlock<void>::rows(warps) : SquareBlock<void>::rows(warps);
}

// Words of K per row that are in shared memory at once: one cache line per row. kPipelineSlots chunks are in flight.
constexpr int kChunkGroups = 2, kChunkWords = kChunkGroups * kGroupWords, kChunkQuads = kChunkWords / kQuadWords;
constexpr int kPipelineSlots = 3;

// Division of a pixel index by a tile width with one multiplication. Exact where neither side reaches kMaxDividend: the
// error, below pixel / 2^24, is then below 1 / width.
struct FastDivisor {
    static constexpr int kMaxDividend = 256;
    std::uint32_t factor;

    T3_HD explicit FastDivisor(int width) : factor((1u << 24) / static_cast<std::uint32_t>(width) + 1) {}
    T3_HD int operator()(int pixel) const { return static_cast<int>(static_cast<std::uint32_t>(pixel) * factor >> 24); }
};

T3_HD int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Values along K of a hidden layer of `width`, padded to whole groups.
T3_HD int padded_width(int width, int per_word) { return round_up(width, kGroupWords * per_word); }

// Floats between rows of hidden values: offset by four banks, so that four values of eight rows lie in different banks.
T3_HD int hidden_row_floats(const StageProgram &program, int per_word) {
    int widest = 0;
    for (int i = program.map_stages; i < program.count; ++i) {
        const int columns = program.stages[i].column_fragments * kFragmentColumns;
        const int values = padded_width(program.stages[i].out_channels, per_word);
        widest = columns > widest ? columns : widest;
        widest = values > widest ? values : widest;
    }
    return round_up(widest, 32) + 4;
}

// Words of one pipeline slot: the rows' share and the weights' share.
T3_HD int pipeline_slot_words(int rows, int column_fragments) {
    return rows * kChunkWords + kChunkGroups * column_fragments * kWarpLanes * kQuadWords;
}

// Pipeline slots, later replaced by hidden values, and the offset of each row's window in the feature map.
T3_HD std::int64_t fully_connected_shared_bytes(const StageProgram &program, int per_word, int rows) {
    const std::int64_t slots = static_cast<std::int64_t>(kPipelineSlots) *
                               pipeline_slot_words(rows, program.first_fully_connected().column_fragments);
    const std::int64_t hidden = static_cast<std::int64_t>(rows) * hidden_row_floats(program, per_word);
    return (slots > hidden ? slots : hidden) * static_cast<std::int64_t>(sizeof(std::uint32_t)) +
           rows * static_cast<std::int64_t>(sizeof(std::int64_t));
}

// Shared memory that one block may use, and that each of two blocks on one multiprocessor may use.
struct SharedMemory {
    std::int64_t per_block, per_block_of_two;
};

// Threads per block of the fully connected layers. With two blocks of 128, one can load or store while the other
// multiplies. Where only one of them fits a multiprocessor, one of 256 keeps twice as many warps there, if it fits.
inline int choose_block_lanes(const StageProgram &program, int per_word, ColumnSplit split, SharedMemory memory) {
    const auto bytes = [&](int lanes) {
        return fully_connected_shared_bytes(program, per_word, block_rows(split, lanes));
    };
    const bool two_fit = bytes(kFullyConnectedLanes) <= memory.per_block_of_two;
    return !two_fit && bytes(kMaxFullyConnectedLanes) <= memory.per_block ? kMaxFullyConnectedLanes
                                                                           : kFullyConnectedLanes;
}

// --------------------------------------------------------------------------------------------- feature maps

// Extent of the input of stage `index` for an output of the last map stage of `tile`.
T3_HD Extent stage_input(const StageProgram &program, int index, Extent tile) {
    for (int i = program.map_stages - 1; i >= index; --i) {
        tile.height += program.stages[i].reach_y();
        tile.width += program.stages[i].reach_x();
    }
    return tile;
}

// Floats of the tap table and of each of the two buffers between which the stages of a tile alternate.
struct MapBuffers {
    std::int64_t taps, even, odd;

    T3_HD std::int64_t bytes() const { return (taps + even + odd) * static_cast<std::int64_t>(sizeof(float)); }
};

inline MapBuffers map_buffers(const StageProgram &program, int per_word, Extent tile) {
    std::int64_t taps = 0, buffers[2] = {0, 0};
    for (int i = 0; i < program.map_stages; ++i) {
        const Stage &stage = program.stages[i];
        const std::int64_t floats = (stage_input(program, i, tile).area() * stage.in_channels + 3) / 4 * 4;
        const std::int64_t tap_values = stage.weighted() ? stage.groups * kGroupWords * per_word : 0;
        buffers[i % 2] = floats > buffers[i % 2] ? floats : buffers[i % 2];
        taps = tap_values > taps ? tap_values : taps;
    }
    return {taps, buffers[0], buffers[1]};
}

// The largest tile whose feature maps fit into `bytes` and within FastDivisor's limits; {0, 0} if none does.
inline Extent choose_feature_map_tile(const StageProgram &program, int per_word, std::int64_t bytes) {
    Extent best{0, 0};
    for (std::int64_t height = 8; height <= 32; height += 8) {
        for (std::int64_t width = height; width <= 32; width += 8) {
            const Extent tile{height, width}, whole = stage_input(program, 0, tile);
            const bool fits = map_buffers(program, per_word, tile).bytes() <= bytes &&
                              whole.height < FastDivisor::kMaxDividend && whole.width < FastDivisor::kMaxDividend;
            if (fits && tile.area() > best.area()) best = tile;
        }
    }
    return best;
}

// ------------------------------------------------------------------------------------------------- the run

// Windows of rows [first_row, first_row + rows) of `image_count` images from first_image on, whose feature maps are in
// memory together. `windows` lists them, or is nullptr if they are consecutive from first_window on. Scores are written
// to the rows first_window + i of the output.
struct TensorCoreRun {
    ImageStack<const float> images;
    std::int64_t windows_y, windows_x;
    std::int64_t first_image, image_count, first_row, rows;
    const float *parameters;
    std::uint32_t *packed_weights;
    std::uint32_t *feature_maps;  // (image_count, map height, map width, pixel_words)
    std::uint8_t *needed_tiles;   // (image_count, tiles down, tiles across), or nullptr for all
    const std::int64_t *windows;
    std::int64_t first_window, window_count;
    Extent map, tile;
    MapBuffers buffers;  // of a tile
    Scores out;
    StageProgram program;

    T3_HD std::int64_t tiles_down() const { return (map.height + tile.height - 1) / tile.height; }
    T3_HD std::int64_t tiles_across() const { return (map.width + tile.width - 1) / tile.width; }
    T3_HD std::int64_t tile_count() const { return image_count * tiles_down() * tiles_across(); }

    // Image (counted from first_image), row and column of the i-th window of the run.
    T3_HD WindowPosition window(std::int64_t i) const {
        const std::int64_t index = windows == nullptr ? first_window + i : windows[first_window + i];
        const WindowPosition at = window_position(index, windows_y, windows_x);
        return {at.image - first_image, at.y - first_row, at.x};
    }

    T3_HD std::int64_t map_word(const WindowPosition &at) const {
        return ((at.image * map.height + at.y) * map.width + at.x) * program.pixel_words;
    }
};

// --------------------------------------------------------------------------------------- building stages

// The stages of a program, and the number of 32-bit words of its packed weights.
struct BuiltStages {
    StageProgram program;
    std::int64_t packed_words;
};

// Groups the layers into stages. Throws std::invalid_argument if the program does not fit the tensor-core path.
inline BuiltStages build_stages(const LayerProgram &layers, Precision precision, ColumnSplit split) {
    const int per_word = values_per_word(precision);
    BuiltStages built{};
    StageProgram &program = built.program;
    program.normalisation = LayerKind::relu;
    int elementwise = 0;
    const auto append = [&](const Layer &layer) {
        Stage &stage = program.stages[program.count++];
        stage.kind = layer.kind;
        stage.in_channels = static_cast<int>(layer.in_channels);
        stage.out_channels = static_cast<int>(layer.out_channels);
        stage.kernel_y = static_cast<int>(layer.kernel_y);
        stage.kernel_x = static_cast<int>(layer.kernel_x);
        stage.step_y = static_cast<int>(layer.step_y);
        stage.step_x = static_cast<int>(layer.step_x);
        stage.first_elementwise = elementwise;
        stage.parameters = layer.parameters;
    };
    const auto append_identity = [&](std::int64_t channels) {
        append({LayerKind::max_pool, channels, channels, 1, 1, 1, 1, 0, 0});
    };
    constexpr int kMaxBeforeLast = kMaxStages - 2;  // a stage may need an identity before and after it
    for (std::int64_t i = 0; i < layers.count; ++i) {
        const Layer &layer = layers.layers[i];
        if (layer.in_channels > 4096 || layer.out_channels > 4096 || layer.fan_in() > 1 << 20 ||
            layer.reach_y() > 1 << 14 || layer.reach_x() > 1 << 14)
            reject_program("a layer is too large");
        if (program.count > kMaxBeforeLast) reject_program("there are too many layers");
        if (i == layers.map_layers) {
            const bool ends = program.count > 0 && !program.stages[program.count - 1].weighted() &&
                              program.stages[program.count - 1].elementwise_count == 0;
            if (!ends) append_identity(layer.in_channels);
            program.map_stages = program.count;
        }
        if (layer.weighted() || layer.pools()) {
            append(layer);
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            if (i + 1 != layers.count) reject_program("a softmax is not the last layer");
            program.normalisation = layer.kind;
        } else {
            if (program.count == 0) append_identity(layer.in_channels);
            Stage &stage = program.stages[program.count - 1];
            if (layer.kind == LayerKind::relu && stage.elementwise_count == 0) {
                stage.relu = true;
                continue;
            }
            if (elementwise == kMaxElementwiseLayers) reject_program("there are too many layers");
            program.elementwise[elementwise++] = {layer.kind, layer.parameters};
            ++stage.elementwise_count;
        }
    }
    // A 16-byte quad belongs to one tap.
    const int quad_values = kQuadWords * per_word;
    program.pixel_words = round_up(program.first_fully_connected().in_channels, quad_values) / per_word;
    if (program.pixel_words * per_word > 2 * program.first_fully_connected().in_channels &&
        program.first_fully_connected().taps() > 1)
        reject_program("the last feature map has too few channels");
    for (int i = 0; i < program.count; ++i) {
        Stage &stage = program.stages[i];
        if (!stage.weighted()) continue;
        stage.tap_channels = i == program.map_stages ? program.pixel_words * per_word : stage.in_channels;
        const int values = stage.taps() * stage.tap_channels;
        stage.groups = round_up(values, kGroupWords * per_word) / (kGroupWords * per_word);
        stage.column_fragments = round_up(stage.out_channels, kFragmentColumns) / kFragmentColumns;
        if (i >= program.map_stages && stage.column_fragments > kMaxColumnFragments)
            reject_program("a fully connected layer is wider than 128");
        if (i == program.map_stages) {
            // Whole chunks. Where two warps split the columns the second one waits for the first, so it computes as
            // many columns. Neither case then needs a branch.
            stage.groups = round_up(stage.groups, kChunkGroups);
            if (split == ColumnSplit::halves) stage.column_fragments = kMaxColumnFragments;
        }
        stage.packed_weights = built.packed_words;
        built.packed_words +=
            static_cast<std::int64_t>(stage.groups) * stage.column_fragments * kWarpLanes * kQuadWords;
    }
    return built;
}

}  // namespace t3ssfast
