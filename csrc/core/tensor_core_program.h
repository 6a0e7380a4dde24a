// score_windows as blocks of warps do it, on tensor cores: what a run looks like, and the memory it needs.
//
// Layers are read as stages: a convolution, a fully connected layer or a pooling, and the element-wise layers behind
// it. Feature maps are made a rectangle at a time in shared memory and laid down once, for whole images, in (y, x,
// channel) order as the words that tensor cores read; the head is a product of gathered rows of that map, one row a
// window. Weights are packed once in the order in which lanes read them.
#pragma once

#include <cstdint>

#include "core/fragment.h"
#include "core/layers.h"
#include "core/macros.h"
#include "core/view.h"
#include "core/window.h"

namespace t3ssfast {

// As `precision` of python/t3ssfast/classify.py.
enum class Precision : int { float32 = 0, tf32 = 1, bfloat16 = 2 };

inline int values_per_word(Precision precision) { return precision == Precision::bfloat16 ? 2 : 1; }

// Run and stages travel as one kernel argument, below the 4 KiB that every driver takes.
constexpr int kMostStages = 16, kMostElements = 24;

// An element-wise layer.
struct ElementLayer {
    LayerKind kind;
    std::int64_t parameters;
};

struct Stage {
    LayerKind kind;  // convolution, linear, max_pool or average_pool; a pooling of one tap only passes on
    int in_channels, out_channels, kernel_y, kernel_x, step_y, step_x;
    bool rectify;                       // a ReLU directly behind it
    int first_element, element_count;  // further element-wise layers
    // Of weighted stages: K of the product in groups, channels of a tap along K, columns in fragments, and where the
    // weights and the bias are, packed and as given.
    int groups, tap_channels, column_tiles;
    std::int64_t packed, parameters;

    T3_HD bool weighted() const { return kind == LayerKind::convolution || kind == LayerKind::linear; }
    T3_HD int taps() const { return kernel_y * kernel_x; }
    T3_HD int reach_y() const { return (kernel_y - 1) * step_y; }
    T3_HD int reach_x() const { return (kernel_x - 1) * step_x; }
    T3_HD std::int64_t bias() const {
        return parameters + static_cast<std::int64_t>(taps()) * in_channels * out_channels;
    }
};

// The first `map_stages` stages make the feature map, the last of them only passes on or pools; the others are
// linear. `normalisation` is softmax or log_softmax at the very end, or relu for none.
struct StageProgram {
    Stage stages[kMostStages];
    ElementLayer elements[kMostElements];
    int count, map_stages;
    LayerKind normalisation;
    int pixel_words;  // of the feature map, whole 16-byte pieces

    T3_HD const Stage &head() const { return stages[map_stages]; }
    T3_HD int classes() const { return stages[count - 1].out_channels; }
};

// ------------------------------------------------------------------------------------------------ the head

// A block answers some rows of windows: its warps stand in a grid, each with kRowTiles x kColumnTiles fragments of sums,
// which fill its registers; together they hold kMostColumnTiles, so the widest layer of a head. One warp across needs
// no rounding of the columns to its width, which counts where products take the time; two read less shared memory a
// product.
constexpr int kMostColumnTiles = 16;

template <typename NumbersOf, int kRows, int kColumns>
struct Head {
    using Numbers = NumbersOf;
    static constexpr int kRowTiles = kRows, kColumnTiles = kColumns;
    static constexpr int kWarpsAcross = kMostColumnTiles / kColumns;

    // Windows that a block answers; `warps` is a multiple of kWarpsAcross.
    T3_HD static int rows(int warps) { return warps / kWarpsAcross * kRowTiles * kFragmentRows; }
};

// How the columns of a head's first layer are shared out.
enum class HeadColumns { whole, halves };

template <typename Numbers>
using WideHead = Head<Numbers, 2, 16>;
template <typename Numbers>
using SquareHead = Head<Numbers, 4, 8>;

// Words of K a row that are in shared memory at once: one cache line a row. kHeadSlots of them are under way.
constexpr int kChunkGroups = 2, kChunkWords = kChunkGroups * kGroupWords, kChunkPieces = kChunkWords / kLaneWords;
constexpr int kHeadSlots = 3;

// Pixels of a rectangle by its width, in one multiplication: exact where neither side reaches kMost, as then the
// error, below pixel / 2^24, stays below 1 / width.
struct SmallDivisor {
    static constexpr int kMost = 256;
    std::uint32_t factor;

