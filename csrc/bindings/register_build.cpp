// build_info: how the extension was built, and which devices and instruction sets are available.
#include <omp.h>

#include <string>

#include <pybind11/pybind11.h>

#include "backend.h"
#include "bindings/register.h"
#include "cpu/simd.h"

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

pybind11::dict build_info() {
    pybind11::dict info;
    info["compiler"] = compiler();
    info["openmp"] = _OPENMP;
    info["simd"] = cpu::simd_name();
    info["simd_level"] = static_cast<int>(cpu::simd_level());
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

void register_build(pybind11::module_ &module) { module.def("build_info", &build_info); }

}  // namespace t3ssfast
