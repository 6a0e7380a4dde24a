// SIMD instruction sets: a kernel is compiled once per instruction set, and one is chosen for the whole process.
//
// cpu/simd_dispatch.h includes a kernel header once per instruction set, in a namespace named after it;
// T3_SIMD_DISPATCH calls the chosen version. A kernel header must define only its own functions, in an unnamed
// namespace, and must not instantiate standard templates that the compiler could emit out of line: the linker might
// keep the copy compiled for the newest processor.
#pragma once

#include "core/macros.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define T3_HAS_SIMD_LEVELS 1
#else
#define T3_HAS_SIMD_LEVELS 0
#endif

namespace t3ssfast::cpu {

enum class SimdLevel : int { portable = 0, avx2 = 1, avx512 = 2 };

// The best instruction set of this processor and this build, or the one named by the environment variable T3SSFAST_SIMD
// (portable, avx2, avx512) if the processor supports it. Decided on the first call. Does not change results.
SimdLevel simd_level();

// Name of the instruction set, for build_info().
const char *simd_name();

}  // namespace t3ssfast::cpu

#if T3_HAS_SIMD_LEVELS
#define T3_SIMD_DISPATCH(function, ...)                                \
    (simd_level() == SimdLevel::avx512 ? avx512::function(__VA_ARGS__) \
     : simd_level() == SimdLevel::avx2 ? avx2::function(__VA_ARGS__)   \
                                       : portable::function(__VA_ARGS__))
#else
#define T3_SIMD_DISPATCH(function, ...) portable::function(__VA_ARGS__)
#endif
