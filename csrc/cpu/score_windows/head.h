// The head: its first layer at single windows, or at nines by minimal filtering, and the layers behind it.
#pragma once

#include <algorithm>
#include <vector>

#include "core/minimal.h"
#include "core/window.h"
#include "cpu/score_windows/maps.h"
#include "cpu/score_windows/dispatch.h"

namespace t3ssfast::cpu {

// Positions whose first hidden layer is held at once, in whole register blocks of every instruction set.
constexpr std::int64_t kGroup = 96;
// Nines done at once: their products stay in a 2 MiB L2 cache, and the weights are read once for all of them.
constexpr std::int64_t kNines = 32;
constexpr std::int64_t kWidest = width_of<Vector16>;
struct Scratch {
    std::vector<float> maps[2];
    std::vector<float> block;   // outputs of one register block of a convolution
    std::vector<float> hidden;  // first hidden layer
    std::vector<float> head[2];
    std::vector<const float *> rows;
    std::vector<std::int64_t> answers;  // rows of the answers of the windows in `hidden`
    // Of nines: the transformed map, a part of the map with zeros around, products, cells needed, places in `hidden`.
    std::vector<float> transformed, patch, products, zeros;
    std::vector<unsigned char> needed;
    std::vector<std::int64_t> hidden_rows;
    Places places;
    std::vector<Position> positions;  // of one leaf
    std::vector<Nine> nines;          // of one patch
};

struct Work {
    LayerProgram program;
    const PreparedProgram *prepared;
    Nines nines;
    const float *image;
    std::int64_t image_width;
    Extent all_windows;
    Scores out;
};

// The last map of a leaf, in front of the head; its first value belongs to window (top, left).
struct LastMap {
    const float *data;
    Extent extent;
    std::int64_t top, left;
};

// How the transformed map of a patch lies in memory: [point][phase y][cell y][cell x][phase x, channel].
struct Transformed {
    std::int64_t cells_y, cells_x, run, plane;

    Transformed(const Nines &nines, std::int64_t channels)
        : cells_y(patch_extent(nines).height / nines.cell_y() + nines.threes_y - 1),
          cells_x(patch_extent(nines).width / nines.cell_x() + nines.threes_x - 1),
          // Whole vectors are written.
          run((nines.step_x * channels + kWidest - 1) / kWidest * kWidest),
          // Not a multiple of 4096 bytes, where the planes' stores would fall on each other in the L1 cache.
          plane(nines.step_y * cells_y * cells_x * run + kWidest) {}

