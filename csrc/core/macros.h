// Marks a function for both halves: host and device under nvcc, plain inline elsewhere.
#pragma once

#if defined(__CUDACC__)
#define T3_HD __host__ __device__ __forceinline__
#else
#define T3_HD inline
#endif
