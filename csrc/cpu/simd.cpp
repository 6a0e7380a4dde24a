// Which instruction set this processor has, of those that kernels with a choice of their own are built for.
#include "backend.h"

namespace t3ssfast::cpu {

Simd best_simd() {
#if defined(__x86_64__)
    static const Simd found = [] {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("x86-64-v4")) return Simd::avx512;
        if (__builtin_cpu_supports("x86-64-v3")) return Simd::avx2;
        return Simd::portable;
    }();
    return found;
#else
    return Simd::portable;
#endif
}

}  // namespace t3ssfast::cpu
