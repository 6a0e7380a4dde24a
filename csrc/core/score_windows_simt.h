// Block algorithms of score_windows on a CUDA device without tensor cores (SIMT), as templates over a Block.
//
// Windows are processed in batches of square tiles. Every tile has a slot with two buffers, which alternate as input
// and output of a layer, in (y, x, channel) order. Sums start with the bias, then add taps and channels in ascending
// order, as on the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/layers.h"
#include "core/macros.h"
#include "core/view.h"
#include "core/window.h"

namespace t3ssfast {

// Outputs, and windows, that one lane sums at once.
constexpr int kLaneOutputs = 4;
constexpr int kLaneWindows = 4;
// Maximum number of windows whose fully connected layers one block computes.
constexpr int kMaxWindowsPerBlock = 32;
// Shared memory of the fully connected layers: the amount that every architecture provides without opting in.
constexpr std::int64_t kSharedFloats = 48 * 1024 / 4;

struct TileBatch {
    ImageStack<const float> images;
    std::int64_t size;
    LayerProgram program;       // layers and parameters in memory that the lanes can read
    std::int64_t tile;          // edge of a tile in windows
    const std::int64_t *tiles;  // (tile_count) flat indices into (image, tile row, tile column)
    std::int64_t tile_count;
    const std::int64_t *windows;  // (window_count) flat indices, any order
    const std::int64_t *rows;     // (window_count) output row of each window
    const std::int64_t *slots;    // (window_count) index into `tiles` of each window's tile
    std::int64_t window_count;
    float *maps;              // (tile_count, 2, map_floats)
    std::int64_t map_floats;  // of the largest map of a full tile
    Scores out;

    T3_HD std::int64_t windows_y() const { return valid_windows(images.height, size); }
    T3_HD std::int64_t windows_x() const { return valid_windows(images.width, size); }

    // Image and top-left window of a tile.
    T3_HD WindowPosition corner(std::int64_t slot) const {
        const std::int64_t down = (windows_y() + tile - 1) / tile, across = (windows_x() + tile - 1) / tile;
        const WindowPosition at = window_position(tiles[slot], down, across);
        return {at.image, at.y * tile, at.x * tile};
    }

    // Number of windows in a tile; fewer at the far edges of the image.
    T3_HD Extent windows_of(const WindowPosition &corner) const {
        const std::int64_t height = windows_y() - corner.y, width = windows_x() - corner.x;
        return {height < tile ? height : tile, width < tile ? width : tile};
    }

    // Input of layer `index`: the image for 0, then the two buffers in turn.
    T3_HD const float *map(std::int64_t slot, const WindowPosition &corner, std::int64_t index) const {
        if (index == 0) return images.image(corner.image) + corner.y * images.width + corner.x;
        return buffer(slot, index);
    }
    T3_HD float *buffer(std::int64_t slot, std::int64_t index) const {
        return maps + (2 * slot + (index - 1) % 2) * map_floats;
    }

    // Floats between rows of that input; the same for full and partial tiles.
    T3_HD std::int64_t pitch(std::int64_t index) const {
        if (index == 0) return images.width;
        return input_extent(program, index, {tile, tile}).width * program.layers[index].in_channels;
    }
};

// Floats of the largest feature map of a tile.
inline std::int64_t tile_map_floats(const LayerProgram &program, std::int64_t tile) {
    std::int64_t largest = 1;
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const std::int64_t floats = input_extent(program, i + 1, {tile, tile}).area() * program.layers[i].out_channels;
        largest = floats > largest ? floats : largest;
    }
    return largest;
}

// Width of the widest fully connected layer.
inline std::int64_t fully_connected_width(const LayerProgram &program) {
    std::int64_t widest = 1;
    for (std::int64_t i = program.map_layers; i < program.count; ++i)
        widest = program.layers[i].out_channels > widest ? program.layers[i].out_channels : widest;
    return widest;
}

// Number of windows per block: as many as fit with two hidden layers in shared memory; 0 if none fits.
inline std::int64_t windows_per_block(const LayerProgram &program) {
    const std::int64_t fitting = kSharedFloats / (2 * fully_connected_width(program));
    return fitting < kMaxWindowsPerBlock ? fitting : kMaxWindowsPerBlock;
}

