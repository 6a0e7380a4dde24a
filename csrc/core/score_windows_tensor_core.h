// The block algorithms of score_windows on tensor cores (core/warp_program.h), as templates over a block of warps
// (core/warp.h): what the CUDA kernels run, testable on the host. Their oracle is core/sliding.h.
#pragma once

#include "core/score_windows_simt.h"
#include "core/warp.h"
#include "core/tensor_core_program.h"

namespace t3ssfast {

// ---------------------------------------------------------------------------------------------- the weights

// Brings the weights of a stage into the order [group][fragment column][lane][word]; `part` of `parts` equal shares.
T3_TYPED_BLOCK_FUNCTION void pack_weights(Block &block, const WarpRun &run, int index, std::int64_t part,
                                          std::int64_t parts) {
    const Stage &stage = run.program.stages[index];
    if (!stage.weighted()) return;
    const std::int64_t words =
        static_cast<std::int64_t>(stage.groups) * stage.column_tiles * kWarpLanes * kLaneWords;
    block.phase([&](auto &warp) {
        warp.lanes([&](int own) {
            const std::int64_t at = warp.index() * kWarpLanes + own;
            for (std::int64_t w = part * block.lanes() + at; w < words; w += parts * block.lanes()) {
                const int i = static_cast<int>(w % kLaneWords), lane = static_cast<int>(w / kLaneWords % kWarpLanes);
                const std::int64_t fragment = w / (kLaneWords * kWarpLanes);
                const int column = static_cast<int>(fragment % stage.column_tiles) * kFragmentColumns + b_column(lane);
                const std::int64_t word = fragment / stage.column_tiles * kGroupWords + group_word(lane, i);
                float values[2] = {0.0f, 0.0f};
                for (int half = 0; half < Type::kPerWord; ++half) {
                    const std::int64_t k = word * Type::kPerWord + half;
                    const std::int64_t tap = k / stage.tap_channels, channel = k % stage.tap_channels;
                    if (tap < stage.taps() && channel < stage.in_channels && column < stage.out_channels)
                        values[half] = Type::prepare(
                            run.parameters[stage.parameters +
                                           (tap * stage.in_channels + channel) * stage.out_channels + column]);
                }
                run.packed[stage.packed + w] = Type::word(values);
            }
        });
    });
}

// --------------------------------------------------------------------------------------------- the products

// Sums of kRows x kColumns fragments.
template <typename Warp, int kRows, int kColumns>
struct SumTiles {
    typename Warp::template PerLane<Sums> tile[kRows][kColumns];

    T3_HD void clear(int lane) {
        T3_UNROLL for (int m = 0; m < kRows; ++m) {
            T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                T3_UNROLL for (int r = 0; r < 4; ++r) tile[m][n][lane].value[r] = 0.0f;
            }
        }
    }
};

// Adds one group of K. read_rows(warp, m, p, words) gets the registers of fragment row m for product p, and
// read_column(lane, n) the words of a lane for fragment column first + n. There are `columns` of those; kWhole says that
// none is missing here, as a branch a column makes the compiler move sums that tensor cores add to in place.
T3_WARP_FUNCTION(typename Numbers, bool kWhole, typename Warp, int kRows, int kColumns, typename ReadRows,
                 typename ReadColumn)
