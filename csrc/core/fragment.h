// Which lane of a warp holds which element of a matrix product, and the numbers that tensor cores multiply.
//
// One product is D (16 x 8) += A (16 x K) B (K x 8), as `mma.sync` does it. Along K operands are counted in 32-bit
// words of one TF32 value (m16n8k8) or two bfloat16 (m16n8k16, the earlier value in the lower half); so counted both
// shapes are 8 words deep and their layouts are the same (PTX ISA, "Matrix fragments for mma.m16n8k8" and
// "... m16n8k16"). With lane = 4 g + t:
//   A  register 0: row g, word t;  1: row g + 8, word t;  2: row g, word t + 4;  3: row g + 8, word t + 4
//   B  register 0: word t, column g;  1: word t + 4, column g
//   D  register 0: row g, column 2t;  1: row g, column 2t + 1;  2, 3: the same columns of row g + 8
#pragma once

#include <cstdint>
#include <cstring>

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

// K goes by in groups of 16 words, two products deep; of a column of B a lane has four words of a group, which are packed
// side by side: word `group_word(lane, i)` is register i % 2 of product i / 2.
constexpr int kGroupWords = 16, kGroupProducts = kGroupWords / kFragmentWords, kLaneWords = 4;
T3_HD int group_word(int lane, int i) { return i / 2 * kFragmentWords + b_word(lane, i % 2); }

// A row of A comes 16 bytes at a time, as `ldmatrix` takes it: lane l names the four words that begin at word
// 4 (l / 16) of row l % 16, and gets its own registers.
T3_HD int named_row(int lane) { return lane % kFragmentRows; }
T3_HD int named_piece(int lane) { return lane / kFragmentRows; }

// -------------------------------------------------------------------------------------------- the numbers

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

// To the nearest float with 10 bits of mantissa, ties away from zero, as cvt.rna.tf32.f32 does; NaN stays NaN.
T3_HD std::uint32_t round_to_tf32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#else
    const std::uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFFE000u;
    return (bits + 0x1000u) & 0xFFFFE000u;
#endif
}

// Two values as bfloat16, rounded to nearest, ties to even; the first in the lower half. NaN stays NaN.
T3_HD std::uint32_t pack_bfloat16(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
#else
    const std::uint32_t low = first != first ? 0x7FC0u : BFloat16::from(first);
    const std::uint32_t high = second != second ? 0x7FC0u : BFloat16::from(second);
    return low | high << 16;
#endif
}

// Each kind of numbers: values a word, and terms a word is split into for the products. What many products will read
// is rounded before, once, by `prepare`; `word` makes a word of values so prepared.

// float32 by three TF32 products: x = big + small + rest, |rest| <= 2^-21 |x|; small * small is left out as well
// (Markidis et al. 2018, section 5.1; Ootomo & Yokota 2022, section 3). Split anew for every product, so in as few
// instructions as will do: big is rounded as cvt.rna.tf32.f32 rounds, without its care for NaN, which small keeps;
// the bits that small has too many are not looked at by the tensor cores, and as its sign is any, their loss is no
// drift.
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

// What a lane holds of A (one product), of B, and of D.
template <int kTerms>
struct OperandA {
    std::uint32_t term[kTerms][4];
};

template <int kTerms>
struct OperandB {
    std::uint32_t term[kTerms][2];
};

struct Sums {
    float value[4];
};

// 16 bytes, read or written at once.
struct alignas(16) Quad {
    std::uint32_t word[kLaneWords];
};

template <typename T>
T3_HD Quad load_quad(const T *from) {
    static_assert(sizeof(T) == sizeof(std::uint32_t), "four words");
    return *reinterpret_cast<const Quad *>(from);
}

}  // namespace t3ssfast
