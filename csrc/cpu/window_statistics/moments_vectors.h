// Vectors of the moments kernel: one lattice cell per lane. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// As many lanes as a register of the instruction set: gcc splits longer vectors through memory.
#if T3_AVX512
constexpr int kLanes = 8;
#elif T3_AVX2
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
static_assert(kLanes <= kCellsPerBatch && kCellsPerBatch % kLanes == 0, "batches are made of whole vectors");

// Explicit alignment: gcc's default depends on the instruction set of the enclosing function.
typedef double Vector __attribute__((vector_size(kLanes * sizeof(double)), aligned(kLanes * sizeof(double))));

typedef std::int64_t Bits __attribute__((vector_size(sizeof(Vector)), aligned(sizeof(Vector))));
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float)), aligned(kLanes * sizeof(float))));
typedef std::int32_t LaneMask __attribute__((vector_size(sizeof(Floats)), aligned(sizeof(Floats))));

// The operations of core/moments_formula.h for vectors.
T3_ALWAYS_INLINE Vector product(Vector a, Vector b) { return a * b; }
T3_ALWAYS_INLINE Vector sum(Vector a, Vector b) { return a + b; }
T3_ALWAYS_INLINE Vector difference(Vector a, Vector b) { return a - b; }
T3_ALWAYS_INLINE Vector positive_part(Vector x) {
    return reinterpret_cast<Vector>(reinterpret_cast<Bits>(x) & (x > 0.0));
}
T3_ALWAYS_INLINE Vector nan_unless_positive(Vector x, Vector value) {
    return x > 0.0 ? value : Vector{} + std::numeric_limits<double>::quiet_NaN();
}
#if T3_AVX512
T3_ALWAYS_INLINE Vector root(Vector x) { return _mm512_sqrt_pd(x); }
#elif T3_AVX2
T3_ALWAYS_INLINE Vector root(Vector x) { return _mm256_sqrt_pd(x); }
#else
T3_ALWAYS_INLINE Vector root(Vector x) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrt(x[lane]);
    return x;
}
#endif
T3_ALWAYS_INLINE Vector reciprocal(Vector x) { return 1.0 / x; }

using Real = Vector;
#include "core/moments_formula.h"

struct VectorSums {
    Vector s1, s2, s3, s4;

    T3_ALWAYS_INLINE void clear() { s1 = s2 = s3 = s4 = Vector{}; }
    T3_ALWAYS_INLINE void add(const Vector &d) {
        const Vector d2 = d * d;
        s1 += d;
        s2 += d2;
        s3 += d2 * d;
        s4 += d2 * d2;
    }
    T3_ALWAYS_INLINE void add(const VectorSums &other) {
        s1 += other.s1;
        s2 += other.s2;
        s3 += other.s3;
        s4 += other.s4;
    }
};

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
