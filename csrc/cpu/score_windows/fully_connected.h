// The fully connected layers: the first one window by window, and the layers after it.
#pragma once

#include <algorithm>
#include <vector>

#include "core/window.h"
#include "cpu/score_windows/dispatch.h"
#include "cpu/score_windows/feature_maps.h"

namespace t3ssfast::cpu {

// Windows whose first hidden layer is in memory at once; a multiple of the register blocks of every instruction set.
constexpr std::int64_t kDirectBatch = 96;
constexpr std::int64_t kMaxVectorWidth = width_of<Vector16>;

// Buffers that a thread keeps from tile to tile.
struct Scratch {
    std::vector<float> feature_maps[2];
    std::vector<float> block;   // outputs of one register block of a convolution
    std::vector<float> hidden;  // outputs of the first fully connected layer
    std::vector<float> layer_outputs[2];
    std::vector<const float *> rows;
    std::vector<std::int64_t> output_rows;  // by row of `hidden`
    // Winograd path: transformed map, zero-padded part of the map, products, zeros.
    std::vector<float> transformed, patch, products, zeros;
    std::vector<unsigned char> needed;      // by row of a cell: whether a block reads it
    std::vector<std::int64_t> hidden_rows;  // by window of a block: row of `hidden`, or -1 if not requested
    TileDispatch dispatch;
    std::vector<RequestedWindow> direct_windows;  // of one region
    std::vector<WinogradBlock> blocks;            // of one patch
};

// What the windows of a tile have in common.
struct Context {
    LayerProgram program;
    const PreparedProgram *prepared;
    WinogradLayout winograd;
    const float *image;
    std::int64_t image_width;
    Extent all_windows;
    Scores out;
};

// The feature maps of a region, input of the fully connected layers; the first value belongs to window (top, left).
struct FeatureMap {
    const float *data;
    Extent extent;
    std::int64_t top, left;
};

// Applies the layers after the first fully connected one to up to kDirectBatch windows, and stores the scores.
template <class V, int P>
T3_ALWAYS_INLINE void apply_remaining_layers(const Context &context, float *values, std::int64_t stride,
                                             const std::int64_t *output_rows, std::int64_t count, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const LayerProgram &program = context.program;
    const std::int64_t padded = (count + P - 1) / P * P;
    float *next = scratch.layer_outputs[0].data(), *spare = scratch.layer_outputs[1].data();
    for (std::int64_t i = program.map_layers + 1; i < program.count; ++i) {
        const Layer &layer = program.layers[i];
        if (layer.kind == LayerKind::linear) {
            const PackedLayer &packed = context.prepared->packed[i];
            const std::int64_t vectors = packed.outputs / W;
            for (std::int64_t v = 0; v < vectors; v += kPanelVectors) {
                for (std::int64_t p = 0; p < padded; p += P) {
                    const float *rows[P];
                    for (int q = 0; q < P; ++q) rows[q] = values + (p + q) * stride;
                    gemm_panel<V, P>(std::min<std::int64_t>(kPanelVectors, vectors - v), rows, 1, 0, 1, 0,
                                     layer.in_channels, packed.weights.data() + v * W * layer.fan_in(),
                                     packed.bias.data() + v * W, 0, next + p * packed.outputs + v * W, packed.outputs);
                }
            }
            stride = packed.outputs;
            values = next;
            std::swap(next, spare);
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            for (std::int64_t p = 0; p < count; ++p)
                softmax_in_place(values + p * stride, layer.in_channels, layer.kind == LayerKind::log_softmax);
        } else if (layer.kind == LayerKind::affine) {
            scale_and_shift(layer, program.parameters, values, count, stride);
        } else {
            activate_map(layer, program.parameters, values, padded * stride);
        }
    }
    const std::int64_t classes = program.classes();
    for (std::int64_t p = 0; p < count; ++p)
        for (std::int64_t c = 0; c < classes; ++c)
            context.out.data[output_rows[p] * context.out.window_stride + c * context.out.class_stride] =
                values[p * stride + c];
}

// Scores windows one by one: a matrix product over rows gathered from the feature map (no im2col).
template <class V, int P>
T3_ALWAYS_INLINE void score_direct(const Context &context, const FeatureMap &map, const RequestedWindow *direct_windows,
                                   std::int64_t count, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const Layer &layer = context.program.first_fully_connected();
    const PackedLayer &packed = context.prepared->packed[context.program.map_layers];
    const std::int64_t channels = layer.in_channels, row_step = layer.step_y * map.extent.width * channels;
    const std::int64_t row_terms = layer.kernel_x * channels, vectors = packed.outputs / W;
    float *hidden = scratch.hidden.data();
    for (std::int64_t first = 0; first < count; first += kDirectBatch) {
        const std::int64_t here = std::min(kDirectBatch, count - first), padded = (here + P - 1) / P * P;
        for (std::int64_t p = 0; p < padded; ++p) {
            const RequestedWindow &at = direct_windows[first + std::min(p, here - 1)];
            scratch.rows[p] = map.data + ((at.y - map.top) * map.extent.width + at.x - map.left) * channels;
            scratch.output_rows[p] = at.row;
        }
        for (std::int64_t v = 0; v < vectors; v += kPanelVectors) {
            const std::int64_t panel = std::min<std::int64_t>(kPanelVectors, vectors - v);
            const float *weights = packed.weights.data() + v * W * layer.fan_in();
            // One row of taps at a time keeps its weights in the L1 cache for all windows.
            for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
                for (std::int64_t p = 0; p < padded; p += P) {
                    const float *rows[P];
                    for (int q = 0; q < P; ++q) rows[q] = scratch.rows[p + q] + ky * row_step;
                    float *sums = hidden + p * packed.outputs + v * W;
                    gemm_panel<V, P>(panel, rows, 1, 0, layer.kernel_x, layer.step_x * channels, channels,
                                     weights + ky * row_terms * panel * W, ky == 0 ? packed.bias.data() + v * W : sums,
                                     ky == 0 ? 0 : packed.outputs, sums, packed.outputs);
                }
            }
        }
        apply_remaining_layers<V, P>(context, hidden, packed.outputs, scratch.output_rows.data(), here, scratch);
    }
}

}  // namespace t3ssfast::cpu