    std::int64_t floats() const { return kMinimalPoints * kMinimalPoints * plane; }
    std::int64_t at(std::int64_t phase_y, std::int64_t cell_y, std::int64_t cell_x) const {
        return ((phase_y * cells_y + cell_y) * cells_x + cell_x) * run;
    }
};

// What follows the head's first layer, for up to kGroup positions.
template <class V, int P>
T3_ALWAYS_INLINE void finish(const Work &work, float *values, std::int64_t stride, const std::int64_t *answers,
                             std::int64_t count, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const LayerProgram &program = work.program;
    const std::int64_t padded = (count + P - 1) / P * P;
    float *next = scratch.head[0].data(), *spare = scratch.head[1].data();
    for (std::int64_t i = program.map_layers + 1; i < program.count; ++i) {
        const Layer &layer = program.layers[i];
        if (layer.kind == LayerKind::linear) {
            const PackedLayer &packed = work.prepared->packed[i];
            const std::int64_t vectors = packed.outputs / W;
            for (std::int64_t v = 0; v < vectors; v += kPanel) {
                for (std::int64_t p = 0; p < padded; p += P) {
                    const float *rows[P];
                    for (int q = 0; q < P; ++q) rows[q] = values + (p + q) * stride;
                    gather_panel<V, P>(std::min<std::int64_t>(kPanel, vectors - v), rows, 1, 0, 1, 0,
                                       layer.in_channels, packed.weights.data() + v * W * layer.fan_in(),
                                       packed.bias.data() + v * W, 0, next + p * packed.outputs + v * W,
                                       packed.outputs);
                }
            }
            stride = packed.outputs;
            values = next;
            std::swap(next, spare);
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            for (std::int64_t p = 0; p < count; ++p)
                normalise_exponentials(values + p * stride, layer.in_channels,
                                       layer.kind == LayerKind::log_softmax);
        } else if (layer.kind == LayerKind::affine) {
            scale_and_shift(layer, program.parameters, values, count, stride);
        } else {
            activate_all(layer, program.parameters, values, padded * stride);
        }
    }
    const std::int64_t classes = program.classes();
    for (std::int64_t p = 0; p < count; ++p)
        for (std::int64_t c = 0; c < classes; ++c)
            work.out.data[answers[p] * work.out.window_stride + c * work.out.class_stride] = values[p * stride + c];
}

// Windows one by one: a matrix product over gathered rows of the last map (no im2col).
template <class V, int P>
T3_ALWAYS_INLINE void answer_positions(const Work &work, const LastMap &map, const Position *positions,
                                       std::int64_t count, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const Layer &layer = work.program.head();
    const PackedLayer &packed = work.prepared->packed[work.program.map_layers];
    const std::int64_t channels = layer.in_channels, row_step = layer.step_y * map.extent.width * channels;
    const std::int64_t row_terms = layer.kernel_x * channels, vectors = packed.outputs / W;
    float *hidden = scratch.hidden.data();
    for (std::int64_t first = 0; first < count; first += kGroup) {
        const std::int64_t here = std::min(kGroup, count - first), padded = (here + P - 1) / P * P;
        for (std::int64_t p = 0; p < padded; ++p) {
            const Position &at = positions[first + std::min(p, here - 1)];
            scratch.rows[p] = map.data + ((at.y - map.top) * map.extent.width + at.x - map.left) * channels;
            scratch.answers[p] = at.row;
        }
        for (std::int64_t v = 0; v < vectors; v += kPanel) {
            const std::int64_t panel = std::min<std::int64_t>(kPanel, vectors - v);
            const float *weights = packed.weights.data() + v * W * layer.fan_in();
            // One row of taps at a time keeps its weights in the L1 cache for all positions.
            for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
                for (std::int64_t p = 0; p < padded; p += P) {
                    const float *rows[P];
                    for (int q = 0; q < P; ++q) rows[q] = scratch.rows[p + q] + ky * row_step;
                    float *sums = hidden + p * packed.outputs + v * W;
                    gather_panel<V, P>(panel, rows, 1, 0, layer.kernel_x, layer.step_x * channels, channels,
                                       weights + ky * row_terms * panel * W,
                                       ky == 0 ? packed.bias.data() + v * W : sums, ky == 0 ? 0 : packed.outputs,
                                       sums, packed.outputs);
                }
            }
        }
        finish<V, P>(work, hidden, packed.outputs, scratch.answers.data(), here, scratch);
    }
}

// 5 x 5 steps of the map, `step` values each, to what the weights of each point are multiplied with.
template <class V>
T3_ALWAYS_INLINE void transform_cell(const float *in, std::int64_t row_step, std::int64_t step, std::int64_t plane,
                                     float *out) {
    constexpr int N = kMinimalPoints;
    for (std::int64_t i = 0; i < step; i += width_of<V>) {
        V d[N * N];
#pragma GCC unroll 5
        for (int y = 0; y < N; ++y) {
#pragma GCC unroll 5
            for (int x = 0; x < N; ++x) load(d[y * N + x], in + y * row_step + x * step + i);
            minimal_inputs(d + y * N, 1);
        }
#pragma GCC unroll 5
        for (int x = 0; x < N; ++x) minimal_inputs(d + x, N);
#pragma GCC unroll 25
        for (int p = 0; p < N * N; ++p) store(out + p * plane + i, d[p]);
    }
}

