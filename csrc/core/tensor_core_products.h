// Tensor-core path of score_windows: packed weights, fragment products and element-wise layers, as templates over a
// block of warps (core/warp.h). The results are tested against core/score_windows_simt.h.
#pragma once

#include "core/score_windows_simt.h"
#include "core/tensor_core_program.h"
#include "core/warp.h"

namespace t3ssfast {

// --------------------------------------------------------------------------------------- packed weights

// Packs the weights of a stage as [group][fragment column][lane][word]; `part` of `parts` equal shares.
T3_TYPED_BLOCK_FUNCTION void pack_weights(Block &block, const TensorCoreRun &run, int index, std::int64_t part,
                                          std::int64_t parts) {
    const Stage &stage = run.program.stages[index];
    if (!stage.weighted()) return;
    const std::int64_t words =
        static_cast<std::int64_t>(stage.groups) * stage.column_fragments * kWarpLanes * kQuadWords;
    block.phase([&](auto &warp) {
        warp.lanes([&](int thread) {
            const std::int64_t at = warp.index() * kWarpLanes + thread;
            for (std::int64_t w = part * block.lanes() + at; w < words; w += parts * block.lanes()) {
                const int i = static_cast<int>(w % kQuadWords), lane = static_cast<int>(w / kQuadWords % kWarpLanes);
                const std::int64_t fragment = w / (kQuadWords * kWarpLanes);
                const int column =
                    static_cast<int>(fragment % stage.column_fragments) * kFragmentColumns + b_column(lane);
                const std::int64_t word = fragment / stage.column_fragments * kGroupWords + group_word(lane, i);
                float values[2] = {0.0f, 0.0f};
                for (int half = 0; half < Type::kPerWord; ++half) {
                    const std::int64_t k = word * Type::kPerWord + half;
                    const std::int64_t tap = k / stage.tap_channels, channel = k % stage.tap_channels;
                    if (tap < stage.taps() && channel < stage.in_channels && column < stage.out_channels)
                        values[half] = Type::prepare(
                            run.parameters[stage.parameters + (tap * stage.in_channels + channel) * stage.out_channels +
                                           column]);
                }
                run.packed_weights[stage.packed_weights + w] = Type::word(values);
            }
        });
    });
}

// ---------------------------------------------------------------------------------------------- products

// kRows x kColumns fragments of sums.
template <typename Warp, int kRows, int kColumns>
struct AccumulatorTiles {
    typename Warp::template PerLane<Accumulators> tile[kRows][kColumns];

    T3_HD void clear(int lane) {
        T3_UNROLL for (int m = 0; m < kRows; ++m) {
            T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                T3_UNROLL for (int r = 0; r < 4; ++r) tile[m][n][lane].value[r] = 0.0f;
            }
        }
    }
};

// Adds the products of one group of K. read_rows(warp, m, p, words) loads the registers of fragment row m for product
// p; read_column(lane, n) returns the words of a lane for fragment column first + n. There are `columns` of those.
// kWhole asserts that all exist here: a branch per column makes the compiler move accumulators that tensor cores update
// in place.
T3_WARP_FUNCTION(typename Format, bool kWhole, typename Warp, int kRows, int kColumns, typename ReadRows,
                 typename ReadColumn)
void multiply_group(Warp &warp, AccumulatorTiles<Warp, kRows, kColumns> &sums, int first, int columns,
                    const ReadRows &read_rows, const ReadColumn &read_column) {
    constexpr int kTerms = Format::kTerms;
    typename Warp::template PerLane<OperandA<kTerms>> rows[kRows][kGroupProducts];
    T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
        T3_UNROLL for (int m = 0; m < kRows; ++m) {
            typename Warp::template PerLane<Quad> words;
            read_rows(warp, m, p, words);
            warp.lanes([&](int lane) {
                T3_UNROLL for (int r = 0; r < 4; ++r) {
                    std::uint32_t term[kTerms];
                    Format::terms(words[lane].word[r], term);
                    T3_UNROLL for (int k = 0; k < kTerms; ++k) rows[m][p][lane].term[k][r] = term[k];
                }
            });
        }
    }
    T3_UNROLL for (int n = 0; n < kColumns; ++n) {
        if (!kWhole && first + n >= columns) continue;
        typename Warp::template PerLane<OperandB<kTerms>> column[kGroupProducts];
        warp.lanes([&](int lane) {
            const Quad words = read_column(lane, first + n);
            T3_UNROLL for (int i = 0; i < kQuadWords; ++i) {
                std::uint32_t term[kTerms];
                Format::terms(words.word[i], term);
                T3_UNROLL for (int k = 0; k < kTerms; ++k) column[i / 2][lane].term[k][i % 2] = term[k];
            }
        });
        if constexpr (kTerms == 1) {
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Format>(sums.tile[m][n], rows[m][p], 0, column[p], 0);
            }
        } else {
            // Each group's sum starts at 0 and is added to the accumulators outside the tensor cores, where sums are
            // rounded instead of truncated: about 500 truncations would be visible. The smallest products come first.
            typename Warp::template PerLane<Accumulators> part[kRows];
            T3_UNROLL for (int m = 0; m < kRows; ++m)
                warp.template multiply_first<Format>(part[m], rows[m][0], 1, column[0], 0);
            T3_UNROLL for (int m = 0; m < kRows; ++m)
                warp.template multiply<Format>(part[m], rows[m][1], 1, column[1], 0);
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Format>(part[m], rows[m][p], 0, column[p], 1);
            }
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Format>(part[m], rows[m][p], 0, column[p], 0);
            }
            warp.lanes([&](int lane) {
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int r = 0; r < 4; ++r) sums.tile[m][n][lane].value[r] += part[m][lane].value[r];
                }
            });
        }
    }
}

// ------------------------------------------------------------------------------------ element-wise layers

T3_HD float relu_if(bool relu, float value) { return relu && value < 0.0f ? 0.0f : value; }

// Applies the element-wise layers of a stage to a value of channel `c`.
T3_HD float apply_elementwise(const TensorCoreRun &run, const Stage &stage, int c, float value) {
    for (int i = 0; i < stage.elementwise_count; ++i) {
        const ElementwiseLayer &layer = run.program.elementwise[stage.first_elementwise + i];
        const float *layer_parameters = run.parameters + layer.parameters;
        if (layer.kind == LayerKind::affine)
            value = multiply_add(value, layer_parameters[c], layer_parameters[stage.out_channels + c]);
        else
            value = activate(layer.kind, value, layer.kind == LayerKind::leaky_relu ? layer_parameters[0] : 0.0f);
    }
    return value;
}

}  // namespace t3ssfast
