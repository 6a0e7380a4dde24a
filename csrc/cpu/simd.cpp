#include "cpu/simd.h"

#include <cstdlib>
#include <cstring>

namespace t3ssfast::cpu {
namespace {

SimdLevel best_level() {
#if T3_HAS_SIMD_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return SimdLevel::avx512;
    if (__builtin_cpu_supports("x86-64-v3")) return SimdLevel::avx2;
#endif
    return SimdLevel::portable;
}

SimdLevel choose_level() {
    const SimdLevel best = best_level();
    const char *const requested = std::getenv("T3SSFAST_SIMD");
    if (requested == nullptr) return best;
    SimdLevel level = best;
    if (std::strcmp(requested, "portable") == 0) level = SimdLevel::portable;
    if (std::strcmp(requested, "avx2") == 0) level = SimdLevel::avx2;
    return level < best ? level : best;
}

}  // namespace

SimdLevel simd_level() {
    static const SimdLevel level = choose_level();
    return level;
}

const char *simd_name() {
    switch (simd_level()) {
        case SimdLevel::avx512: return "x86-64-v4 (AVX-512)";
        case SimdLevel::avx2: return "x86-64-v3 (AVX2)";
        default: break;
    }
#if defined(__x86_64__)
    return "x86-64 (SSE2)";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "compiler's baseline";
#endif
}

}  // namespace t3ssfast::cpu
