// The tensor-core schedule of score_windows, run on the host by emulated warps: for tests.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "backend.h"
#include "core/score_windows_tensor_core.h"

namespace t3ssfast::cpu {
namespace {

template <typename HeadKind>
void run_blocks(const WarpRun &run, const WarpChoice &choice) {
    using Numbers = typename HeadKind::Numbers;
    HostWarps block(choice.lanes, choice.reversed, choice.late);
    if (block.warps() % HeadKind::kWarpsAcross != 0 || choice.lanes != block.lanes())
        throw std::invalid_argument("score_windows: the warps do not fill the head's rows.");
    constexpr std::int64_t kParts = 3;
    for (int stage = 0; stage < run.program.count; ++stage)
        for (std::int64_t part = 0; part < kParts; ++part) pack_weights<Numbers>(block, run, stage, part, kParts);
    if (run.touched != nullptr)
        for (std::int64_t first = 0; first < run.window_count; first += block.lanes()) mark_tiles(block, run, first);

    // What shared memory held before is no number.
    const std::int64_t map_bytes = run.memory.bytes();
    const int rows = HeadKind::rows(block.warps());
    const std::int64_t head_bytes = head_shared_bytes(run.program, Numbers::kPerWord, rows);
    std::vector<Quad> shared(std::max(map_bytes, head_bytes) / sizeof(Quad) + 1);
    const auto forget = [&] { std::fill(shared.begin(), shared.end(), Quad{{~0u, ~0u, ~0u, ~0u}}); };
    for (std::int64_t tile = 0; tile < run.tile_count(); ++tile) {
        forget();
        map_tile<Numbers>(block, run, tile, reinterpret_cast<float *>(shared.data()));
    }
    for (std::int64_t first = 0; first < run.window_count; first += rows) {
        forget();
        answer_windows<HeadKind>(block, run, first, reinterpret_cast<unsigned char *>(shared.data()));
    }
}

template <typename Numbers>
void run_shape(const WarpRun &run, const WarpChoice &choice) {
    if (choice.wide)
        run_blocks<WideHead<Numbers>>(run, choice);
    else
        run_blocks<SquareHead<Numbers>>(run, choice);
}

}  // namespace

void score_windows_warps(const WarpRun &run, Precision precision, const WarpChoice &choice) {
    switch (precision) {
        case Precision::float32: return run_shape<SplitTf32>(run, choice);
        case Precision::tf32: return run_shape<Tf32>(run, choice);
        case Precision::bfloat16: return run_shape<BFloat16Pair>(run, choice);
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
