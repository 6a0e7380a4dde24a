// Layers on feature maps in (y, x, channel) order.
#pragma once

#include <algorithm>

#include "cpu/score_windows/gemm_kernel.h"

namespace t3ssfast::cpu {

// `block` holds all outputs of one register block.
template <class V, int P>
T3_ALWAYS_INLINE void convolve(const Layer &layer, const PackedLayer &packed, const float *in, Extent in_extent,
                               float *out, Extent extent, float *block) {
    constexpr std::int64_t W = width_of<V>;
    const std::int64_t channels = layer.in_channels, outputs = layer.out_channels;
    const std::int64_t vectors = packed.outputs / W, fan_in = layer.fan_in();
    const std::int64_t row_step = layer.step_y * in_extent.width * channels, tap_step = layer.step_x * channels;
    // A single panel may write to the output directly: the next pixel overwrites what its last vector writes too much.
    const bool direct = vectors <= kPanelVectors && extent.width >= P;
    const float *rows[P];
    for (std::int64_t y = 0; y < extent.height; ++y) {
        for (std::int64_t start = 0; start < extent.width; start += P) {
            // The last block of a row is shifted back to end with the row, and computes some pixels again.
            const std::int64_t x = direct ? std::min(start, extent.width - P) : start;
            for (int p = 0; p < P; ++p)
                rows[p] = in + (y * in_extent.width + std::min(x + p, extent.width - 1)) * channels;
            float *to = out + (y * extent.width + x) * outputs;
            if (direct) {
                gemm_panel<V, P>(vectors, rows, layer.kernel_y, row_step, layer.kernel_x, tap_step, channels,
                                 packed.weights.data(), packed.bias.data(), 0, to, outputs);
                continue;
            }
            for (std::int64_t v = 0; v < vectors; v += kPanelVectors)
                gemm_panel<V, P>(std::min<std::int64_t>(kPanelVectors, vectors - v), rows, layer.kernel_y, row_step,
                                 layer.kernel_x, tap_step, channels, packed.weights.data() + v * W * fan_in,
                                 packed.bias.data() + v * W, 0, block + v * W, packed.outputs);
            const std::int64_t here = std::min<std::int64_t>(P, extent.width - x);
            for (std::int64_t p = 0; p < here; ++p)
                std::memcpy(to + p * outputs, block + p * packed.outputs, outputs * sizeof(float));
        }
    }
}

// NaN propagates, as in PyTorch.
T3_ALWAYS_INLINE float larger(float a, float b) { return a >= b || a != a ? a : b; }

// Pools one tap of every stride-th pixel of a row into `to`.
T3_ALWAYS_INLINE void pool_strided(const Layer &layer, const float *__restrict from, bool first, float *__restrict to,
                                   std::int64_t width) {
    const std::int64_t channels = layer.in_channels, step = layer.stride * channels;
    for (std::int64_t x = 0; x < width; ++x, from += step, to += channels) {
        if (first)
            for (std::int64_t c = 0; c < channels; ++c) to[c] = from[c];
        else if (layer.kind == LayerKind::average_pool)
            for (std::int64_t c = 0; c < channels; ++c) to[c] += from[c];
        else
            for (std::int64_t c = 0; c < channels; ++c) to[c] = larger(to[c], from[c]);
    }
}

// Tap by tap over whole rows, which the compiler vectorises.
T3_ALWAYS_INLINE void pool(const Layer &layer, const float *in, Extent in_extent, float *out, Extent extent) {
    const std::int64_t channels = layer.in_channels, length = extent.width * channels;
    const float share = 1.0f / static_cast<float>(layer.kernel_y * layer.kernel_x);
    for (std::int64_t y = 0; y < extent.height; ++y) {
        float *__restrict to = out + y * length;
        for (std::int64_t tap = 0; tap < layer.kernel_y * layer.kernel_x; ++tap) {
            const std::int64_t ky = tap / layer.kernel_x, kx = tap % layer.kernel_x;
            const float *__restrict from =
                in + ((y * layer.stride + ky * layer.step_y) * in_extent.width + kx * layer.step_x) * channels;
            if (layer.stride > 1)
                pool_strided(layer, from, tap == 0, to, extent.width);
            else if (tap == 0)
                std::memcpy(to, from, length * sizeof(float));
            else if (layer.kind == LayerKind::average_pool)
                for (std::int64_t i = 0; i < length; ++i) to[i] += from[i];
            else
                for (std::int64_t i = 0; i < length; ++i) to[i] = larger(to[i], from[i]);
        }
        if (layer.kind == LayerKind::average_pool)
            for (std::int64_t i = 0; i < length; ++i) to[i] *= share;
    }
}

T3_ALWAYS_INLINE void activate_map(const Layer &layer, const float *parameters, float *values, std::int64_t count) {
    const float slope = layer.kind == LayerKind::leaky_relu ? parameters[layer.parameters] : 0.0f;
    switch (layer.kind) {  // cheap activations have their own loops, which the compiler vectorises
        case LayerKind::relu:
            for (std::int64_t i = 0; i < count; ++i) values[i] = activate(LayerKind::relu, values[i], 0.0f);
            break;
        case LayerKind::leaky_relu:
            for (std::int64_t i = 0; i < count; ++i) values[i] = activate(LayerKind::leaky_relu, values[i], slope);
            break;
        default:
            for (std::int64_t i = 0; i < count; ++i) values[i] = activate(layer.kind, values[i], slope);
    }
}

T3_ALWAYS_INLINE void scale_and_shift(const Layer &layer, const float *parameters, float *values, std::int64_t count,
                                      std::int64_t stride) {
    const float *scale = parameters + layer.parameters, *shift = scale + layer.in_channels;
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t c = 0; c < layer.in_channels; ++c)
            values[i * stride + c] = __builtin_fmaf(values[i * stride + c], scale[c], shift[c]);
}

}  // namespace t3ssfast::cpu
