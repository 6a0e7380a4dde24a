// Register layout of matrix fragments for tensor cores, and the number formats that tensor cores multiply.
//
// One product is D (16 x 8) += A (16 x K) B (K x 8), as computed by `mma.sync`. K is counted in 32-bit words: one TF32
// value (m16n8k8) or two bfloat16 values (m16n8k16, the first in the lower half). In words both shapes have K = 8 and
// the same layout (PTX ISA, "Matrix fragments for mma.m16n8k8" and "... m16n8k16"). With lane = 4 g + t:
//   A  register 0: row g, word t;  1: row g + 8, word t;  2: row g, word t + 4;  3: row g + 8, word t + 4
//   B  register 0: word t, column g;  1: word t + 4, column g
//   D  register 0: row g, column 2t;  1: row g, column 2t + 1;  2, 3: the same columns of row g + 8
#pragma once

#include <cstdint>
#include <cstring>

#include "core/device_instructions.h"
#include "core/element.h"
#include "core/macros.h"

namespace t3ssfast {

constexpr int kWarpLanes = 32;
constexpr int kFragmentRows = 16, kFragmentColumns = 8, kFragmentWords = 8;

T3_HD int a_row(int lane, int reg) { return lane / 4 + (reg & 1) * 8; }
T3_HD int a_word(int lane, int reg) { return lane % 4 + (reg >> 1) * 4; }
T3_HD int b_word(int lane, int reg) { return lane % 4 + reg * 4; }
T3_HD int b_column(int lane) { return lane / 4; }
T3_HD int d_row(int lane, int reg) { return lane / 4 + (reg >> 1) * 8; }
T3_HD int d_column(int lane, int reg) { return lane % 4 * 2 + (reg & 1); }

// K is processed in groups of 16 words, which are two products. A lane holds four words of each column of B per group;
// they are packed next to each other: word `group_word(lane, i)` is register i % 2 of product i / 2.
constexpr int kGroupWords = 16, kGroupProducts = kGroupWords / kFragmentWords, kQuadWords = 4;
T3_HD int group_word(int lane, int i) { return i / 2 * kFragmentWords + b_word(lane, i % 2); }

// Rows of A are loaded 16 bytes at a time with `ldmatrix`: lane l passes the address of the four words that start at
// word 4 (l / 16) of row l % 16, and receives its own registers.
T3_HD int ldmatrix_row(int lane) { return lane % kFragmentRows; }
T3_HD int ldmatrix_quad(int lane) { return lane / kFragmentRows; }

// --------------------------------------------------------------------------------------------- number formats

T3_HD std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

T3_HD float float_of(std::uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// Rounds to 10 bits of mantissa, to nearest, ties away from zero, like cvt.rna.tf32.f32. NaN stays NaN.
T3_HD std::uint32_t round_to_tf32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return device::cvt_rna_tf32(value);
#else
    const std::uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFFE000u;
    return (bits + 0x1000u) & 0xFFFFE000u;
#endif
}

// Rounds two values to bfloat16, to nearest, ties to even; the first is the lower half. NaN stays NaN.
T3_HD std::uint32_t pack_bfloat16(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return device::cvt_rn_bf16x2(second, first);
#else
    const std::uint32_t low = first != first ? 0x7FC0u : BFloat16::from(first);
    const std::uint32_t high = second != second ? 0x7FC0u : BFloat16::from(second);
    return low | high << 16;
#endif
}

// A format defines the values per word (kPerWord) and the operands into which a word is split (kTerms). `prepare`
// rounds a value once before it is read many times; `word` packs prepared values into a word.

// float32 as three TF32 products: x = big + small + rest with |rest| <= 2^-21 |x|; small * small is omitted (Markidis
// et al. 2018, section 5.1; Ootomo & Yokota 2022, section 3). The split is repeated for every product and therefore
// uses few instructions. big is rounded like cvt.rna.tf32.f32 but without its treatment of NaN, which small preserves.
// Tensor cores ignore the excess bits of small; as its sign is random, their loss causes no bias.
struct SplitTf32 {
    static constexpr int kPerWord = 1, kTerms = 2;
    static constexpr bool kPairs = false;
    T3_HD static float prepare(float value) { return value; }
    T3_HD static std::uint32_t word(const float *values) { return bits_of(values[0]); }
    T3_HD static void terms(std::uint32_t word, std::uint32_t (&term)[kTerms]) {
        term[0] = (word + 0x1000u) & 0xFFFFE000u;
        term[1] = bits_of(float_of(word) - float_of(term[0]));
    }
};

struct Tf32 {
    static constexpr int kPerWord = 1, kTerms = 1;
    static constexpr bool kPairs = false;
    T3_HD static float prepare(float value) { return float_of(round_to_tf32(value)); }
    T3_HD static std::uint32_t word(const float *values) { return bits_of(values[0]); }
    T3_HD static void terms(std::uint32_t word, std::uint32_t (&term)[kTerms]) { term[0] = word; }
};

struct BFloat16Pair {
    static constexpr int kPerWord = 2, kTerms = 1;
    static constexpr bool kPairs = true;
    T3_HD static float prepare(float value) { return value; }
    T3_HD static std::uint32_t word(const float *values) { return pack_bfloat16(values[0], values[1]); }
    T3_HD static void terms(std::uint32_t word, std::uint32_t (&term)[kTerms]) { term[0] = word; }
};

// Registers of one lane: an operand A of one product, an operand B, and accumulators D.
template <int kTerms>
struct OperandA {
    std::uint32_t term[kTerms][4];
};

template <int kTerms>
struct OperandB {
    std::uint32_t term[kTerms][2];
};

struct Accumulators {
    float value[4];
};

// 16 bytes, loaded or stored at once.
struct alignas(16) Quad {
    std::uint32_t word[kQuadWords];
};

template <typename T>
T3_HD Quad load_quad(const T *from) {
    static_assert(sizeof(T) == sizeof(std::uint32_t), "four words");
    return *reinterpret_cast<const Quad *>(from);
}

}  // namespace t3ssfast