T3_HD float multiply_add(float a, float b, float sum) {
#if defined(__CUDA_ARCH__)
    return fmaf(a, b, sum);
#else
    return std::fma(a, b, sum);
#endif
}

// P x up to kLaneOutputs sums over rows of taps. `in` points to the first taps, `weights` to the first output's column.
template <int P>
T3_HD void sum_taps(const Layer &layer, const float *weights, const float *bias, std::int64_t outputs,
                    const float *const (&in)[P], std::int64_t in_row, float (&sums)[P][kLaneOutputs]) {
    for (int p = 0; p < P; ++p)
        for (int o = 0; o < kLaneOutputs; ++o) sums[p][o] = o < outputs ? bias[o] : 0.0f;
    const std::int64_t column = layer.out_channels;
    for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
        for (std::int64_t kx = 0; kx < layer.kernel_x; ++kx) {
            const std::int64_t at = ky * layer.step_y * in_row + kx * layer.step_x * layer.in_channels;
            for (std::int64_t c = 0; c < layer.in_channels; ++c) {
                float w[kLaneOutputs], x[P];
                for (int o = 0; o < kLaneOutputs; ++o) w[o] = o < outputs ? weights[o] : 0.0f;
                for (int p = 0; p < P; ++p) x[p] = in[p][at + c];
                for (int p = 0; p < P; ++p)
                    for (int o = 0; o < kLaneOutputs; ++o) sums[p][o] = multiply_add(x[p], w[o], sums[p][o]);
                weights += column;
            }
        }
    }
}

// One output value of a layer without weights. `in` points to its first tap; `c` is its channel.
T3_HD float unweighted_value(const Layer &layer, const float *parameters, const float *in, std::int64_t in_row,
                             std::int64_t c) {
    const float *layer_parameters = parameters + layer.parameters;
    if (layer.kind == LayerKind::affine)
        return multiply_add(*in, layer_parameters[c], layer_parameters[layer.in_channels + c]);
    if (!layer.pools())
        return activate(layer.kind, *in, layer.kind == LayerKind::leaky_relu ? layer_parameters[0] : 0.0f);
    float value = *in;
    for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
        for (std::int64_t kx = 0; kx < layer.kernel_x; ++kx) {
            if (ky == 0 && kx == 0) continue;
            const float other = in[ky * layer.step_y * in_row + kx * layer.step_x * layer.in_channels];
            if (layer.kind == LayerKind::average_pool)
                value += other;
            else  // NaN propagates, as in PyTorch
                value = other > value || other != other ? other : value;
        }
    }
    const float share = 1.0f / static_cast<float>(layer.kernel_y * layer.kernel_x);
    return layer.kind == LayerKind::average_pool ? value * share : value;
}

// Layer `index` of one tile; this block computes every `blocks`-th group of outputs, starting at `part`.
T3_BLOCK_FUNCTION void feature_map_layer(const Block &block, const TileBatch &batch, std::int64_t index,
                                         std::int64_t slot, std::int64_t part, std::int64_t blocks) {
    const Layer &layer = batch.program.layers[index];
    const WindowPosition corner = batch.corner(slot);
    const Extent after = input_extent(batch.program, index + 1, batch.windows_of(corner));
    const float *in = batch.map(slot, corner, index);
    float *out = batch.buffer(slot, index + 1);
    const std::int64_t in_row = batch.pitch(index), out_row = batch.pitch(index + 1);
    const float *weights = batch.program.parameters + layer.parameters;
    const float *bias = weights + layer.fan_in() * layer.out_channels;
    const std::int64_t step = layer.weighted() ? kLaneOutputs : 1;
    const std::int64_t groups = (layer.out_channels + step - 1) / step;
    const std::int64_t items = after.area() * groups;
    block.phase([&](int lane) {
        for (std::int64_t i = part * block.lanes() + lane; i < items; i += blocks * block.lanes()) {
            const std::int64_t pixel = i / groups, first = i % groups * step;
            const std::int64_t y = pixel / after.width, x = pixel % after.width;
            const float *tap = in + y * in_row + x * layer.in_channels;
            float *to = out + y * out_row + x * layer.out_channels + first;
            if (layer.weighted()) {
                const std::int64_t remaining = layer.out_channels - first;
                const std::int64_t outputs = remaining < kLaneOutputs ? remaining : kLaneOutputs;
                const float *const taps[1] = {tap};
                float sums[1][kLaneOutputs];
                sum_taps<1>(layer, weights + first, bias + first, outputs, taps, in_row, sums);
                for (std::int64_t o = 0; o < outputs; ++o) to[o] = sums[0][o];
            } else {
                *to = unweighted_value(layer, batch.program.parameters, tap + first, in_row, first);
            }
        }
    });
}

