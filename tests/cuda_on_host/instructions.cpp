// The instructions of tensor cores and conversions, written from the PTX ISA: "Matrix fragments for mma.m16n8k8" and
// "... m16n8k16", ldmatrix, cvt.
#include "core/device_instructions.h"

#include <cstring>

#include "runtime.h"

namespace cuda_on_host {
namespace {

float as_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

std::uint32_t as_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

// Matrix i has its rows at the addresses of lanes 8 i to 8 i + 7; lane l receives word l % 4 of row l / 4 of each.
void ldmatrix(const WarpOperands (&lanes)[32]) {
    std::uint32_t result[32][4];
    for (int lane = 0; lane < 32; ++lane) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            const char *row = static_cast<const char *>(lanes[8 * matrix + lane / 4].a);
            std::memcpy(&result[lane][matrix], row + 4 * (lane % 4), 4);
        }
    }
    for (int lane = 0; lane < 32; ++lane) std::memcpy(lanes[lane].to, result[lane], sizeof(result[lane]));
}

// a0 .. a7 of the ISA are the values of the registers of A in order, b0 .. b3 those of B.
template <int kDepth>
void mma(const WarpOperands (&lanes)[32]) {
    constexpr bool kPairs = kDepth == 16;
    constexpr int kPerRegister = kPairs ? 2 : 1;
    const auto value = [](const void *registers, int i) {
        const std::uint32_t *words = static_cast<const std::uint32_t *>(registers);
        if (!kPairs) return as_float(words[i] & 0xFFFFE000u);  // the last 13 bits are ignored
        return as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000u);
    };
    float a[16][kDepth], b[kDepth][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / 4, thread = lane % 4;
        for (int i = 0; i < 4 * kPerRegister; ++i) {
            int row, column;
            if (kPairs) {
                row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
                column = thread * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            } else {
                row = i == 0 || i == 2 ? group : group + 8;
                column = i < 2 ? thread : thread + 4;
            }
            a[row][column] = value(lanes[lane].a, i);
        }
        for (int i = 0; i < 2 * kPerRegister; ++i) {
            const int row = kPairs ? thread * 2 + (i & 1) + (i >= 2 ? 8 : 0) : i == 0 ? thread : thread + 4;
            b[row][group] = value(lanes[lane].b, i);
        }
    }
    float d[32][4];
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const int row = i < 2 ? lane / 4 : lane / 4 + 8, column = lane % 4 * 2 + (i & 1);
            double sum = static_cast<const float *>(lanes[lane].c)[i];
            for (int k = 0; k < kDepth; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
            d[lane][i] = static_cast<float>(sum);
        }
    }
    for (int lane = 0; lane < 32; ++lane) std::memcpy(lanes[lane].to, d[lane], sizeof(d[lane]));
    ++counts().products;
}

}  // namespace

void perform(WarpInstruction instruction, const WarpOperands (&lanes)[32]) {
    switch (instruction) {
        case WarpInstruction::ldmatrix: return ldmatrix(lanes);
        case WarpInstruction::mma_tf32: return mma<8>(lanes);
        case WarpInstruction::mma_bf16: return mma<16>(lanes);
        case WarpInstruction::none: break;
    }
}

}  // namespace cuda_on_host

double __dmul_rn(double a, double b) {
    ++cuda_on_host::counts().double_operations;
    return a * b;
}

double __dadd_rn(double a, double b) {
    ++cuda_on_host::counts().double_operations;
    return a + b;
}

double __dsub_rn(double a, double b) {
    ++cuda_on_host::counts().double_operations;
    return a - b;
}

namespace t3ssfast::device {

using namespace cuda_on_host;

void ldmatrix_x4(std::uint32_t (&to)[4], const void *row) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) report("misaligned ldmatrix");
    if (!inside_shared(row, 16)) return report("ldmatrix outside of shared memory");
    touch(row, 16, false);
    warp_instruction(WarpInstruction::ldmatrix, {to, row, nullptr, nullptr});
}

void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4]) {
    warp_instruction(WarpInstruction::mma_tf32, {d, a, b, c});
}

void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4]) {
    warp_instruction(WarpInstruction::mma_bf16, {d, a, b, c});
}

std::uint32_t cvt_rna_tf32(float value) {
    const std::uint32_t bits = as_bits(value);
    if (value != value) return 0x7FFFFFFFu;
    // Half a unit is added to the magnitude, which rounds ties away from zero.
    return (bits + 0x1000u) & ~0x1FFFu;
}

std::uint32_t cvt_rn_bf16x2(float upper, float lower) {
    const auto round = [](float value) -> std::uint32_t {
        if (value != value) return 0x7FFFu;
        const std::uint32_t bits = as_bits(value), rest = bits & 0xFFFFu, kept = bits >> 16;
        return rest > 0x8000u || (rest == 0x8000u && (kept & 1u) != 0) ? kept + 1 : kept;
    };
    return round(upper) << 16 | round(lower);
}

}  // namespace t3ssfast::device
