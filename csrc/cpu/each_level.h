// Includes the kernel header named by T3_KERNEL once for each instruction set (see cpu/simd.h). No include guard: a
// source file includes it once a kernel, after everything that the kernel itself needs. T3_AVX2 and T3_AVX512 say
// what a level may use: the compiler's own macros do not follow the pragma in C++ before gcc 13.
#define T3_LEVEL portable
#define T3_AVX2 0
#define T3_AVX512 0
#include T3_KERNEL
#undef T3_LEVEL
#undef T3_AVX2

#if T3_HAS_SIMD_LEVELS
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define T3_LEVEL avx2
#define T3_AVX2 1
#include T3_KERNEL
#undef T3_LEVEL
#undef T3_AVX512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define T3_LEVEL avx512
#define T3_AVX512 1
#include T3_KERNEL
#undef T3_LEVEL
#undef T3_AVX2
#pragma GCC pop_options
#endif
#undef T3_AVX512