// Fully connected layers of windows [first, first + block_windows) of the batch. `shared` holds 2 x block_windows x
// width.
T3_BLOCK_FUNCTION void fully_connected_layers(const Block &block, const TileBatch &batch, std::int64_t first,
                                              std::int64_t block_windows, std::int64_t width, float *shared) {
    const LayerProgram &program = batch.program;
    const std::int64_t remaining = batch.window_count - first,
                       count = remaining < block_windows ? remaining : block_windows;
    const std::int64_t window_groups = (count + kLaneWindows - 1) / kLaneWindows;
    float *values = shared, *spare = shared + block_windows * width;
    for (std::int64_t index = program.map_layers; index < program.count; ++index) {
        const Layer &layer = program.layers[index];
        const float *weights = program.parameters + layer.parameters;
        const float *bias = weights + layer.fan_in() * layer.out_channels;
        if (layer.kind == LayerKind::linear) {
            const std::int64_t groups = (layer.out_channels + kLaneOutputs - 1) / kLaneOutputs;
            const bool gathers = index == program.map_layers;
            const std::int64_t in_row = gathers ? batch.pitch(index) : 0;
            block.phase([&](int lane) {
                for (std::int64_t i = lane; i < window_groups * groups; i += block.lanes()) {
                    const std::int64_t p0 = i / groups * kLaneWindows, o0 = i % groups * kLaneOutputs;
                    const float *in[kLaneWindows];
                    for (int p = 0; p < kLaneWindows; ++p) {
                        // Past the end the last window is computed again; the result is discarded.
                        const std::int64_t at = p0 + p < count ? p0 + p : count - 1;
                        if (!gathers) {
                            in[p] = values + at * width;
                            continue;
                        }
                        const std::int64_t slot = batch.slots[first + at];
                        const WindowPosition corner = batch.corner(slot);
                        const WindowPosition window =
                            window_position(batch.windows[first + at], batch.windows_y(), batch.windows_x());
                        in[p] = batch.map(slot, corner, index) + (window.y - corner.y) * in_row +
                                (window.x - corner.x) * layer.in_channels;
                    }
                    const std::int64_t left = layer.out_channels - o0;
                    const std::int64_t outputs = left < kLaneOutputs ? left : kLaneOutputs;
                    float sums[kLaneWindows][kLaneOutputs];
                    sum_taps<kLaneWindows>(layer, weights + o0, bias + o0, outputs, in, in_row, sums);
                    for (int p = 0; p < kLaneWindows && p0 + p < count; ++p)
                        for (std::int64_t o = 0; o < outputs; ++o) spare[(p0 + p) * width + o0 + o] = sums[p][o];
                }
            });
            float *other = values;
            values = spare;
            spare = other;
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            block.phase([&](int lane) {
                for (std::int64_t p = lane; p < count; p += block.lanes())
                    softmax_in_place(values + p * width, layer.in_channels, layer.kind == LayerKind::log_softmax);
            });
        } else {
            block.phase([&](int lane) {
                for (std::int64_t i = lane; i < count * layer.in_channels; i += block.lanes()) {
                    const std::int64_t c = i % layer.in_channels;
                    float *value = values + i / layer.in_channels * width + c;
                    *value = unweighted_value(layer, program.parameters, value, 0, c);
                }
            });
        }
    }
    const std::int64_t classes = program.classes();
    block.phase([&](int lane) {
        for (std::int64_t i = lane; i < count * classes; i += block.lanes()) {
            const std::int64_t p = i / classes, c = i % classes;
            batch.out.data[batch.rows[first + p] * batch.out.window_stride + c * batch.out.class_stride] =
                values[p * width + c];
        }
    });
}

}  // namespace t3ssfast
