// Stands in for csrc/core/device_instructions.h: the same functions for the lanes of tests/cuda_on_host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace t3ssfast::device {

void *dynamic_shared_memory();

template <typename T>
T *shared_memory() {
    return static_cast<T *>(dynamic_shared_memory());
}

void cp_async_ca(void *to, const void *from, bool valid);
void cp_async_cg(void *to, const void *from);
void cp_async_commit_group();
void cp_async_wait(int open_groups);

template <int kOpen>
void cp_async_wait_group() {
    cp_async_wait(kOpen);
}

void ldmatrix_x4(std::uint32_t (&to)[4], const void *row);
void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4]);
void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4]);
std::uint32_t cvt_rna_tf32(float value);
std::uint32_t cvt_rn_bf16x2(float upper, float lower);

}  // namespace t3ssfast::device
