// The CUDA algorithms of score_windows on the host, for tests: blocks of lanes (SIMT) and blocks of warps (tensor
// cores).
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "backend.h"
#include "core/block.h"
#include "core/tensor_core_feature_maps.h"
#include "core/tensor_core_fully_connected.h"

namespace t3ssfast::cpu {
namespace {

// Blocks that share a tile, or a stage's weights.
constexpr std::int64_t kParts = 3;

template <typename Shape>
void run_blocks(const TensorCoreRun &run, const WarpEmulation &emulation) {
    using Format = typename Shape::Format;
    HostWarps block(emulation.lanes, emulation.reversed, emulation.late);
    if (block.warps() % Shape::kWarpsAcross != 0 || emulation.lanes != block.lanes())
        throw std::invalid_argument("score_windows: the lanes do not fill whole rows of warps; give a multiple of 64.");
    for (int stage = 0; stage < run.program.count; ++stage)
        for (std::int64_t part = 0; part < kParts; ++part) pack_weights<Format>(block, run, stage, part, kParts);
    if (run.needed_tiles != nullptr)
        for (std::int64_t first = 0; first < run.window_count; first += block.lanes())
            mark_needed_tiles(block, run, first);

    const std::int64_t map_bytes = run.buffers.bytes();
    const int rows = Shape::rows(block.warps());
    const std::int64_t fully_connected_bytes = fully_connected_shared_bytes(run.program, Format::kPerWord, rows);
    std::vector<Quad> shared(std::max(map_bytes, fully_connected_bytes) / sizeof(Quad) + 1);
    // Shared memory starts as NaN, so that a read before a write shows in the scores.
    const auto fill_with_nan = [&] { std::fill(shared.begin(), shared.end(), Quad{{~0u, ~0u, ~0u, ~0u}}); };
    for (std::int64_t tile = 0; tile < run.tile_count(); ++tile) {
        fill_with_nan();
        feature_map_tile<Format>(block, run, tile, reinterpret_cast<float *>(shared.data()));
    }
    for (std::int64_t first = 0; first < run.window_count; first += rows) {
        fill_with_nan();
        fully_connected_block<Shape>(block, run, first, reinterpret_cast<unsigned char *>(shared.data()));
    }
}

template <typename Format>
void run_split(const TensorCoreRun &run, const WarpEmulation &emulation) {
    if (emulation.wide)
        run_blocks<WideBlock<Format>>(run, emulation);
    else
        run_blocks<SquareBlock<Format>>(run, emulation);
}

}  // namespace

void emulate_score_windows_simt(const TileBatch &batch, int lanes, bool reversed) {
    const HostBlock block(lanes, reversed);
    const std::int64_t block_windows = windows_per_block(batch.program), width = fully_connected_width(batch.program);
    for (std::int64_t index = 0; index < batch.program.map_layers; ++index)
        for (std::int64_t slot = 0; slot < batch.tile_count; ++slot)
            for (std::int64_t part = 0; part < kParts; ++part)
                feature_map_layer(block, batch, index, slot, part, kParts);
    std::vector<float> shared(2 * block_windows * width);
    for (std::int64_t first = 0; first < batch.window_count; first += block_windows)
        fully_connected_layers(block, batch, first, block_windows, width, shared.data());
}

void emulate_score_windows_tensor_core(const TensorCoreRun &run, Precision precision, const WarpEmulation &emulation) {
    switch (precision) {
        case Precision::float32: return run_split<SplitTf32>(run, emulation);
        case Precision::tf32: return run_split<Tf32>(run, emulation);
        case Precision::bfloat16: return run_split<BFloat16Pair>(run, emulation);
    }
}

void multiply_fragments(Precision precision, const std::uint32_t *a, const std::uint32_t *b, float *d) {
    std::uint32_t rows[kWarpLanes][4], columns[kWarpLanes][2];
    float sums[kWarpLanes][4];
    std::copy(a, a + kWarpLanes * 4, &rows[0][0]);
    std::copy(b, b + kWarpLanes * 2, &columns[0][0]);
    std::copy(d, d + kWarpLanes * 4, &sums[0][0]);
    if (precision == Precision::bfloat16)
        t3ssfast::multiply_fragments<true>(rows, columns, sums);
    else
        t3ssfast::multiply_fragments<false>(rows, columns, sums);
    std::copy(&sums[0][0], &sums[0][0] + kWarpLanes * 4, d);
}

}  // namespace t3ssfast::cpu
