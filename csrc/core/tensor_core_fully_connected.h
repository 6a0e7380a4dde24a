// Tensor-core path of score_windows: the fully connected layers.
#pragma once

#include "core/tensor_core_products.h"

namespace t3ssfast {

// Swizzled position of one of the eight 16-byte quads of a row: the same quad of eight rows lies in different banks.
T3_HD int swizzled(int row, int quad) { return quad ^ row % kChunkQuads; }

// Fully connected layers of windows [first, first + Type::rows(warps)) of the run; Type is a BlockShape.
//
// The first layer is a product whose rows are gathered from the feature map: K is processed in chunks of one cache line
// per row, which are copied to shared memory kPipelineSlots - 1 chunks ahead. Hidden values then replace the slots and
// are the rows of the next layers, whose weights are read through the cache.
T3_TYPED_BLOCK_FUNCTION void fully_connected_block(Block &block, const TensorCoreRun &run, std::int64_t first,
                                                   unsigned char *shared) {
    using Warp = typename Block::Warp;
    using Format = typename Type::Format;
    constexpr int kRows = Type::kRowFragments, kColumns = Type::kColumnFragments, across = Type::kWarpsAcross;
    constexpr int kPerWord = Format::kPerWord;
    const StageProgram &program = run.program;
    const int rows = Type::rows(block.warps());
    const std::int64_t remaining = run.window_count - first;
    const int count = static_cast<int>(remaining < rows ? remaining : rows);

    const Stage &gathered = program.first_fully_connected();
    const int slot = pipeline_slot_words(rows, gathered.column_fragments),
              stride = hidden_row_floats(program, kPerWord);
    const int slots = kPipelineSlots * slot, floats = rows * stride;
    std::uint32_t *chunks_at = reinterpret_cast<std::uint32_t *>(shared);
    float *hidden = reinterpret_cast<float *>(shared);
    std::int64_t *map_offsets = reinterpret_cast<std::int64_t *>(chunks_at + (slots > floats ? slots : floats));
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            // Past the end the last window is computed again; the result is discarded.
            for (int r = warp.index() * kWarpLanes + lane; r < rows; r += block.lanes())
                map_offsets[r] = run.map_word(run.window(first + (r < count ? r : count - 1)));
        });
    });

    const int tiles = gathered.column_fragments, chunks = gathered.groups / kChunkGroups;
    const int pixel_quads = program.pixel_words / kQuadWords, quads = gathered.taps() * pixel_quads;
    const std::uint32_t *packed_weights = run.packed_weights + gathered.packed_weights;
    const auto copy_chunk = [&](auto &warp, int chunk) {
        if (chunk < chunks) {
            std::uint32_t *to = chunks_at + chunk % kPipelineSlots * slot, *weights = to + rows * kChunkWords;
            const int weight_quads = kChunkGroups * tiles * kWarpLanes;
            const std::uint32_t *from = packed_weights + static_cast<std::int64_t>(chunk) * weight_quads * kQuadWords;
            warp.lanes([&](int lane) {
                const int at = warp.index() * kWarpLanes + lane, quad = at % kChunkQuads;
                const int q = chunk * kChunkQuads + quad, tap = q / pixel_quads;
                const std::int64_t y = tap / gathered.kernel_x * gathered.step_y;
                const std::int64_t x = tap % gathered.kernel_x * gathered.step_x;
                const std::int64_t offset =
                    (y * run.map.width + x) * program.pixel_words + q % pixel_quads * kQuadWords;
                // Zeros past the last tap: the memory there may contain NaN.
                const bool valid = q < quads;
                for (int r = at / kChunkQuads; r < rows; r += block.lanes() / kChunkQuads)
                    warp.copy_reused(to + r * kChunkWords + swizzled(r, quad) * kQuadWords,
                                     run.feature_maps + map_offsets[r] + (valid ? offset : 0), valid);
                for (int i = at; i < weight_quads; i += block.lanes())
                    warp.copy_once(weights + i * kQuadWords, from + i * kQuadWords);
            });
        }
        warp.commit();
    };

    typename Block::template PerWarp<AccumulatorTiles<Warp, kRows, kColumns>> sums(block);
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) { sums[warp].clear(lane); });
        for (int chunk = 0; chunk < kPipelineSlots - 1; ++chunk) copy_chunk(warp, chunk);
        warp.template wait<kPipelineSlots - 2>();
    });
    for (int chunk = 0; chunk < chunks; ++chunk) {
        block.phase([&](auto &warp) {
            copy_chunk(warp, chunk + kPipelineSlots - 1);
            const std::uint32_t *from = chunks_at + chunk % kPipelineSlots * slot, *weights = from + rows * kChunkWords;
            const int row = warp.index() / across * kRows * kFragmentRows, tile = warp.index() % across * kColumns;
            T3_UNROLL for (int g = 0; g < kChunkGroups; ++g) {
                multiply_group<Format, Type::kWarpsAcross != 1>(
                    warp, sums[warp], tile, tiles,
                    [&](auto &here, int m, int p, auto &words) {
                        here.load_rows(words, [&](int lane) {
                            const int r = row + m * kFragmentRows + ldmatrix_row(lane);
                            return from + r * kChunkWords +
                                   swizzled(r, g * 4 + p * 2 + ldmatrix_quad(lane)) * kQuadWords;
                        });
                    },
                    [&](int lane, int column) {
                        return load_quad(weights + ((g * tiles + column) * kWarpLanes + lane) * kQuadWords);
                    });
            }
            warp.template wait<kPipelineSlots - 2>();
        });
    }

    for (int s = program.map_stages; s < program.count; ++s) {
        const Stage &stage = program.stages[s];
        if (s > program.map_stages) {
            block.phase([&](auto &warp) {
                const int row = warp.index() / across * kRows * kFragmentRows;
                const int tile = warp.index() % across * kColumns;
                warp.lanes([&](int lane) { sums[warp].clear(lane); });
                for (int group = 0; group < stage.groups; ++group) {
                    multiply_group<Format, false>(
                        warp, sums[warp], tile, stage.column_fragments,
                        [&](auto &here, int m, int p, auto &words) {
                            here.lanes([&](int lane) {
                                T3_UNROLL for (int r = 0; r < 4; ++r) {
                                    const int k = group * kGroupWords + p * kFragmentWords + a_word(lane, r);
                                    const float *value = hidden + (row + m * kFragmentRows + a_row(lane, r)) * stride;
                                    words[lane].word[r] = Format::word(value + k * kPerWord);
                                }
                            });
                        },
                        [&](int lane, int column) {
                            return load_quad(run.packed_weights + stage.packed_weights +
                                             ((group * stage.column_fragments + column) * kWarpLanes + lane) *
                                                 kQuadWords);
                        });
                }
            });
        }
        const float *bias = run.parameters + stage.bias();
        const int width = stage.out_channels, whole = padded_width(width, kPerWord);
        const int tiles_here = stage.column_fragments;
        const bool relu = stage.relu, multiplied = s + 1 < program.count && stage.elementwise_count == 0;
        block.phase([&](auto &warp) {
            const int row = warp.index() / across * kRows * kFragmentRows, tile = warp.index() % across * kColumns;
            warp.lanes([&](int lane) {
                T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                    if (tile + n >= tiles_here) continue;
                    T3_UNROLL for (int m = 0; m < kRows; ++m) {
                        T3_UNROLL for (int r = 0; r < 4; ++r) {
                            const int c = (tile + n) * kFragmentColumns + d_column(lane, r);
                            const float sum = sums[warp].tile[m][n][lane].value[r];
                            const float value = c < width ? relu_if(relu, sum + bias[c]) : 0.0f;
                            hidden[(row + m * kFragmentRows + d_row(lane, r)) * stride + c] =
                                multiplied ? Format::prepare(value) : value;
                        }
                    }
                }
                // The next layer reads whole groups.
                const int from = stage.column_fragments * kFragmentColumns, more = whole > from ? whole - from : 0;
                for (int i = warp.index() * kWarpLanes + lane; i < rows * more; i += block.lanes())
                    hidden[i / more * stride + from + i % more] = 0.0f;
            });
        });
        if (stage.elementwise_count > 0) {
            block.phase([&](auto &warp) {
                warp.lanes([&](int lane) {
                    for (int i = warp.index() * kWarpLanes + lane; i < rows * width; i += block.lanes()) {
                        float &value = hidden[i / width * stride + i % width];
                        value = apply_elementwise(run, stage, i % width, value);
                        if (s + 1 < program.count) value = Format::prepare(value);
                    }
                });
            });
        }
    }

    const int classes = program.classes();
    if (program.normalisation != LayerKind::relu) {
        block.phase([&](auto &warp) {
            warp.lanes([&](int lane) {
                for (int r = warp.index() * kWarpLanes + lane; r < count; r += block.lanes())
                    softmax_in_place(hidden + r * stride, classes, program.normalisation == LayerKind::log_softmax);
            });
        });
    }
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            for (int i = warp.index() * kWarpLanes + lane; i < count * classes; i += block.lanes()) {
                const int r = i % count, c = i / count;
                run.out.data[(run.first_window + first + r) * run.out.window_stride + c * run.out.class_stride] =
                    hidden[r * stride + c];
            }
        });
    });
}

}  // namespace t3ssfast