void add_group(Warp &warp, SumTiles<Warp, kRows, kColumns> &sums, int first, int columns, const ReadRows &read_rows,
               const ReadColumn &read_column) {
    constexpr int kTerms = Numbers::kTerms;
    typename Warp::template PerLane<OperandA<kTerms>> rows[kRows][kGroupProducts];
    T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
        T3_UNROLL for (int m = 0; m < kRows; ++m) {
            typename Warp::template PerLane<Quad> words;
            read_rows(warp, m, p, words);
            warp.lanes([&](int lane) {
                T3_UNROLL for (int r = 0; r < 4; ++r) {
                    std::uint32_t term[kTerms];
                    Numbers::terms(words[lane].word[r], term);
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
            T3_UNROLL for (int i = 0; i < kLaneWords; ++i) {
                std::uint32_t term[kTerms];
                Numbers::terms(words.word[i], term);
                T3_UNROLL for (int k = 0; k < kTerms; ++k)
                    column[i / 2][lane].term[k][i % 2] = term[k];
            }
        });
        if constexpr (kTerms == 1) {
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Numbers>(sums.tile[m][n], rows[m][p], 0, column[p], 0);
            }
        } else {
            // A group's sum is begun anew and added outside, where sums are rounded and not cut off as in the tensor
            // cores: cutting off some 500 times would be seen. The smallest products come first.
            typename Warp::template PerLane<Sums> part[kRows];
            T3_UNROLL for (int m = 0; m < kRows; ++m)
                warp.template multiply_first<Numbers>(part[m], rows[m][0], 1, column[0], 0);
            T3_UNROLL for (int m = 0; m < kRows; ++m)
                warp.template multiply<Numbers>(part[m], rows[m][1], 1, column[1], 0);
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Numbers>(part[m], rows[m][p], 0, column[p], 1);
            }
            T3_UNROLL for (int p = 0; p < kGroupProducts; ++p) {
                T3_UNROLL for (int m = 0; m < kRows; ++m)
                    warp.template multiply<Numbers>(part[m], rows[m][p], 0, column[p], 0);
            }
            warp.lanes([&](int lane) {
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int r = 0; r < 4; ++r)
                        sums.tile[m][n][lane].value[r] += part[m][lane].value[r];
                }
            });
        }
    }
}

// ------------------------------------------------------------------------------------ values between products

T3_HD float rectified(bool rectify, float value) { return rectify && value < 0.0f ? 0.0f : value; }

// The element-wise layers of a stage on a value of channel `c`.
T3_HD float apply_elements(const WarpRun &run, const Stage &stage, int c, float value) {
    for (int i = 0; i < stage.element_count; ++i) {
        const ElementLayer &layer = run.program.elements[stage.first_element + i];
        const float *own = run.parameters + layer.parameters;
        if (layer.kind == LayerKind::affine)
            value = multiply_add(value, own[c], own[stage.out_channels + c]);
        else
            value = activate(layer.kind, value, layer.kind == LayerKind::leaky_relu ? own[0] : 0.0f);
    }
    return value;
}

// ------------------------------------------------------------------------------------------------- the maps

// Notes which tiles of the map the windows [first, first + block.lanes()) of the run look at.
T3_BLOCK_FUNCTION void mark_tiles(Block &block, const WarpRun &run, std::int64_t first) {
    const Stage &head = run.program.head();
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            const std::int64_t i = first + warp.index() * kWarpLanes + lane;
            if (i >= run.window_count) return;
            const WindowPosition at = run.window(i);
            const std::int64_t bottom = (at.y + head.reach_y()) / run.tile.height;
            const std::int64_t right = (at.x + head.reach_x()) / run.tile.width;
            for (std::int64_t y = at.y / run.tile.height; y <= bottom; ++y) {
                for (std::int64_t x = at.x / run.tile.width; x <= right; ++x) {
                    // Any number of lanes may write here, all of them the same.
                    std::uint8_t &mark = run.touched[(at.image * run.tiles_down() + y) * run.tiles_across() + x];
                    if (mark == 0) mark = 1;
                }
            }
        });
    });
}

// Fragments of a convolution that a warp sums at once: more would not leave registers for two blocks of 256 lanes.
constexpr int kMapRowTiles = 2, kMapColumnTiles = 2;

