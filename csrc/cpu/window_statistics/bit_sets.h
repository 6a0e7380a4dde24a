// Sets of 64 entries as bits of an integer. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

T3_ALWAYS_INLINE i64 minimum(i64 a, i64 b) { return a < b ? a : b; }
T3_ALWAYS_INLINE i64 maximum(i64 a, i64 b) { return a > b ? a : b; }

// Bit i of the result: byte i, for 64 bytes of 0 or 1.
T3_ALWAYS_INLINE u64 pack_bits(const u8 *bytes) {
    u64 mask = 0;
    for (int i = 0; i < 64; i += 8) {
        u64 word = 0;
        // Packs eight bytes into eight bits, first byte lowest, on any byte order.
        for (int b = 0; b < 8; ++b) word |= static_cast<u64>(bytes[i + b]) << (8 * b);
        mask |= (word * 0x0102040810204080u >> 56) << i;
    }
    return mask;
}

// Bit i of the result: whether first <= values[i] < first + size, for 64 bytes.
T3_ALWAYS_INLINE u64 range_mask(const u8 *values, u8 first, u8 size) {
#if T3_AVX512
    const __m512i above = _mm512_sub_epi8(_mm512_loadu_si512(values), _mm512_set1_epi8(static_cast<char>(first)));
    return _mm512_cmplt_epu8_mask(above, _mm512_set1_epi8(static_cast<char>(size)));
#elif T3_AVX2
    const __m256i start = _mm256_set1_epi8(static_cast<char>(first));
    const __m256i last = _mm256_set1_epi8(static_cast<char>(size - 1));
    const __m256i *const source = reinterpret_cast<const __m256i *>(values);
    const __m256i low = _mm256_subs_epu8(_mm256_sub_epi8(_mm256_loadu_si256(source), start), last);
    const __m256i high = _mm256_subs_epu8(_mm256_sub_epi8(_mm256_loadu_si256(source + 1), start), last);
    const __m256i zero = _mm256_setzero_si256();
    const u32 low_bits = static_cast<u32>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, zero)));
    const u32 high_bits = static_cast<u32>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, zero)));
    return static_cast<u64>(high_bits) << 32 | low_bits;
#elif defined(__SSE2__)
    const __m128i start = _mm_set1_epi8(static_cast<char>(first)), last = _mm_set1_epi8(static_cast<char>(size - 1));
    u64 mask = 0;
    for (int i = 0; i < 64; i += 16) {
        const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i *>(values + i));
        const __m128i beyond = _mm_subs_epu8(_mm_sub_epi8(value, start), last);
        const int bits = _mm_movemask_epi8(_mm_cmpeq_epi8(beyond, _mm_setzero_si128()));
        mask |= static_cast<u64>(static_cast<u32>(bits)) << i;
    }
    return mask;
#else
    u8 inside[64];
    for (int i = 0; i < 64; ++i) inside[i] = static_cast<u8>(values[i] - first) < size;
    return pack_bits(inside);
#endif
}

T3_ALWAYS_INLINE int count_bits(u64 mask) { return __builtin_popcountll(mask); }

// Index of the lowest set bit; for an empty mask, any value up to 64.
T3_ALWAYS_INLINE i64 lowest_bit(u64 mask) {
#if T3_AVX2
    return static_cast<i64>(_tzcnt_u64(mask));
#else
    return __builtin_ctzll(mask | u64{1} << 63);
#endif
}

// The k-th (0-based) set bit alone; 0 if there are fewer.
T3_ALWAYS_INLINE u64 select_bit(u64 mask, i64 k) {
#if T3_AVX2
    return _pdep_u64(u64{1} << k, mask);
#else
    for (; k > 0; --k) mask &= mask - 1;
    return mask & (~mask + 1);
#endif
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
