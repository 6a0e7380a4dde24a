# Decides whether the CUDA kernels are built, and for which architectures.
include(CheckLanguage)

set(T3SSFAST_HAS_CUDA OFF)
if(NOT T3SSFAST_CUDA STREQUAL "OFF")
  # Set before the language is enabled; otherwise CMake silently selects one old architecture.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90-real;100-real;120")
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(T3SSFAST_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
    if(T3SSFAST_NVCC)
      set(CMAKE_CUDA_COMPILER "${T3SSFAST_NVCC}")
    endif()
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(T3SSFAST_HAS_CUDA ON)
  elseif(T3SSFAST_CUDA STREQUAL "ON")
    message(FATAL_ERROR "T3SSFAST_CUDA=ON, but no CUDA compiler was found: put nvcc on PATH or set CUDACXX.")
  endif()
endif()
message(STATUS "t3ssfast: CUDA kernels ${T3SSFAST_HAS_CUDA}")

function(t3ssfast_add_cuda target)
  if(T3SSFAST_HAS_CUDA)
    target_sources(${target} PRIVATE csrc/cuda/unfold.cu csrc/cuda/window_statistics.cu
                                     csrc/cuda/score_windows/simt.cu csrc/cuda/score_windows/tensor_core.cu
                                     csrc/cuda/first_nonfinite.cu csrc/cuda/device.cu)
    set_target_properties(${target} PROPERTIES
      CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
      CUDA_VISIBILITY_PRESET hidden CUDA_SEPARABLE_COMPILATION OFF)
    # CMake would split a list at its semicolons into several definitions, and nvcc splits at commas.
    string(REPLACE ";" "," architectures "${CMAKE_CUDA_ARCHITECTURES}")
    target_compile_definitions(${target} PRIVATE
      T3SSFAST_WITH_CUDA=1 $<$<COMPILE_LANGUAGE:CXX>:T3SSFAST_CUDA_ARCHITECTURES="${architectures}">)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:-O3 --expt-relaxed-constexpr -lineinfo --compress-mode=size -Xcompiler=-Wall>)
  else()
    target_sources(${target} PRIVATE csrc/cuda/unavailable.cpp)
  endif()
endfunction()
