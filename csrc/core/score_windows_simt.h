// score_windows as blocks of lanes do it: the schedule of the CUDA kernels, testable on the host.
//
// Windows are answered a batch of square tiles at a time. Every tile has a slot with two buffers, which hold
// the maps before and after a layer in turn, in (y, x, channel) order. Sums run bias first, then taps and
// channels ascending, as on the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/layers.h"
#include "core/macros.h"
#include "core/view.h"
#include "core/window.h"

namespace t3ssfast {

// Outputs, and positions, that one lane sums at once.
constexpr int kLaneOutputs = 4;
constexpr int kLanePositions = 4;
// Most positions whose head one block does.
constexpr int kBlockPositions = 32;
// Shared memory that the head may take; every architecture gives this much without asking.
constexpr std::int64_t kSharedFloats = 48 * 1024 / 4;

struct TileBatch {
    ImageStack<const float> images;
    std::int64_t size;
    LayerProgram program;  // layers and parameters where the lanes can read them
    std::int64_t tile;     // edge of a tile, in windows
    const std::int64_t *tiles;  // (tile_count) flat indices into (image, tile row, tile column)
    std::int64_t tile_count;
    const std::int64_t *windows;  // (window_count) flat indices, any order
    const std::int64_t *rows;     // (window_count) where each answer goes
    const std::int64_t *slots;    // (window_count) which of `tiles` each window lies in
    std::int64_t window_count;
    float *maps;             // (tile_count, 2, map_floats)
    std::int64_t map_floats;  // of the largest map of a whole tile
    Scores out;

    T3_HD std::int64_t windows_y() const { return valid_windows(images.height, size); }
    T3_HD std::int64_t windows_x() const { return valid_windows(images.width, size); }

    // Image and top-left window of a tile.
    T3_HD WindowPosition corner(std::int64_t slot) const {
        const std::int64_t down = (windows_y() + tile - 1) / tile, across = (windows_x() + tile - 1) / tile;
        const WindowPosition at = window_position(tiles[slot], down, across);
        return {at.image, at.y * tile, at.x * tile};
    }

    // Windows of a tile, fewer at the far edges.
    T3_HD Extent windows_of(const WindowPosition &corner) const {
        const std::int64_t height = windows_y() - corner.y, width = windows_x() - corner.x;
        return {height < tile ? height : tile, width < tile ? width : tile};
    }

    // The map in front of layer `index`: the image for 0, then the two buffers in turn.
    T3_HD const float *map(std::int64_t slot, const WindowPosition &corner, std::int64_t index) const {
        if (index == 0) return images.image(corner.image) + corner.y * images.width + corner.x;
        return buffer(slot, index);
    }
    T3_HD float *buffer(std::int64_t slot, std::int64_t index) const {
        return maps + (2 * slot + (index - 1) % 2) * map_floats;
    }

    // Floats from a row of that map to the next; the same for all tiles, smaller ones too.
    T3_HD std::int64_t pitch(std::int64_t index) const {
        if (index == 0) return images.width;
        return extent_before(program, index, {tile, tile}).width * program.layers[index].in_channels;
    }
};

// Floats of the largest map of a tile.
inline std::int64_t tile_map_floats(const LayerProgram &program, std::int64_t tile) {
    std::int64_t most = 1;
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const std::int64_t floats =
            extent_before(program, i + 1, {tile, tile}).area() * program.layers[i].out_channels;
        most = floats > most ? floats : most;
    }
    return most;
}

// Widest layer of the head.
inline std::int64_t head_width(const LayerProgram &program) {
    std::int64_t widest = 1;
    for (std::int64_t i = program.map_layers; i < program.count; ++i)
        widest = program.layers[i].out_channels > widest ? program.layers[i].out_channels : widest;
    return widest;
}

// Positions a block answers at once: as many as have both their hidden layers in shared memory; 0 if none has.
inline std::int64_t block_positions(const LayerProgram &program) {
    const std::int64_t most = kSharedFloats / (2 * head_width(program));
    return most < kBlockPositions ? most : kBlockPositions;
}

T3_HD float multiply_add(float a, float b, float sum) {
#if defined(__CUDA_ARCH__)
    return fmaf(a, b, sum);
#else
    return std::fma(a, b, sum);
#endif
}

// P x up to kLaneOutputs sums over rows of taps; `in` are the first taps, `weights` the first output's column.
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