// The transformed map of the rows of cells marked in scratch.needed; cell (0, 0) begins at window (top, left).
template <class V>
T3_ALWAYS_INLINE void transform_patch(const Work &work, const LastMap &map, std::int64_t top, std::int64_t left,
                                      const Transformed &layout, Scratch &scratch) {
    const Nines &nines = work.nines;
    const std::int64_t channels = work.program.head().in_channels, width = map.extent.width * channels;
    // Rows and columns of the map that a cell's inputs take up.
    const std::int64_t high = kMinimalPoints * nines.step_y, wide = kMinimalPoints * nines.step_x;
    for (std::int64_t cell_y = 0; cell_y < layout.cells_y; ++cell_y) {
        for (std::int64_t cell_x = 0; cell_x < layout.cells_x; ++cell_x) {
            const unsigned char *needed = scratch.needed.data() + (cell_y * layout.cells_x + cell_x) * nines.step_y;
            if (std::find(needed, needed + nines.step_y, 1) == needed + nines.step_y) continue;
            const std::int64_t y = top - map.top + cell_y * nines.cell_y();
            const std::int64_t x = left - map.left + cell_x * nines.cell_x();
            const float *in = map.data + y * width + x * channels;
            std::int64_t pitch = width;
            if (y + high > map.extent.height || x + wide > map.extent.width) {
                // Past the end of the map stand zeros: what is made of them is either thrown away or weighted by 0.
                pitch = wide * channels;
                std::fill(scratch.patch.begin(), scratch.patch.end(), 0.0f);
                const std::int64_t here = std::min(wide, map.extent.width - x);
                for (std::int64_t row = 0; row < std::min(high, map.extent.height - y); ++row)
                    std::copy_n(in + row * width, here * channels, scratch.patch.data() + row * pitch);
                in = scratch.patch.data();
            }
            for (std::int64_t phase = 0; phase < nines.step_y; ++phase)
                if (needed[phase])
                    transform_cell<V>(in + phase * pitch, nines.step_y * pitch, nines.step_x * channels, layout.plane,
                                      scratch.transformed.data() + layout.at(phase, cell_y, cell_x));
        }
    }
}

// The products of one nine in N vectors of outputs, to the first hidden layer of those of its windows that have a
// place there.
template <class V>
T3_ALWAYS_INLINE void hidden_of_nine(const float *products, std::int64_t vectors, const float *bias,
                                     const std::int64_t *hidden_rows, float *hidden, std::int64_t stride) {
    constexpr int N = kMinimalPoints;
    constexpr std::int64_t W = width_of<V>;
    for (std::int64_t v = 0; v < vectors; ++v) {
        V m[N * N], shift;
#pragma GCC unroll 5
        for (int y = 0; y < N; ++y) {
#pragma GCC unroll 5
            for (int x = 0; x < N; ++x) load(m[y * N + x], products + ((y * N + x) * vectors + v) * W);
            minimal_outputs(m + y * N, 1);
        }
        load(shift, bias + v * W);
#pragma GCC unroll 3
        for (int x = 0; x < kMinimalEdge; ++x) {
            minimal_outputs(m + x, N);
#pragma GCC unroll 3
            for (int y = 0; y < kMinimalEdge; ++y) {
                const std::int64_t row = hidden_rows[y * kMinimalEdge + x];
                if (row >= 0) store(hidden + row * stride + v * W, m[y * N + x] + shift);
            }
        }
    }
}

