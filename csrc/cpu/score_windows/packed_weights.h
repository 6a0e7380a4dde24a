// Weights in the memory layout of the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "core/layers.h"
#include "cpu/simd.h"
#include "cpu/score_windows/dispatch.h"

namespace t3ssfast::cpu {

// Vectors of outputs per register block; with 4 (AVX2) or 8 (AVX-512) positions they fill the registers.
constexpr int kPanelVectors = 3;

// Weights of one layer in panels of up to kPanelVectors vectors of outputs: [panel][tap and channel][output].
struct PackedLayer {
    std::vector<float> weights, bias;
    std::int64_t outputs = 0;  // out_channels rounded up to whole vectors; the padding has weight 0
};

// A program prepared for one instruction set; owns its data.
struct PreparedProgram {
    std::vector<Layer> layers;
    std::int64_t map_layers;
    std::vector<float> parameters;
    WinogradLayout winograd;
    SimdLevel level;
    std::vector<PackedLayer> packed;  // empty for layers without weights
    // The first fully connected layer for the Winograd path: [panel][point][filter block, channel][output].
    std::vector<float> winograd_weights;

    LayerProgram program() const {
        return {layers.data(), static_cast<std::int64_t>(layers.size()), map_layers, parameters.data()};
    }
};

}  // namespace t3ssfast::cpu
