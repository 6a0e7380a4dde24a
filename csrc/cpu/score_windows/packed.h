// Weights as the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "core/layers.h"
#include "cpu/simd.h"
#include "cpu/score_windows/dispatch.h"

namespace t3ssfast::cpu {

// Vectors of outputs in a register block; with 4 (AVX2) or 8 (AVX-512) positions they fill the registers.
constexpr int kPanel = 3;

// Weights of one layer in panels of up to kPanel vectors of outputs: [panel][tap and channel][output].
struct PackedLayer {
    std::vector<float> weights, bias;
    std::int64_t outputs = 0;  // out_channels rounded up to whole vectors; the rest has weight 0
};

// A program made ready for one instruction set; holds all it needs.
struct PreparedProgram {
    std::vector<Layer> layers;
    std::int64_t map_layers;
    std::vector<float> parameters;
    Nines nines;
    SimdLevel level;
    std::vector<PackedLayer> packed;  // without weights where the layer has none
    // The head's first layer for nines: [panel][point][three of taps, channel][output].
    std::vector<float> minimal;

    LayerProgram program() const {
        return {layers.data(), static_cast<std::int64_t>(layers.size()), map_layers, parameters.data()};
    }
};

}  // namespace t3ssfast::cpu