// A convolution in shared memory: rows of the product are pixels of `out`, K its taps and channels. Values are written
// prepared for the next product where `ready`.
T3_TYPED_BLOCK_FUNCTION void convolve_tile(Block &block, const WarpRun &run, const Stage &stage, Extent from,
                                           const float *in, Extent to, float *out, std::int32_t *taps, bool ready) {
    constexpr int kPerWord = Type::kPerWord, kLaneValues = kLaneWords * kPerWord;
    constexpr int kRows = kMapRowTiles, kColumns = kMapColumnTiles;
    const int values = stage.taps() * stage.in_channels, channels = stage.in_channels;
    const int in_width = static_cast<int>(from.width), out_width = static_cast<int>(to.width);
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            for (int q = warp.index() * kWarpLanes + lane; q < stage.groups * 4 * kLaneValues; q += block.lanes()) {
                const int quad = q / kLaneValues, i = q / kPerWord % kLaneWords;
                const int k = (quad / 4 * kGroupWords + group_word(quad % 4, i)) * kPerWord + q % kPerWord;
                const int tap = k / channels;
                const int y = tap / stage.kernel_x * stage.step_y, x = tap % stage.kernel_x * stage.step_x;
                // Behind the last value weights are 0, and any pixel will do.
                taps[q] = k < values ? (y * in_width + x) * channels + k % channels : 0;
            }
        });
    });
    using Warp = typename Block::Warp;
    const int area = static_cast<int>(to.area()), unit_rows = kRows * kFragmentRows;
    const int across = (stage.column_tiles + kColumns - 1) / kColumns;
    const int units = (area + unit_rows - 1) / unit_rows * across;
    const std::uint32_t *packed = run.packed + stage.packed;
    const float *bias = run.parameters + stage.bias();
    const int groups = stage.groups, tiles = stage.column_tiles, outputs = stage.out_channels;
    const bool rectify = stage.rectify;
    struct Places {
        int at[kRows][2];
    };
    const SmallDivisor row_of(out_width);
    block.phase([&](auto &warp) {
        for (int unit = warp.index(); unit < units; unit += block.warps()) {
            const int row = unit / across * unit_rows, tile = unit % across * kColumns;
            SumTiles<Warp, kRows, kColumns> sums;
            typename Warp::template PerLane<Places> places;
            warp.lanes([&](int lane) {
                sums.clear(lane);
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int half = 0; half < 2; ++half) {
                        const int pixel = row + m * kFragmentRows + a_row(lane, half);
                        const int there = pixel < area ? pixel : area - 1;
                        const int y = row_of(there);
                        places[lane].at[m][half] = (y * in_width + there - y * out_width) * channels;
                    }
                }
            });
            for (int group = 0; group < groups; ++group) {
                add_group<Type, false>(
                    warp, sums, tile, tiles,
                    [&](auto &here, int m, int p, auto &words) {
                        here.lanes([&](int lane) {
                            const std::int32_t *tap = taps + (group * 4 + lane % 4) * kLaneValues;
                            T3_UNROLL for (int r = 0; r < 4; ++r) {
                                const float *pixel = in + places[lane].at[m][r % 2];
                                float value[kPerWord];
                                T3_UNROLL for (int e = 0; e < kPerWord; ++e)
                                    value[e] = pixel[tap[(2 * p + r / 2) * kPerWord + e]];
                                words[lane].word[r] = Type::word(value);
                            }
                        });
                    },
                    [&](int lane, int column) {
                        return load_quad(packed + ((group * tiles + column) * kWarpLanes + lane) * kLaneWords);
                    });
            }
            warp.lanes([&](int lane) {
                T3_UNROLL for (int m = 0; m < kRows; ++m) {
                    T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                        T3_UNROLL for (int r = 0; r < 4; ++r) {
                            const int pixel = row + m * kFragmentRows + d_row(lane, r);
                            const int c = (tile + n) * kFragmentColumns + d_column(lane, r);
                            if (pixel >= area || c >= outputs) continue;
                            const float value = rectified(rectify, sums.tile[m][n][lane].value[r] + bias[c]);
                            out[pixel * outputs + c] = ready ? Type::prepare(value) : value;
                        }
                    }
                }
            });
        }
    });
}