    T3_HD explicit SmallDivisor(int width) : factor((1u << 24) / static_cast<std::uint32_t>(width) + 1) {}
    T3_HD int operator()(int pixel) const {
        return static_cast<int>(static_cast<std::uint32_t>(pixel) * factor >> 24);
    }
};

T3_HD int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Values along K that a hidden layer of `width` takes when it is read in whole groups.
T3_HD int hidden_values(int width, int per_word) { return round_up(width, kGroupWords * per_word); }

// Floats from a row of hidden values to the next: four banks on, so that four values of eight rows lie in different ones.
T3_HD int hidden_stride(const StageProgram &program, int per_word) {
    int widest = 0;
    for (int i = program.map_stages; i < program.count; ++i) {
        const int columns = program.stages[i].column_tiles * kFragmentColumns;
        const int values = hidden_values(program.stages[i].out_channels, per_word);
        widest = columns > widest ? columns : widest;
        widest = values > widest ? values : widest;
    }
    return round_up(widest, 32) + 4;
}

// Words of a row's and of the weights' share of a slot.
T3_HD int slot_words(int rows, int column_tiles) {
    return rows * kChunkWords + kChunkGroups * column_tiles * kWarpLanes * kLaneWords;
}

// Slots, later hidden values in their place; then where each row's windows begin in the map.
T3_HD std::int64_t head_shared_bytes(const StageProgram &program, int per_word, int rows) {
    const std::int64_t slots = static_cast<std::int64_t>(kHeadSlots) * slot_words(rows, program.head().column_tiles);
    const std::int64_t hidden = static_cast<std::int64_t>(rows) * hidden_stride(program, per_word);
    return (slots > hidden ? slots : hidden) * static_cast<std::int64_t>(sizeof(std::uint32_t)) +
           rows * static_cast<std::int64_t>(sizeof(std::int64_t));
}

// ------------------------------------------------------------------------------------------------ the maps

// Height and width of what stage `index` reads so that the last map stage gives `tile`.
T3_HD Extent stage_input(const StageProgram &program, int index, Extent tile) {
    for (int i = program.map_stages - 1; i >= index; --i) {
        tile.height += program.stages[i].reach_y();
        tile.width += program.stages[i].reach_x();
    }
    return tile;
}

// Floats of each of the two buffers between which the stages of a tile go, and of the table of taps.
struct MapMemory {
    std::int64_t taps, even, odd;

    T3_HD std::int64_t bytes() const { return (taps + even + odd) * static_cast<std::int64_t>(sizeof(float)); }
};

inline MapMemory map_memory(const StageProgram &program, int per_word, Extent tile) {
    std::int64_t taps = 0, buffers[2] = {0, 0};
    for (int i = 0; i < program.map_stages; ++i) {
        const Stage &stage = program.stages[i];
        const std::int64_t floats = (stage_input(program, i, tile).area() * stage.in_channels + 3) / 4 * 4;
        const std::int64_t own = stage.weighted() ? stage.groups * kGroupWords * per_word : 0;
        buffers[i % 2] = floats > buffers[i % 2] ? floats : buffers[i % 2];
        taps = own > taps ? own : taps;
    }
    return {taps, buffers[0], buffers[1]};
}

// The largest tile whose maps stay within `bytes` and within what SmallDivisor divides; {0, 0} if none does.
inline Extent choose_map_tile(const StageProgram &program, int per_word, std::int64_t bytes) {
    Extent best{0, 0};
    for (std::int64_t height = 8; height <= 32; height += 8) {
        for (std::int64_t width = height; width <= 32; width += 8) {
            const Extent tile{height, width}, whole = stage_input(program, 0, tile);
            const bool fits = map_memory(program, per_word, tile).bytes() <= bytes &&
                              whole.height < SmallDivisor::kMost && whole.width < SmallDivisor::kMost;
            if (fits && tile.area() > best.area()) best = tile;
        }
    }
    return best;
}

// ------------------------------------------------------------------------------------------------- the run

// Windows of rows [first_row, first_row + rows) of `planes` images from first_image on, whose maps are at hand
// together. Windows listed, or counted from first_window where windows.dense(), are answered at their own place.
struct WarpRun {
    ImageStack<const float> images;
    std::int64_t windows_y, windows_x;
    std::int64_t first_image, planes, first_row, rows;
    const float *parameters;
    std::uint32_t *packed;
    std::uint32_t *maps;    // (planes, map height, map width, pixel_words)
    std::uint8_t *touched;  // (planes, tiles down, tiles across): tiles of the map that windows look at; or nullptr
    const std::int64_t *windows;
    std::int64_t first_window, window_count;
    Extent map, tile;
    MapMemory memory;  // of a tile
    Scores out;
    StageProgram program;

    T3_HD std::int64_t tiles_down() const { return (map.height + tile.height - 1) / tile.height; }
    T3_HD std::int64_t tiles_across() const { return (map.width + tile.width - 1) / tile.width; }
    T3_HD std::int64_t tile_count() const { return planes * tiles_down() * tiles_across(); }

