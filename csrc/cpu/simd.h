// Instruction sets: a kernel is compiled once for each level, and one level is chosen for the whole process.
//
// A kernel header is included by `cpu/each_level.h` once a level, inside a namespace of the level's name, and called
// through T3_ON_LEVEL. It must define functions of its own only (in an unnamed namespace) and instantiate no standard
// template that could be emitted out of line: a linker would be free to keep the copy that needs the newest processor.
#pragma once

#include "core/macros.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define T3_HAS_SIMD_LEVELS 1
#else
#define T3_HAS_SIMD_LEVELS 0
#endif

namespace t3ssfast::cpu {

enum class SimdLevel : int { portable = 0, avx2 = 1, avx512 = 2 };

// The best level of this processor and this build, or the one that the environment variable T3SSFAST_SIMD names
// (portable, avx2, avx512) where the processor has it; decided on the first call. Bits do not depend on it.
SimdLevel simd_level();

// The level in words, for build_info().
const char *simd_name();

}  // namespace t3ssfast::cpu

#if T3_HAS_SIMD_LEVELS
#define T3_ON_LEVEL(function, ...)                                         \
    (simd_level() == SimdLevel::avx512   ? avx512::function(__VA_ARGS__)   \
     : simd_level() == SimdLevel::avx2   ? avx2::function(__VA_ARGS__)     \
                                         : portable::function(__VA_ARGS__))
#else
#define T3_ON_LEVEL(function, ...) portable::function(__VA_ARGS__)
#endif
