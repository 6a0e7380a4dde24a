// Distances to a mask along each axis. A kernel of cpu/simd_dispatch.h; all numbers are integers, so that results do
// not depend on the instruction set.

namespace T3_SIMD_NAMESPACE {
namespace {

// Lowers `nearest`, if given, to the distance of each pixel of a row from the mask along z. `distance` is that in the
// slice before, in the direction of the sweep, and becomes that in this slice.
template <typename Step>
void sweep_row(const std::uint8_t *__restrict mask, i64 width, Step far, Step *__restrict distance,
               Step *__restrict nearest) {
    for (i64 x = 0; x < width; ++x) {
        const Step next = distance[x] < far ? static_cast<Step>(distance[x] + 1) : far;
        distance[x] = mask[x] != 0 ? static_cast<Step>(0) : next;
    }
    if (nearest == nullptr) return;
    for (i64 x = 0; x < width; ++x) nearest[x] = distance[x] < nearest[x] ? distance[x] : nearest[x];
}

// Lowers squared distances by those of another row, a distance `step` away, of `nearest` along z.
template <typename Step, typename Square>
void lower_by_row(const Step *__restrict nearest, i64 width, Square step, Square *__restrict squared) {
    const Square added = static_cast<Square>(step * step);
    for (i64 x = 0; x < width; ++x) {
        const Square along_z = nearest[x];
        const Square here = static_cast<Square>(along_z * along_z + added);
        squared[x] = here < squared[x] ? here : squared[x];
    }
}

// Lowers `least` by the squared distances `squared` of pixels a distance `step` away along the row.
template <typename Square>
void lower_by_pixels(const Square *__restrict squared, i64 width, Square step, Square *__restrict least) {
    const Square added = static_cast<Square>(step * step);
    for (i64 x = 0; x < width; ++x) {
        const Square here = static_cast<Square>(squared[x] + added);
        least[x] = here < least[x] ? here : least[x];
    }
}

// Whether each squared distance is at most `limit`.
template <typename Square>
void within_limit(const Square *__restrict squared, i64 width, Square limit, std::uint8_t *__restrict out) {
    for (i64 x = 0; x < width; ++x) out[x] = squared[x] <= limit ? 1 : 0;
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
