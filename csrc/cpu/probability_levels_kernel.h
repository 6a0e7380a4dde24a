// Averages pixels of three slices. A kernel of cpu/simd_dispatch.h; results do not depend on the instruction set, as the
// build forbids contraction.

namespace T3_SIMD_NAMESPACE {
namespace {

// Writes the levels of pixels [begin, end); returns whether all averages are finite.
bool write(const LevelsRun &run, i64 begin, i64 end) {
    const float *const below = run.below, *const middle = run.middle, *const above = run.above;
    std::uint8_t *const __restrict out = run.out;
    std::uint32_t nonfinite = 0;
    for (i64 i = begin; i < end; ++i) {
        const float scaled = scaled_average(run, below[i], middle[i], above[i]);
        nonfinite |= is_finite(scaled) ? 0u : 1u;
        out[i] = nearest_level(scaled);
    }
    return nonfinite == 0;
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
