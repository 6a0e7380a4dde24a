# Decides whether the CUDA kernels are built, and for which architectures.
include(cmake/find_cuda.cmake)

set(T3SSFAST_HAS_CUDA OFF)
set(T3SSFAST_CUDA_PROBLEM "it was built with T3SSFAST_CUDA=OFF")
if(NOT T3SSFAST_CUDA STREQUAL "OFF")
  t3ssfast_find_cuda("${CMAKE_CURRENT_BINARY_DIR}/try_nvcc")
  if(NOT T3SSFAST_CUDA_PROBLEM)
    # Set before the language is enabled; otherwise CMake silently selects one old architecture.
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      t3ssfast_cuda_architectures(${T3SSFAST_NVCC_VERSION} CMAKE_CUDA_ARCHITECTURES)
    endif()
    set(CMAKE_CUDA_COMPILER "${T3SSFAST_NVCC}")
    enable_language(CUDA)
    set(T3SSFAST_HAS_CUDA ON)
  elseif(T3SSFAST_CUDA STREQUAL "ON")
    message(FATAL_ERROR "T3SSFAST_CUDA=ON, but ${T3SSFAST_CUDA_PROBLEM}: put a newer nvcc on PATH, or set CUDACXX "
                        "to an nvcc and CUDAHOSTCXX to a C++ compiler that it accepts.")
  endif()
endif()
if(T3SSFAST_HAS_CUDA)
  message(STATUS "t3ssfast: CUDA kernels for ${CMAKE_CUDA_ARCHITECTURES}, by nvcc ${T3SSFAST_NVCC_VERSION}")
else()
  message(STATUS "t3ssfast: no CUDA kernels: ${T3SSFAST_CUDA_PROBLEM}")
endif()

function(t3ssfast_add_cuda target)
  if(T3SSFAST_HAS_CUDA)
    target_sources(${target} PRIVATE csrc/cuda/unfold.cu csrc/cuda/window_statistics.cu
                                     csrc/cuda/score_windows/simt.cu csrc/cuda/score_windows/tensor_core.cu
                                     csrc/cuda/first_nonfinite.cu csrc/cuda/probability_levels.cu
                                     csrc/cuda/device.cu)
    set_target_properties(${target} PROPERTIES
      CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
      CUDA_VISIBILITY_PRESET hidden CUDA_SEPARABLE_COMPILATION OFF)
    # CMake would split a list at its semicolons into several definitions, and nvcc splits at commas.
    string(REPLACE ";" "," architectures "${CMAKE_CUDA_ARCHITECTURES}")
    target_compile_definitions(${target} PRIVATE
      T3SSFAST_WITH_CUDA=1 $<$<COMPILE_LANGUAGE:CXX>:T3SSFAST_CUDA_ARCHITECTURES="${architectures}">)
    t3ssfast_cuda_options(${T3SSFAST_NVCC_VERSION} options)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${options}>)
  else()
    target_sources(${target} PRIVATE csrc/cuda/unavailable.cpp)
    set_source_files_properties(csrc/cuda/unavailable.cpp PROPERTIES
      COMPILE_DEFINITIONS "T3SSFAST_CUDA_PROBLEM=\"${T3SSFAST_CUDA_PROBLEM}\"")
  endif()
endfunction()