// One value of a layer without weights. `in` is its first tap, `c` its channel.
T3_HD float plain_value(const Layer &layer, const float *parameters, const float *in, std::int64_t in_row,
                        std::int64_t c) {
    const float *own = parameters + layer.parameters;
    if (layer.kind == LayerKind::affine) return multiply_add(*in, own[c], own[layer.in_channels + c]);
    if (!layer.pools()) return activate(layer.kind, *in, layer.kind == LayerKind::leaky_relu ? own[0] : 0.0f);
    float value = *in;
    for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
        for (std::int64_t kx = 0; kx < layer.kernel_x; ++kx) {
            if (ky == 0 && kx == 0) continue;
            const float other = in[ky * layer.step_y * in_row + kx * layer.step_x * layer.in_channels];
            if (layer.kind == LayerKind::average_pool)
                value += other;
            else  // a NaN stays, as in torch
                value = other > value || other != other ? other : value;
        }
    }
    const float share = 1.0f / static_cast<float>(layer.kernel_y * layer.kernel_x);
    return layer.kind == LayerKind::average_pool ? value * share : value;
}

// Layer `index` of one tile; this block does every `blocks`-th group of outputs from `part`.
T3_BLOCK_FUNCTION void map_layer(const Block &block, const TileBatch &batch, std::int64_t index, std::int64_t slot,
                     std::int64_t part, std::int64_t blocks) {
    const Layer &layer = batch.program.layers[index];
    const WindowPosition corner = batch.corner(slot);
    const Extent after = extent_before(batch.program, index + 1, batch.windows_of(corner));
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
                const std::int64_t rest = layer.out_channels - first;
                const std::int64_t outputs = rest < kLaneOutputs ? rest : kLaneOutputs;
                const float *const taps[1] = {tap};
                float sums[1][kLaneOutputs];
                sum_taps<1>(layer, weights + first, bias + first, outputs, taps, in_row, sums);
                for (std::int64_t o = 0; o < outputs; ++o) to[o] = sums[0][o];
            } else {
                *to = plain_value(layer, batch.program.parameters, tap + first, in_row, first);
            }
        }
    });
}

// The head of windows [first, first + positions) of the batch. `shared` holds 2 x positions x head_width.
T3_BLOCK_FUNCTION void head_layers(const Block &block, const TileBatch &batch, std::int64_t first, std::int64_t positions,
                       std::int64_t width, float *shared) {
    const LayerProgram &program = batch.program;
    const std::int64_t rest = batch.window_count - first, count = rest < positions ? rest : positions;
    const std::int64_t quads = (count + kLanePositions - 1) / kLanePositions;
    float *values = shared, *spare = shared + positions * width;
    for (std::int64_t index = program.map_layers; index < program.count; ++index) {
        const Layer &layer = program.layers[index];
        const float *weights = program.parameters + layer.parameters;
        const float *bias = weights + layer.fan_in() * layer.out_channels;
        if (layer.kind == LayerKind::linear) {
            const std::int64_t groups = (layer.out_channels + kLaneOutputs - 1) / kLaneOutputs;
            const bool gathers = index == program.map_layers;
            const std::int64_t in_row = gathers ? batch.pitch(index) : 0;
            block.phase([&](int lane) {
                for (std::int64_t i = lane; i < quads * groups; i += block.lanes()) {
                    const std::int64_t p0 = i / groups * kLanePositions, o0 = i % groups * kLaneOutputs;
                    const float *in[kLanePositions];
                    for (int p = 0; p < kLanePositions; ++p) {
                        // Past the end, the last position is done again and not kept.
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
                    float sums[kLanePositions][kLaneOutputs];
                    sum_taps<kLanePositions>(layer, weights + o0, bias + o0, outputs, in, in_row, sums);
                    for (int p = 0; p < kLanePositions && p0 + p < count; ++p)
                        for (std::int64_t o = 0; o < outputs; ++o) spare[(p0 + p) * width + o0 + o] = sums[p][o];
                }
            });
            float *other = values;
            values = spare;
            spare = other;
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            block.phase([&](int lane) {
                for (std::int64_t p = lane; p < count; p += block.lanes())
                    normalise_exponentials(values + p * width, layer.in_channels,
                                           layer.kind == LayerKind::log_softmax);
            });
        } else {
            block.phase([&](int lane) {
                for (std::int64_t i = lane; i < count * layer.in_channels; i += block.lanes()) {
                    const std::int64_t c = i % layer.in_channels;
                    float *value = values + i / layer.in_channels * width + c;
                    *value = plain_value(layer, program.parameters, value, 0, c);
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
