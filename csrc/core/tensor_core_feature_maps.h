// Tensor-core path of score_windows: feature maps, computed one tile at a time in shared memory.
#pragma once

#include "core/tensor_core_products.h"

namespace t3ssfast {

// Marks the feature map tiles that windows [first, first + block.lanes()) of the run read.
T3_BLOCK_FUNCTION void mark_needed_tiles(Block &block, const TensorCoreRun &run, std::int64_t first) {
    const Stage &head = run.program.first_fully_connected();
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            const std::int64_t i = first + warp.index() * kWarpLanes + lane;
            if (i >= run.window_count) return;
            const WindowPosition at = run.window(i);
            const std::int64_t bottom = (at.y + head.reach_y()) / run.tile.height;
            const std::int64_t right = (at.x + head.reach_x()) / run.tile.width;
            for (std::int64_t y = at.y / run.tile.height; y <= bottom; ++y) {
                for (std::int64_t x = at.x / run.tile.width; x <= right; ++x) {
                    // Several lanes may write here; all write the same value.
                    std::uint8_t &mark = run.needed_tiles[(at.image * run.tiles_down() + y) * run.tiles_across() + x];
                    if (mark == 0) mark = 1;
                }
            }
        });
    });
}

// Fragments of a convolution that a warp sums at once: more would leave too few registers for two blocks of 256 lanes.
constexpr int kConvolutionRows = 2, kConvolutionColumns = 2;

// A convolution in shared memory: the rows of the product are pixels of `out`, K its taps and channels. With `prepare`,
// values are written in the format of the next product.
T3_TYPED_BLOCK_FUNCTION void convolve_tile(Block &block, const TensorCoreRun &run, const Stage &stage, Extent from,
                                           const float *in, Extent to, float *out, std::int32_t *taps, bool prepare) {
    constexpr int kPerWord = Type::kPerWord, kLaneValues = kQuadWords * kPerWord;
    constexpr int kRows = kConvolutionRows, kColumns = kConvolutionColumns;
    const int values = stage.taps() * stage.in_channels, channels = stage.in_channels;
    const int in_width = static_cast<int>(from.width), out_width = static_cast<int>(to.width);
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            for (int q = warp.index() * kWarpLanes + lane; q < stage.groups * 4 * kLaneValues; q += block.lanes()) {
                const int quad = q / kLaneValues, i = q / kPerWord % kQuadWords;
                const int k = (quad / 4 * kGroupWords + group_word(quad % 4, i)) * kPerWord + q % kPerWord;
                const int tap = k / channels;
                const int y = tap / stage.kernel_x * stage.step_y, x = tap % stage.kernel_x * stage.step_x;
                // Past the last value the weights are 0, so any pixel may be read.
                taps[q] = k < values ? (y * in_width + x) * channels + k % channels : 0;
            }
        });
    });
    using Warp = typename Block::Warp;
    const int area = static_cast<int>(to.area()), unit_rows = kRows * kFragmentRows;
    const int across = (stage.column_fragments + kColumns - 1) / kColumns;
    const int units = (area + unit_rows - 1) / unit_rows * across;
    const std::uint32_t *packed_weights = run.packed_weights + stage.packed_weights;
    const float *bias = run.parameters + stage.bias();
    const int groups = stage.groups, tiles = stage.column_fragments, outputs = stage.out_channels;
    const bool relu = stage.relu;
    struct PixelOffsets {
        int at[kRows][2];
    };
    const FastDivisor row_of(out_width);
    block.phase([&](auto &warp) {
        for (int unit = warp.index(); unit < units; unit += block.warps()) {
            const int row = unit / across * unit_rows, tile = unit % across * kColumns;
            AccumulatorTiles<Warp, kRows, kColumns> sums;
            typename Warp::template PerLane<PixelOffsets> offsets;
            warp.lanes([&](int lane) {
                sums.clear(lane);
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int half = 0; half < 2; ++half) {
                        const int pixel = row + m * kFragmentRows + a_row(lane, half);
                        const int there = pixel < area ? pixel : area - 1;
                        const int y = row_of(there);
                        offsets[lane].at[m][half] = (y * in_width + there - y * out_width) * channels;
                    }
                }
            });
            for (int group = 0; group < groups; ++group) {
                multiply_group<Type, false>(
                    warp, sums, tile, tiles,
                    [&](auto &here, int m, int p, auto &words) {
                        here.lanes([&](int lane) {
                            const std::int32_t *tap = taps + (group * 4 + lane % 4) * kLaneValues;
                            T3_UNROLL for (int r = 0; r < 4; ++r) {
                                const float *pixel = in + offsets[lane].at[m][r % 2];
                                float value[kPerWord];
                                T3_UNROLL for (int e = 0; e < kPerWord; ++e) value[e] =
                                    pixel[tap[(2 * p + r / 2) * kPerWord + e]];
                                words[lane].word[r] = Type::word(value);
                            }
                        });
                    },
                    [&](int lane, int column) {
                        return load_quad(packed_weights + ((group * tiles + column) * kWarpLanes + lane) * kQuadWords);
                    });
            }
            warp.lanes([&](int lane) {
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                        T3_UNROLL for (int r = 0; r < 4; ++r) {
                            const int pixel = row + m * kFragmentRows + d_row(lane, r);
                            const int c = (tile + n) * kFragmentColumns + d_column(lane, r);
                            if (pixel >= area || c >= outputs) continue;
                            const float value = relu_if(relu, sums.tile[m][n][lane].value[r] + bias[c]);
                            out[pixel * outputs + c] = prepare ? Type::prepare(value) : value;
                        }
                    }
                }
            });
        }
    });
}

