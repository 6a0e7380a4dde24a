#include "cpu/score_windows/packed.h"

#include <algorithm>

#include "core/minimal.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

PackedLayer pack_layer(const Layer &layer, const float *parameters, i64 vector_width) {
    const i64 fan_in = layer.fan_in(), outputs = layer.out_channels;
    const float *weights = parameters + layer.parameters, *bias = weights + fan_in * outputs;
    PackedLayer packed;
    packed.outputs = (outputs + vector_width - 1) / vector_width * vector_width;
    packed.weights.assign(packed.outputs * fan_in, 0.0f);
    packed.bias.assign(packed.outputs, 0.0f);
    std::copy(bias, bias + outputs, packed.bias.begin());
    const i64 panel = kPanel * vector_width;
    for (i64 first = 0; first < outputs; first += panel) {
        const i64 columns = std::min(panel, packed.outputs - first), here = std::min(columns, outputs - first);
        for (i64 k = 0; k < fan_in; ++k)
            std::copy_n(weights + k * outputs + first, here, packed.weights.data() + first * fan_in + k * columns);
    }
    return packed;
}

// The taps of one output from one channel, three by three, to the weights of all points.
void transform_taps(const double (&taps)[kMinimalEdge][kMinimalEdge], double (&out)[kMinimalPoints * kMinimalPoints]) {
    double across[kMinimalEdge][kMinimalPoints];
    for (int y = 0; y < kMinimalEdge; ++y) minimal_taps(taps[y], across[y]);
    for (int x = 0; x < kMinimalPoints; ++x) {
        const double column[kMinimalEdge] = {across[0][x], across[1][x], across[2][x]};
        double down[kMinimalPoints];
        minimal_taps(column, down);
        for (int y = 0; y < kMinimalPoints; ++y) out[y * kMinimalPoints + x] = down[y];
    }
}

std::vector<float> pack_minimal(const Layer &head, const float *parameters, const Nines &nines, i64 packed_outputs,
                                i64 vector_width) {
    constexpr i64 kPoints = kMinimalPoints * kMinimalPoints;
    const i64 outputs = head.out_channels, channels = head.in_channels;
    const i64 terms = nines.threes_y * nines.threes_x * channels, panel = kPanel * vector_width;
    const float *weights = parameters + head.parameters;
    std::vector<float> packed(packed_outputs * kPoints * terms, 0.0f);
    for (i64 first = 0; first < outputs; first += panel) {
        const i64 columns = std::min(panel, packed_outputs - first), here = std::min(columns, outputs - first);
        float *to = packed.data() + first * kPoints * terms;
        for (i64 term = 0; term < terms; ++term) {
            const i64 three = term / channels, channel = term % channels;
            const i64 top = three / nines.threes_x * kMinimalEdge, left = three % nines.threes_x * kMinimalEdge;
            for (i64 o = 0; o < here; ++o) {
                double taps[kMinimalEdge][kMinimalEdge], points[kPoints];
                for (i64 y = 0; y < kMinimalEdge; ++y) {
                    for (i64 x = 0; x < kMinimalEdge; ++x) {
                        const bool inside = top + y < head.kernel_y && left + x < head.kernel_x;
                        const i64 tap = (top + y) * head.kernel_x + left + x;
                        taps[y][x] = inside ? weights[(tap * channels + channel) * outputs + first + o] : 0.0;
                    }
                }
                transform_taps(taps, points);
                for (i64 p = 0; p < kPoints; ++p) to[(p * terms + term) * columns + o] = static_cast<float>(points[p]);
            }
        }
    }
    return packed;
}

}  // namespace

std::shared_ptr<PreparedProgram> prepare_program(const LayerProgram &program, i64 parameter_count,
                                                       i64 least_of_nine, SimdLevel level) {
    const i64 vector_width = level == SimdLevel::avx512 ? 16 : level == SimdLevel::avx2 ? 8 : 4;
    PreparedProgram prepared{{program.layers, program.layers + program.count},
                             program.map_layers,
                             {program.parameters, program.parameters + parameter_count},
                             nines_of(program.head(), least_of_nine),
                             level,
                             {},
                             {}};
    for (const Layer &layer : prepared.layers)
        prepared.packed.push_back(layer.weighted() ? pack_layer(layer, program.parameters, vector_width)
                                                   : PackedLayer{});
    if (prepared.nines.used())
        prepared.minimal = pack_minimal(program.head(), program.parameters, prepared.nines,
                                        prepared.packed[program.map_layers].outputs, vector_width);
    return std::make_shared<PreparedProgram>(std::move(prepared));
}

}  // namespace t3ssfast::cpu
