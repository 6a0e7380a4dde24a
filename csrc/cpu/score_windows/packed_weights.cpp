#include "cpu/score_windows/packed_weights.h"

#include <algorithm>

#include "core/winograd.h"

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
    const i64 panel = kPanelVectors * vector_width;
    for (i64 first = 0; first < outputs; first += panel) {
        const i64 columns = std::min(panel, packed.outputs - first), here = std::min(columns, outputs - first);
        for (i64 k = 0; k < fan_in; ++k)
            std::copy_n(weights + k * outputs + first, here, packed.weights.data() + first * fan_in + k * columns);
    }
    return packed;
}

// Transforms the 3 x 3 taps of one output and one channel into the weights of all points.
void transform_taps(const double (&taps)[kWinogradEdge][kWinogradEdge],
                    double (&out)[kWinogradPoints * kWinogradPoints]) {
    double across[kWinogradEdge][kWinogradPoints];
    for (int y = 0; y < kWinogradEdge; ++y) winograd_transform_taps(taps[y], across[y]);
    for (int x = 0; x < kWinogradPoints; ++x) {
        const double column[kWinogradEdge] = {across[0][x], across[1][x], across[2][x]};
        double down[kWinogradPoints];
        winograd_transform_taps(column, down);
        for (int y = 0; y < kWinogradPoints; ++y) out[y * kWinogradPoints + x] = down[y];
    }
}

std::vector<float> pack_winograd_weights(const Layer &layer, const float *parameters, const WinogradLayout &winograd,
                                         i64 packed_outputs, i64 vector_width) {
    constexpr i64 kPoints = kWinogradPoints * kWinogradPoints;
    const i64 outputs = layer.out_channels, channels = layer.in_channels;
    const i64 terms = winograd.filter_blocks_y * winograd.filter_blocks_x * channels,
              panel = kPanelVectors * vector_width;
    const float *weights = parameters + layer.parameters;
    std::vector<float> packed(packed_outputs * kPoints * terms, 0.0f);
    for (i64 first = 0; first < outputs; first += panel) {
        const i64 columns = std::min(panel, packed_outputs - first), here = std::min(columns, outputs - first);
        float *to = packed.data() + first * kPoints * terms;
        for (i64 term = 0; term < terms; ++term) {
            const i64 filter_block = term / channels, channel = term % channels;
            const i64 top = filter_block / winograd.filter_blocks_x * kWinogradEdge,
                      left = filter_block % winograd.filter_blocks_x * kWinogradEdge;
            for (i64 o = 0; o < here; ++o) {
                double taps[kWinogradEdge][kWinogradEdge], points[kPoints];
                for (i64 y = 0; y < kWinogradEdge; ++y) {
                    for (i64 x = 0; x < kWinogradEdge; ++x) {
                        const bool inside = top + y < layer.kernel_y && left + x < layer.kernel_x;
                        const i64 tap = (top + y) * layer.kernel_x + left + x;
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
                                                 i64 winograd_min_windows, SimdLevel level) {
    const i64 vector_width = level == SimdLevel::avx512 ? 16 : level == SimdLevel::avx2 ? 8 : 4;
    PreparedProgram prepared{{program.layers, program.layers + program.count},
                             program.map_layers,
                             {program.parameters, program.parameters + parameter_count},
                             winograd_layout(program.first_fully_connected(), winograd_min_windows),
                             level,
                             {},
                             {}};
    for (const Layer &layer : prepared.layers)
        prepared.packed.push_back(layer.weighted() ? pack_layer(layer, program.parameters, vector_width)
                                                   : PackedLayer{});
    if (prepared.winograd.used())
        prepared.winograd_weights =
            pack_winograd_weights(program.first_fully_connected(), program.parameters, prepared.winograd,
                                  prepared.packed[program.map_layers].outputs, vector_width);
    return std::make_shared<PreparedProgram>(std::move(prepared));
}

}  // namespace t3ssfast::cpu
