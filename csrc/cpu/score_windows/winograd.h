// The Winograd path: the first fully connected layer of 3 x 3 windows at once.
#pragma once

#include <algorithm>

#include "core/winograd.h"
#include "cpu/score_windows/fully_connected.h"

namespace t3ssfast::cpu {

// Winograd blocks computed at once: their products fit a 2 MiB L2 cache, and the weights are read once for all of them.
constexpr std::int64_t kWinogradBatch = 32;

// Memory layout of a patch's transformed map: [point][phase y][cell y][cell x][phase x, channel].
struct TransformedLayout {
    std::int64_t cells_y, cells_x, run, plane;

    TransformedLayout(const WinogradLayout &winograd, std::int64_t channels)
        : cells_y(patch_extent(winograd).height / winograd.cell_y() + winograd.filter_blocks_y - 1),
          cells_x(patch_extent(winograd).width / winograd.cell_x() + winograd.filter_blocks_x - 1),
          // Rows are written as whole vectors.
          run((winograd.step_x * channels + kMaxVectorWidth - 1) / kMaxVectorWidth * kMaxVectorWidth),
          // Not a multiple of 4096 bytes: stores to the planes would otherwise evict each other from the L1 cache.
          plane(winograd.step_y * cells_y * cells_x * run + kMaxVectorWidth) {}

