// Compiler matters: host/device marks, inlining, and run-time choice of the SIMD instruction set.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define T3_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define T3_ALWAYS_INLINE inline
#endif

#if defined(__CUDACC__)
#define T3_HD __host__ __device__ __forceinline__
#else
#define T3_HD T3_ALWAYS_INLINE
#endif

// A template over a Block (core/block.h, core/warp.h), over a Type and a Block, or over what is named: runs where the
// block or warp it is given runs.
#if defined(__CUDACC__)
#define T3_BLOCK_FUNCTION _Pragma("nv_exec_check_disable") template <typename Block> __host__ __device__
#define T3_TYPED_BLOCK_FUNCTION \
    _Pragma("nv_exec_check_disable") template <typename Type, typename Block> __host__ __device__
#define T3_WARP_FUNCTION(...) _Pragma("nv_exec_check_disable") template <__VA_ARGS__> __host__ __device__ __forceinline__
#else
#define T3_BLOCK_FUNCTION template <typename Block>
#define T3_TYPED_BLOCK_FUNCTION template <typename Type, typename Block>
#define T3_WARP_FUNCTION(...) template <__VA_ARGS__> inline
#endif

// Arrays that stand for registers are indexed by unrolled loops only.
#if defined(__CUDA_ARCH__)
#define T3_UNROLL _Pragma("unroll")
#else
#define T3_UNROLL
#endif

// A function marked T3_SIMD_CLONES is compiled for several instruction sets and the best one is picked when
// the module is loaded. What it calls must be inlined into it (T3_ALWAYS_INLINE), or stays at the baseline.
// Bits do not depend on the choice, as the build forbids contraction (-ffp-contract=off). Left out under
// AddressSanitizer, whose runtime is not up yet when the loader resolves the choice.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__CUDACC__) && !defined(__SANITIZE_ADDRESS__)
#define T3_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define T3_SIMD_CLONES
#endif
