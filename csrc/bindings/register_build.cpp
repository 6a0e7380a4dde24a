// What was built, and what was found on this machine.
#include <omp.h>

#include <string>

#include <pybind11/pybind11.h>

#include "backend.h"
#include "bindings/register.h"
#include "core/macros.h"

#ifndef T3SSFAST_CUDA_ARCHITECTURES
#define T3SSFAST_CUDA_ARCHITECTURES ""
#endif

namespace t3ssfast {
namespace {

std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

// The clone of a T3_SIMD_CLONES function that the loader picked.
std::string simd() {
#if T3_HAS_SIMD_CLONES
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4 (AVX-512)";
    if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3 (AVX2)";
    return "x86-64 (SSE2)";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "compiler's baseline";
#endif
}

pybind11::dict build_info() {
    pybind11::dict info;
    info["compiler"] = compiler();
    info["openmp"] = _OPENMP;
    info["simd"] = simd();
#if defined(T3SSFAST_WITH_CUDA)
    info["cuda"] = true;
#else
    info["cuda"] = false;
#endif
    info["cuda_architectures"] = std::string(T3SSFAST_CUDA_ARCHITECTURES);
    info["cuda_devices"] = cuda::device_count();
    info["cuda_problem"] = cuda::device_problem();
    return info;
}

}  // namespace

void register_build(pybind11::module_ &module) {
    module.def("build_info", &build_info);
    module.def("cuda_device_count", &cuda::device_count);
}

}  // namespace t3ssfast
