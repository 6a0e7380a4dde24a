// Compiler attributes: host/device functions, inlining, and SIMD instruction sets chosen at run time.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define T3_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define T3_ALWAYS_INLINE inline
#endif

// Before a loop: its iterations may be run in vectors, as none reads what an earlier one wrote.
#if defined(__clang__)
#define T3_INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define T3_INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#else
#define T3_INDEPENDENT_ITERATIONS
#endif

#if defined(__CUDACC__)
#define T3_HD __host__ __device__ __forceinline__
#else
#define T3_HD T3_ALWAYS_INLINE
#endif

// Templates over a Block (core/block.h, core/warp.h), over a Type and a Block, or over the given parameters. They run
// where their block or warp runs: on the host or on the device.
#if defined(__CUDACC__)
#define T3_BLOCK_FUNCTION                                      \
    _Pragma("nv_exec_check_disable") template <typename Block> \
    __host__ __device__
#define T3_TYPED_BLOCK_FUNCTION                                               \
    _Pragma("nv_exec_check_disable") template <typename Type, typename Block> \
    __host__ __device__
#define T3_WARP_FUNCTION(...)                               \
    _Pragma("nv_exec_check_disable") template <__VA_ARGS__> \
    __host__ __device__ __forceinline__
#else
#define T3_BLOCK_FUNCTION template <typename Block>
#define T3_TYPED_BLOCK_FUNCTION template <typename Type, typename Block>
#define T3_WARP_FUNCTION(...) \
    template <__VA_ARGS__>    \
    inline
#endif

// Arrays held in registers must only be indexed by unrolled loops.
#if defined(__CUDA_ARCH__)
#define T3_UNROLL _Pragma("unroll")
#else
#define T3_UNROLL
#endif

// A function marked T3_SIMD_CLONES is compiled for several instruction sets; the loader picks the best one. Functions
// it calls must be inlined (T3_ALWAYS_INLINE), otherwise they use the baseline instruction set. The choice does not
// change results, because the build forbids contraction (-ffp-contract=off). Disabled under AddressSanitizer, whose
// runtime is not initialised when the loader makes the choice.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__CUDACC__) && !defined(__SANITIZE_ADDRESS__)
#define T3_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define T3_SIMD_CLONES
#endif