    // Plane, and row and column in it, of the i-th window of the run.
    T3_HD WindowPosition window(std::int64_t i) const {
        const std::int64_t index = windows == nullptr ? first_window + i : windows[first_window + i];
        const WindowPosition at = window_position(index, windows_y, windows_x);
        return {at.image - first_image, at.y - first_row, at.x};
    }

    T3_HD std::int64_t map_word(const WindowPosition &at) const {
        return ((at.image * map.height + at.y) * map.width + at.x) * program.pixel_words;
    }
};

// --------------------------------------------------------------------------------------------- reading layers

// Why a program cannot be run so; nullptr if it can, and then `stages` is filled in and `packed_words` are needed.
inline const char *read_stages(const LayerProgram &layers, Precision precision, HeadColumns shape,
                               StageProgram &program, std::int64_t &packed_words) {
    const int per_word = values_per_word(precision);
    program = StageProgram{};
    program.normalisation = LayerKind::relu;
    int elements = 0;
    packed_words = 0;
    const auto append = [&](const Layer &layer) {
        Stage &stage = program.stages[program.count++];
        stage.kind = layer.kind;
        stage.in_channels = static_cast<int>(layer.in_channels);
        stage.out_channels = static_cast<int>(layer.out_channels);
        stage.kernel_y = static_cast<int>(layer.kernel_y);
        stage.kernel_x = static_cast<int>(layer.kernel_x);
        stage.step_y = static_cast<int>(layer.step_y);
        stage.step_x = static_cast<int>(layer.step_x);
        stage.first_element = elements;
        stage.parameters = layer.parameters;
    };
    const auto pass_on = [&](std::int64_t channels) {
        append({LayerKind::max_pool, channels, channels, 1, 1, 1, 1, 0, 0});
    };
    constexpr int kRoom = kMostStages - 2;  // a stage may need one that passes on before and behind it
    for (std::int64_t i = 0; i < layers.count; ++i) {
        const Layer &layer = layers.layers[i];
        if (layer.in_channels > 4096 || layer.out_channels > 4096 || layer.fan_in() > 1 << 20 ||
            layer.reach_y() > 1 << 14 || layer.reach_x() > 1 << 14)
            return "a layer is too large";
        if (program.count > kRoom) return "there are too many layers";
        if (i == layers.map_layers) {
            const bool ends = program.count > 0 && !program.stages[program.count - 1].weighted() &&
                              program.stages[program.count - 1].element_count == 0;
            if (!ends) pass_on(layer.in_channels);
            program.map_stages = program.count;
        }
        if (layer.weighted() || layer.pools()) {
            append(layer);
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            if (i + 1 != layers.count) return "a softmax is not the last layer";
            program.normalisation = layer.kind;
        } else {
            if (program.count == 0) pass_on(layer.in_channels);
            Stage &stage = program.stages[program.count - 1];
            if (layer.kind == LayerKind::relu && stage.element_count == 0) {
                stage.rectify = true;
                continue;
            }
            if (elements == kMostElements) return "there are too many layers";
            program.elements[elements++] = {layer.kind, layer.parameters};
            ++stage.element_count;
        }
    }
    // A 16-byte piece is one tap's alone.
    const int piece_values = kLaneWords * per_word;
    program.pixel_words = round_up(program.head().in_channels, piece_values) / per_word;
    if (program.pixel_words * per_word > 2 * program.head().in_channels && program.head().taps() > 1)
        return "the last feature map has too few channels";
    for (int i = 0; i < program.count; ++i) {
        Stage &stage = program.stages[i];
        if (!stage.weighted()) continue;
        stage.tap_channels = i == program.map_stages ? program.pixel_words * per_word : stage.in_channels;
        const int values = stage.taps() * stage.tap_channels;
        stage.groups = round_up(values, kGroupWords * per_word) / (kGroupWords * per_word);
        stage.column_tiles = round_up(stage.out_channels, kFragmentColumns) / kFragmentColumns;
        if (i >= program.map_stages && stage.column_tiles > kMostColumnTiles)
            return "a fully connected layer is wider than 128";
        if (i == program.map_stages) {
            // Whole chunks; and where two warps stand across, the second waits for the first, so it may as well have
            // as many columns. Neither needs a branch then.
            stage.groups = round_up(stage.groups, kChunkGroups);
            if (shape == HeadColumns::halves) stage.column_tiles = kMostColumnTiles;
        }
        stage.packed = packed_words;
        packed_words += static_cast<std::int64_t>(stage.groups) * stage.column_tiles * kWarpLanes * kLaneWords;
    }
    return nullptr;
}

}  // namespace t3ssfast