// Pools the value at `in` and its other taps. A stage with a single tap only copies the value.
T3_HD float pool_value(const Stage &stage, const float *in, int in_row) {
    const bool average = stage.kind == LayerKind::average_pool;
    const int down = stage.step_y * in_row, right = stage.step_x * stage.in_channels;
    float value = average ? 0.0f : *in;
    for (int y = 0; y < stage.kernel_y; ++y) {
        for (int x = 0; x < stage.kernel_x; ++x) {
            const float other = in[y * down + x * right];
            if (average)
                value += other;
            else  // NaN propagates, as in PyTorch
                value = other > value || other != other ? other : value;
        }
    }
    return relu_if(stage.relu, average ? value * (1.0f / static_cast<float>(stage.taps())) : value);
}

// Tile `index` of the feature map: all stages run in shared memory, the last one writes to the map.
T3_TYPED_BLOCK_FUNCTION void feature_map_tile(Block &block, const TensorCoreRun &run, std::int64_t index,
                                              float *shared) {
    if (run.needed_tiles != nullptr && run.needed_tiles[index] == 0) return;
    const StageProgram &program = run.program;
    const WindowPosition corner = window_position(index, run.tiles_down(), run.tiles_across());
    const std::int64_t top = corner.y * run.tile.height, left = corner.x * run.tile.width;
    std::int32_t *taps = reinterpret_cast<std::int32_t *>(shared);
    float *in = shared + run.buffers.taps, *out = in + run.buffers.even;

    // In every phase warps take rows in turn, and lanes take neighbouring values of a row.
    Extent extent = stage_input(program, 0, run.tile);
    block.phase([&](auto &warp) {
        const float *image = run.images.image(run.first_image + corner.image);
        const int width = static_cast<int>(extent.width), height = static_cast<int>(extent.height);
        for (int row = warp.index(); row < height; row += block.warps()) {
            const std::int64_t y = run.first_row + top + row;
            warp.lanes([&](int lane) {
                for (int i = lane; i < width; i += kWarpLanes) {
                    // Only pixels outside the feature map depend on pixels outside the image.
                    const bool inside = y < run.images.height && left + i < run.images.width;
                    in[row * width + i] = inside ? Type::prepare(image[y * run.images.width + left + i]) : 0.0f;
                }
            });
        }
    });
    for (int s = 0; s + 1 < program.map_stages; ++s) {
        const Stage &stage = program.stages[s];
        const Extent next = stage_input(program, s + 1, run.tile);
        const int channels = stage.out_channels, in_row = static_cast<int>(extent.width) * stage.in_channels;
        const int height = static_cast<int>(next.height), row_values = static_cast<int>(next.width) * channels;
        const bool multiplied = program.stages[s + 1].weighted(), prepare = multiplied && stage.elementwise_count == 0;
        if (stage.weighted()) {
            convolve_tile<Type>(block, run, stage, extent, in, next, out, taps, prepare);
        } else {
            block.phase([&](auto &warp) {
                for (int row = warp.index(); row < height; row += block.warps()) {
                    warp.lanes([&](int lane) {
                        for (int i = lane; i < row_values; i += kWarpLanes) {
                            const float value = pool_value(stage, in + row * in_row + i, in_row);
                            out[row * row_values + i] = prepare ? Type::prepare(value) : value;
                        }
                    });
                }
            });
        }
        if (stage.elementwise_count > 0) {
            block.phase([&](auto &warp) {
                for (int row = warp.index(); row < height; row += block.warps()) {
                    warp.lanes([&](int lane) {
                        for (int i = lane; i < row_values; i += kWarpLanes) {
                            float &value = out[row * row_values + i];
                            value = apply_elementwise(run, stage, i % channels, value);
                            if (multiplied) value = Type::prepare(value);
                        }
                    });
                }
            });
        }
        float *const previous_in = in;
        in = out;
        out = previous_in;
        extent = next;
    }

    const Stage &last = program.stages[program.map_stages - 1];
    const std::int64_t down = run.map.height - top, across = run.map.width - left;
    const int height = static_cast<int>(down < run.tile.height ? down : run.tile.height);
    const int width = static_cast<int>(across < run.tile.width ? across : run.tile.width);
    const int words = program.pixel_words, in_row = static_cast<int>(extent.width) * last.in_channels;
    std::uint32_t *map = run.feature_maps + run.map_word({corner.image, top, left});
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            const int first = lane / words, step = kWarpLanes / words, word = lane % words, more = kWarpLanes % words;
            for (int row = warp.index(); row < height; row += block.warps()) {
                std::uint32_t *to = map + row * run.map.width * words;
                for (int x = first, w = word; x < width;) {
                    float value[Type::kPerWord];
                    for (int e = 0; e < Type::kPerWord; ++e) {
                        const int c = w * Type::kPerWord + e;
                        const float *from = in + row * in_row + x * last.in_channels + c;
                        value[e] = c < last.out_channels ? Type::prepare(pool_value(last, from, in_row)) : 0.0f;
                    }
                    to[x * words + w] = Type::word(value);
                    x += step;
                    w += more;
                    x += w >= words;
                    w -= w >= words ? words : 0;
                }
            }
        });
    });
}

}  // namespace t3ssfast
