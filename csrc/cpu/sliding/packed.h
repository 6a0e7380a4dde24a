// Weights as the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layers.h"
#include "cpu/sliding/places.h"

namespace t3ssfast::cpu {

// Vectors of outputs in a register block; with 4 (AVX2) or 8 (AVX-512) positions they fill the registers.
constexpr int kPanel = 3;

// Weights of one layer in panels of up to kPanel vectors of outputs: [panel][tap and channel][output].
struct PackedLayer {
    std::vector<float> weights, bias;
    std::int64_t outputs = 0;  // out_channels rounded up to whole vectors; the rest has weight 0
};

struct PackedProgram {
    std::vector<PackedLayer> layers;  // without weights where the layer has none
    // The head's first layer for nines: [panel][point][three of taps, channel][output].
    std::vector<float> minimal;
};

PackedProgram pack(const LayerProgram &program, const Nines &nines, std::int64_t vector_width);

}  // namespace t3ssfast::cpu