// Up to kNines nines of one patch.
template <class V, int P>
T3_ALWAYS_INLINE void answer_some_nines(const Work &work, const Nine *nines, std::int64_t count, std::int64_t top,
                                        std::int64_t left, const Transformed &layout, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>, kPoints = kMinimalPoints * kMinimalPoints;
    const Nines &grid = work.nines;
    const Layer &layer = work.program.head();
    const PackedLayer &packed = work.prepared->packed[work.program.map_layers];
    const std::int64_t channels = layer.in_channels, vectors = packed.outputs / W;
    const std::int64_t terms = grid.threes_y * grid.threes_x * channels;
    const std::int64_t padded = (count + P - 1) / P * P;
    std::int64_t windows = 0;
    for (std::int64_t n = 0; n < padded; ++n) {
        const Nine &nine = nines[std::min(n, count - 1)];
        const std::int64_t y = nine.y - top, x = nine.x - left;
        scratch.rows[n] = scratch.transformed.data() +
                          layout.at(y % grid.cell_y(), y / grid.cell_y(), x / grid.cell_x()) +
                          x % grid.cell_x() * channels;
        for (int k = 0; k < 9 && n < count; ++k) {
            const std::int64_t row = scratch.places.row_of(nine.y + k / 3 * grid.step_y, nine.x + k % 3 * grid.step_x);
            scratch.hidden_rows[n * 9 + k] = row < 0 ? -1 : windows;
            if (row >= 0) scratch.answers[windows++] = row;
        }
    }
    for (std::int64_t v = 0; v < vectors; v += kPanel) {
        const std::int64_t panel = std::min<std::int64_t>(kPanel, vectors - v), columns = panel * W;
        const float *weights = work.prepared->minimal.data() + v * W * kPoints * terms;
        float *products = scratch.products.data();
        for (std::int64_t point = 0; point < kPoints; ++point) {
            for (std::int64_t n = 0; n < padded; n += P) {
                const float *rows[P];
                for (int q = 0; q < P; ++q) rows[q] = scratch.rows[n + q] + point * layout.plane;
                gather_panel<V, P>(panel, rows, grid.threes_y, layout.cells_x * layout.run, grid.threes_x, layout.run,
                                   channels, weights + point * terms * columns, scratch.zeros.data(), 0,
                                   products + (n * kPoints + point) * columns, kPoints * columns);
            }
        }
        for (std::int64_t n = 0; n < count; ++n)
            hidden_of_nine<V>(products + n * kPoints * columns, panel, packed.bias.data() + v * W,
                              scratch.hidden_rows.data() + n * 9, scratch.hidden.data() + v * W, packed.outputs);
    }
    for (std::int64_t first = 0; first < windows; first += kGroup)
        finish<V, P>(work, scratch.hidden.data() + first * packed.outputs, packed.outputs,
                     scratch.answers.data() + first, std::min(kGroup, windows - first), scratch);
}

// The nines of one patch, whose first cell begins at window (top, left).
template <class V, int P>
T3_ALWAYS_INLINE void answer_patch(const Work &work, const LastMap &map, const Nine *nines, std::int64_t count,
                                   std::int64_t top, std::int64_t left, Scratch &scratch) {
    const Nines &grid = work.nines;
    const Transformed layout(grid, work.program.head().in_channels);
    std::fill(scratch.needed.begin(), scratch.needed.end(), 0);
    for (std::int64_t n = 0; n < count; ++n) {
        const std::int64_t cell_y = (nines[n].y - top) / grid.cell_y(), cell_x = (nines[n].x - left) / grid.cell_x();
        const std::int64_t phase = (nines[n].y - top) % grid.cell_y();
        for (std::int64_t y = 0; y < grid.threes_y; ++y)
            for (std::int64_t x = 0; x < grid.threes_x; ++x)
                scratch.needed[((cell_y + y) * layout.cells_x + cell_x + x) * grid.step_y + phase] = 1;
    }
    transform_patch<V>(work, map, top, left, layout, scratch);
    for (std::int64_t first = 0; first < count; first += kNines)
        answer_some_nines<V, P>(work, nines + first, std::min(kNines, count - first), top, left, layout, scratch);
}

}  // namespace t3ssfast::cpu