// What a pooling, or a stage that only passes on, makes of the value at `in` and those of its other taps.
T3_HD float pooled(const Stage &stage, const float *in, int in_row) {
    const bool average = stage.kind == LayerKind::average_pool;
    const int down = stage.step_y * in_row, right = stage.step_x * stage.in_channels;
    float value = average ? 0.0f : *in;
    for (int y = 0; y < stage.kernel_y; ++y) {
        for (int x = 0; x < stage.kernel_x; ++x) {
            const float other = in[y * down + x * right];
            if (average)
                value += other;
            else  // a NaN stays, as in torch
                value = other > value || other != other ? other : value;
        }
    }
    return rectified(stage.rectify, average ? value * (1.0f / static_cast<float>(stage.taps())) : value);
}

// Tile `index` of the feature map: all its stages in shared memory, the last one written to the map.
T3_TYPED_BLOCK_FUNCTION void map_tile(Block &block, const WarpRun &run, std::int64_t index, float *shared) {
    if (run.touched != nullptr && run.touched[index] == 0) return;
    const StageProgram &program = run.program;
    const WindowPosition place = window_position(index, run.tiles_down(), run.tiles_across());
    const std::int64_t top = place.y * run.tile.height, left = place.x * run.tile.width;
    std::int32_t *taps = reinterpret_cast<std::int32_t *>(shared);
    float *in = shared + run.memory.taps, *out = in + run.memory.even;

    // Every phase goes row by row: a warp has every so-many-th row, its lanes the values of a row side by side.
    Extent extent = stage_input(program, 0, run.tile);
    block.phase([&](auto &warp) {
        const float *image = run.images.image(run.first_image + place.image);
        const int width = static_cast<int>(extent.width), height = static_cast<int>(extent.height);
        for (int row = warp.index(); row < height; row += block.warps()) {
            const std::int64_t y = run.first_row + top + row;
            warp.lanes([&](int lane) {
                for (int i = lane; i < width; i += kWarpLanes) {
                    // Outside the image only pixels of the map that do not exist look.
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
        const bool multiplied = program.stages[s + 1].weighted(), ready = multiplied && stage.element_count == 0;
        if (stage.weighted()) {
            convolve_tile<Type>(block, run, stage, extent, in, next, out, taps, ready);
        } else {
            block.phase([&](auto &warp) {
                for (int row = warp.index(); row < height; row += block.warps()) {
                    warp.lanes([&](int lane) {
                        for (int i = lane; i < row_values; i += kWarpLanes) {
                            const float value = pooled(stage, in + row * in_row + i, in_row);
                            out[row * row_values + i] = ready ? Type::prepare(value) : value;
                        }
                    });
                }
            });
        }
        if (stage.element_count > 0) {
            block.phase([&](auto &warp) {
                for (int row = warp.index(); row < height; row += block.warps()) {
                    warp.lanes([&](int lane) {
                        for (int i = lane; i < row_values; i += kWarpLanes) {
                            float &value = out[row * row_values + i];
                            value = apply_elements(run, stage, i % channels, value);
                            if (multiplied) value = Type::prepare(value);
                        }
                    });
                }
            });
        }
        float *const was_in = in;
        in = out;
        out = was_in;
        extent = next;
    }

    const Stage &last = program.stages[program.map_stages - 1];
    const std::int64_t down = run.map.height - top, across = run.map.width - left;
    const int height = static_cast<int>(down < run.tile.height ? down : run.tile.height);
    const int width = static_cast<int>(across < run.tile.width ? across : run.tile.width);
    const int words = program.pixel_words, in_row = static_cast<int>(extent.width) * last.in_channels;
    std::uint32_t *map = run.maps + run.map_word({place.image, top, left});
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
                        value[e] = c < last.out_channels ? Type::prepare(pooled(last, from, in_row)) : 0.0f;
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

// ------------------------------------------------------------------------------------------------- the head

// Where a row of a chunk has one of its eight 16-byte pieces: the same piece of eight rows lies in different banks.
T3_HD int swapped(int row, int piece) { return piece ^ row % kChunkPieces; }

// The head of windows [first, first + Type::rows(warps)) of the run; Type is a Head.
//
// The first linear layer is a product whose rows are gathered: K goes by in chunks of one cache line a row, which
// are copied to shared memory kHeadSlots - 1 chunks ahead. Hidden values then take the slots' place and are the rows
// of the next linear layers, whose weights come from the cache.
T3_TYPED_BLOCK_FUNCTION void answer_windows(Block &block, const WarpRun &run, std::int64_t first,
                                            unsigned char *shared) {
    using Warp = typename Block::Warp;
    using Numbers = typename Type::Numbers;
    constexpr int kRows = Type::kRowTiles, kColumns = Type::kColumnTiles, across = Type::kWarpsAcross;
    constexpr int kPerWord = Numbers::kPerWord;
    const StageProgram &program = run.program;
    const int rows = Type::rows(block.warps());
    const std::int64_t rest = run.window_count - first;
    const int count = static_cast<int>(rest < rows ? rest : rows);

    const Stage &gathered = program.head();
    const int slot = slot_words(rows, gathered.column_tiles), stride = hidden_stride(program, kPerWord);
    const int slots = kHeadSlots * slot, floats = rows * stride;
    std::uint32_t *chunks_at = reinterpret_cast<std::uint32_t *>(shared);
    float *hidden = reinterpret_cast<float *>(shared);
    std::int64_t *begins = reinterpret_cast<std::int64_t *>(chunks_at + (slots > floats ? slots : floats));
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) {
            // Past the end the last window is done again and not kept.
            for (int r = warp.index() * kWarpLanes + lane; r < rows; r += block.lanes())
                begins[r] = run.map_word(run.window(first + (r < count ? r : count - 1)));
        });
    });

    const int tiles = gathered.column_tiles, chunks = gathered.groups / kChunkGroups;
    const int pixel_pieces = program.pixel_words / kLaneWords, pieces = gathered.taps() * pixel_pieces;
    const std::uint32_t *packed = run.packed + gathered.packed;
    const auto copy_chunk = [&](auto &warp, int chunk) {
        if (chunk < chunks) {
            std::uint32_t *to = chunks_at + chunk % kHeadSlots * slot, *weights = to + rows * kChunkWords;
            const int weight_pieces = kChunkGroups * tiles * kWarpLanes;
            const std::uint32_t *from = packed + static_cast<std::int64_t>(chunk) * weight_pieces * kLaneWords;
            warp.lanes([&](int lane) {
                const int at = warp.index() * kWarpLanes + lane, piece = at % kChunkPieces;
                const int q = chunk * kChunkPieces + piece, tap = q / pixel_pieces;
                const std::int64_t y = tap / gathered.kernel_x * gathered.step_y;
                const std::int64_t x = tap % gathered.kernel_x * gathered.step_x;
                const std::int64_t offset =
                    (y * run.map.width + x) * program.pixel_words + q % pixel_pieces * kLaneWords;
                // Behind the last tap zeros: what happens to lie there could be NaN.
                const bool wanted = q < pieces;
                for (int r = at / kChunkPieces; r < rows; r += block.lanes() / kChunkPieces)
                    warp.copy_reused(to + r * kChunkWords + swapped(r, piece) * kLaneWords,
                                     run.maps + begins[r] + (wanted ? offset : 0), wanted);
                for (int i = at; i < weight_pieces; i += block.lanes())
                    warp.copy_once(weights + i * kLaneWords, from + i * kLaneWords);
            });
        }
        warp.commit();
    };

    typename Block::template PerWarp<SumTiles<Warp, kRows, kColumns>> sums(block);
    block.phase([&](auto &warp) {
        warp.lanes([&](int lane) { sums[warp].clear(lane); });
        for (int chunk = 0; chunk < kHeadSlots - 1; ++chunk) copy_chunk(warp, chunk);
        warp.template wait<kHeadSlots - 2>();
    });
    for (int chunk = 0; chunk < chunks; ++chunk) {
        block.phase([&](auto &warp) {
            copy_chunk(warp, chunk + kHeadSlots - 1);
            const std::uint32_t *from = chunks_at + chunk % kHeadSlots * slot, *weights = from + rows * kChunkWords;
            const int row = warp.index() / across * kRows * kFragmentRows, tile = warp.index() % across * kColumns;
            T3_UNROLL for (int g = 0; g < kChunkGroups; ++g) {
                add_group<Numbers, Type::kWarpsAcross != 1>(
                    warp, sums[warp], tile, tiles,
                    [&](auto &here, int m, int p, auto &words) {
                        here.load_rows(words, [&](int lane) {
                            const int r = row + m * kFragmentRows + named_row(lane);
                            return from + r * kChunkWords + swapped(r, g * 4 + p * 2 + named_piece(lane)) * kLaneWords;
                        });
                    },
                    [&](int lane, int column) {
                        return load_quad(weights + ((g * tiles + column) * kWarpLanes + lane) * kLaneWords);
                    });
            }
            warp.template wait<kHeadSlots - 2>();
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
                    add_group<Numbers, false>(
                        warp, sums[warp], tile, stage.column_tiles,
                        [&](auto &here, int m, int p, auto &words) {
                            here.lanes([&](int lane) {
                                T3_UNROLL for (int r = 0; r < 4; ++r) {
                                    const int k = group * kGroupWords + p * kFragmentWords + a_word(lane, r);
                                    const float *value = hidden + (row + m * kFragmentRows + a_row(lane, r)) * stride;
                                    words[lane].word[r] = Numbers::word(value + k * kPerWord);
                                }
                            });
                        },
                        [&](int lane, int column) {
                            return load_quad(run.packed + stage.packed +
                                             ((group * stage.column_tiles + column) * kWarpLanes + lane) * kLaneWords);
                        });
                }
            });
        }
        const float *bias = run.parameters + stage.bias();
        const int width = stage.out_channels, whole = hidden_values(width, kPerWord);
        const int tiles_here = stage.column_tiles;
        const bool rectify = stage.rectify, multiplied = s + 1 < program.count && stage.element_count == 0;
        block.phase([&](auto &warp) {
            const int row = warp.index() / across * kRows * kFragmentRows, tile = warp.index() % across * kColumns;
            warp.lanes([&](int lane) {
                T3_UNROLL for (int n = 0; n < kColumns; ++n) {
                    if (tile + n >= tiles_here) continue;
                    T3_UNROLL for (int m = 0; m < kRows; ++m) {
                        T3_UNROLL for (int r = 0; r < 4; ++r) {
                            const int c = (tile + n) * kFragmentColumns + d_column(lane, r);
                            const float sum = sums[warp].tile[m][n][lane].value[r];
                            const float value = c < width ? rectified(rectify, sum + bias[c]) : 0.0f;
                            hidden[(row + m * kFragmentRows + d_row(lane, r)) * stride + c] =
                                multiplied ? Numbers::prepare(value) : value;
                        }
                    }
                }
                // The next layer reads whole groups.
                const int from = stage.column_tiles * kFragmentColumns, more = whole > from ? whole - from : 0;
                for (int i = warp.index() * kWarpLanes + lane; i < rows * more; i += block.lanes())
                    hidden[i / more * stride + from + i % more] = 0.0f;
            });
        });
        if (stage.element_count > 0) {
            block.phase([&](auto &warp) {
                warp.lanes([&](int lane) {
                    for (int i = warp.index() * kWarpLanes + lane; i < rows * width; i += block.lanes()) {
                        float &value = hidden[i / width * stride + i % width];
                        value = apply_elements(run, stage, i % width, value);
                        if (s + 1 < program.count) value = Numbers::prepare(value);
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
                    normalise_exponentials(hidden + r * stride, classes,
                                           program.normalisation == LayerKind::log_softmax);
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
