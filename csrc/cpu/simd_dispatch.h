// Includes the kernel header named by T3_SIMD_KERNEL once per instruction set (see cpu/simd.h). No include guard: a
// source file includes it once per kernel, after everything that the kernel needs. T3_AVX2 and T3_AVX512 tell the
// kernel what it may use: in C++ before gcc 13 the compiler's own macros do not follow the pragma.
#define T3_SIMD_NAMESPACE portable
#define T3_AVX2 0
#define T3_AVX512 0
#include T3_SIMD_KERNEL
#undef T3_SIMD_NAMESPACE
#undef T3_AVX2

#if T3_HAS_SIMD_LEVELS
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define T3_SIMD_NAMESPACE avx2
#define T3_AVX2 1
#include T3_SIMD_KERNEL
#undef T3_SIMD_NAMESPACE
#undef T3_AVX512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define T3_SIMD_NAMESPACE avx512
#define T3_AVX512 1
#include T3_SIMD_KERNEL
#undef T3_SIMD_NAMESPACE
#undef T3_AVX2
#pragma GCC pop_options
#endif
#undef T3_AVX512