    std::int64_t floats() const { return kWinogradPoints * kWinogradPoints * plane; }
    std::int64_t at(std::int64_t phase_y, std::int64_t cell_y, std::int64_t cell_x) const {
        return ((phase_y * cells_y + cell_y) * cells_x + cell_x) * run;
    }
};

// Transforms 5 x 5 steps of the map, `step` values each, for all points.
template <class V>
T3_ALWAYS_INLINE void transform_cell(const float *in, std::int64_t row_step, std::int64_t step, std::int64_t plane,
                                     float *out) {
    constexpr int N = kWinogradPoints;
    for (std::int64_t i = 0; i < step; i += width_of<V>) {
        V d[N * N];
#pragma GCC unroll 5
        for (int y = 0; y < N; ++y) {
#pragma GCC unroll 5
            for (int x = 0; x < N; ++x) load(d[y * N + x], in + y * row_step + x * step + i);
            winograd_transform_inputs(d + y * N, 1);
        }
#pragma GCC unroll 5
        for (int x = 0; x < N; ++x) winograd_transform_inputs(d + x, N);
#pragma GCC unroll 25
        for (int p = 0; p < N * N; ++p) store(out + p * plane + i, d[p]);
    }
}

// Transforms the map for the rows of cells marked in scratch.needed; cell (0, 0) starts at window (top, left).
template <class V>
T3_ALWAYS_INLINE void transform_patch(const Context &context, const FeatureMap &map, std::int64_t top,
                                      std::int64_t left, const TransformedLayout &layout, Scratch &scratch) {
    const WinogradLayout &winograd = context.winograd;
    const std::int64_t channels = context.program.first_fully_connected().in_channels,
                       width = map.extent.width * channels;
    // Rows and columns of the map that the inputs of a cell take up.
    const std::int64_t high = kWinogradPoints * winograd.step_y, wide = kWinogradPoints * winograd.step_x;
    for (std::int64_t cell_y = 0; cell_y < layout.cells_y; ++cell_y) {
        for (std::int64_t cell_x = 0; cell_x < layout.cells_x; ++cell_x) {
            const unsigned char *needed = scratch.needed.data() + (cell_y * layout.cells_x + cell_x) * winograd.step_y;
            if (std::find(needed, needed + winograd.step_y, 1) == needed + winograd.step_y) continue;
            const std::int64_t y = top - map.top + cell_y * winograd.cell_y();
            const std::int64_t x = left - map.left + cell_x * winograd.cell_x();
            const float *in = map.data + y * width + x * channels;
            std::int64_t pitch = width;
            if (y + high > map.extent.height || x + wide > map.extent.width) {
                // Zeros past the end of the map: the results are discarded or multiplied by zero weights.
                pitch = wide * channels;
                std::fill(scratch.patch.begin(), scratch.patch.end(), 0.0f);
                const std::int64_t here = std::min(wide, map.extent.width - x);
                for (std::int64_t row = 0; row < std::min(high, map.extent.height - y); ++row)
                    std::copy_n(in + row * width, here * channels, scratch.patch.data() + row * pitch);
                in = scratch.patch.data();
            }
            for (std::int64_t phase = 0; phase < winograd.step_y; ++phase)
                if (needed[phase])
                    transform_cell<V>(in + phase * pitch, winograd.step_y * pitch, winograd.step_x * channels,
                                      layout.plane, scratch.transformed.data() + layout.at(phase, cell_y, cell_x));
        }
    }
}

// Transforms the products of one block, in `vectors` vectors of outputs, into the first hidden layer of its requested
// windows.
template <class V>
T3_ALWAYS_INLINE void transform_block_outputs(const float *products, std::int64_t vectors, const float *bias,
                                              const std::int64_t *hidden_rows, float *hidden, std::int64_t stride) {
    constexpr int N = kWinogradPoints;
    constexpr std::int64_t W = width_of<V>;
    for (std::int64_t v = 0; v < vectors; ++v) {
        V m[N * N], shift;
#pragma GCC unroll 5
        for (int y = 0; y < N; ++y) {
#pragma GCC unroll 5
            for (int x = 0; x < N; ++x) load(m[y * N + x], products + ((y * N + x) * vectors + v) * W);
            winograd_transform_outputs(m + y * N, 1);
        }
        load(shift, bias + v * W);
#pragma GCC unroll 3
        for (int x = 0; x < kWinogradEdge; ++x) {
            winograd_transform_outputs(m + x, N);
#pragma GCC unroll 3
            for (int y = 0; y < kWinogradEdge; ++y) {
                const std::int64_t row = hidden_rows[y * kWinogradEdge + x];
                if (row >= 0) store(hidden + row * stride + v * W, m[y * N + x] + shift);
            }
        }
    }
}

// Scores up to kWinogradBatch blocks of one patch.
template <class V, int P>
T3_ALWAYS_INLINE void score_winograd_blocks(const Context &context, const WinogradBlock *blocks, std::int64_t count,
                                            std::int64_t top, std::int64_t left, const TransformedLayout &layout,
                                            Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>, kPoints = kWinogradPoints * kWinogradPoints;
    const WinogradLayout &winograd = context.winograd;
    const Layer &layer = context.program.first_fully_connected();
    const PackedLayer &packed = context.prepared->packed[context.program.map_layers];
    const std::int64_t channels = layer.in_channels, vectors = packed.outputs / W;
    const std::int64_t terms = winograd.filter_blocks_y * winograd.filter_blocks_x * channels;
    const std::int64_t padded = (count + P - 1) / P * P;
    std::int64_t windows = 0;
    for (std::int64_t n = 0; n < padded; ++n) {
        const WinogradBlock &block = blocks[std::min(n, count - 1)];
        const std::int64_t y = block.y - top, x = block.x - left;
        scratch.rows[n] = scratch.transformed.data() +
                          layout.at(y % winograd.cell_y(), y / winograd.cell_y(), x / winograd.cell_x()) +
                          x % winograd.cell_x() * channels;
        for (int k = 0; k < 9 && n < count; ++k) {
            const std::int64_t row =
                scratch.dispatch.output_row(block.y + k / 3 * winograd.step_y, block.x + k % 3 * winograd.step_x);
            scratch.hidden_rows[n * 9 + k] = row < 0 ? -1 : windows;
            if (row >= 0) scratch.output_rows[windows++] = row;
        }
    }
    for (std::int64_t v = 0; v < vectors; v += kPanelVectors) {
        const std::int64_t panel = std::min<std::int64_t>(kPanelVectors, vectors - v), columns = panel * W;
        const float *weights = context.prepared->winograd_weights.data() + v * W * kPoints * terms;
        float *products = scratch.products.data();
        for (std::int64_t point = 0; point < kPoints; ++point) {
            for (std::int64_t n = 0; n < padded; n += P) {
                const float *rows[P];
                for (int q = 0; q < P; ++q) rows[q] = scratch.rows[n + q] + point * layout.plane;
                gemm_panel<V, P>(panel, rows, winograd.filter_blocks_y, layout.cells_x * layout.run,
                                 winograd.filter_blocks_x, layout.run, channels, weights + point * terms * columns,
                                 scratch.zeros.data(), 0, products + (n * kPoints + point) * columns,
                                 kPoints * columns);
            }
        }
        for (std::int64_t n = 0; n < count; ++n)
            transform_block_outputs<V>(products + n * kPoints * columns, panel, packed.bias.data() + v * W,
                                       scratch.hidden_rows.data() + n * 9, scratch.hidden.data() + v * W,
                                       packed.outputs);
    }
    for (std::int64_t first = 0; first < windows; first += kDirectBatch)
        apply_remaining_layers<V, P>(context, scratch.hidden.data() + first * packed.outputs, packed.outputs,
                                     scratch.output_rows.data() + first, std::min(kDirectBatch, windows - first),
                                     scratch);
}

// Scores the blocks of one patch, whose first cell starts at window (top, left).
template <class V, int P>
T3_ALWAYS_INLINE void score_winograd_patch(const Context &context, const FeatureMap &map, const WinogradBlock *blocks,
                                           std::int64_t count, std::int64_t top, std::int64_t left, Scratch &scratch) {
    const WinogradLayout &winograd = context.winograd;
    const TransformedLayout layout(winograd, context.program.first_fully_connected().in_channels);
    std::fill(scratch.needed.begin(), scratch.needed.end(), 0);
    for (std::int64_t n = 0; n < count; ++n) {
        const std::int64_t cell_y = (blocks[n].y - top) / winograd.cell_y(),
                           cell_x = (blocks[n].x - left) / winograd.cell_x();
        const std::int64_t phase = (blocks[n].y - top) % winograd.cell_y();
        for (std::int64_t y = 0; y < winograd.filter_blocks_y; ++y)
            for (std::int64_t x = 0; x < winograd.filter_blocks_x; ++x)
                scratch.needed[((cell_y + y) * layout.cells_x + cell_x + x) * winograd.step_y + phase] = 1;
    }
    transform_patch<V>(context, map, top, left, layout, scratch);
    for (std::int64_t first = 0; first < count; first += kWinogradBatch)
        score_winograd_blocks<V, P>(context, blocks + first, std::min(kWinogradBatch, count - first), top, left, layout,
                                    scratch);
}

}  // namespace t3ssfast::cpu
