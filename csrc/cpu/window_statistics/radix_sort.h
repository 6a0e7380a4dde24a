// Radix sort. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Stable scatter by kBits bits, which start at bit `offset` of the 32 bits above kShift. `bins` holds the number of
// entries per value.
template <int kShift, int kBits>
T3_ALWAYS_INLINE void scatter(const u64 *from, u64 *to, i64 count, int offset, u32 *bins) {
    u32 start = 0;
    for (int b = 0; b < 1 << kBits; ++b) {
        const u32 length = bins[b];
        bins[b] = start;
        start += length;
    }
    for (i64 i = 0; i < count; ++i) {
        to[bins[static_cast<u32>(from[i] >> kShift) >> offset & ((1 << kBits) - 1)]++] = from[i];
    }
}

// Stable sort by the 32 bits above kShift. Digits that are equal in all entries are skipped. Returns the array with the
// sorted entries, which is either of the two.
template <int kShift>
T3_ALWAYS_INLINE u64 *radix_sort(u64 *list, u64 *spare, i64 count) {
    constexpr int kBits = 11, kPasses = 3, kBins = 1 << kBits;
    u32 bins[kPasses][kBins] = {};
    for (i64 i = 0; i < count; ++i) {
        const u32 key = static_cast<u32>(list[i] >> kShift);
        for (int pass = 0; pass < kPasses; ++pass) ++bins[pass][key >> (pass * kBits) & (kBins - 1)];
    }
    const u32 first = static_cast<u32>(list[0] >> kShift);
    for (int pass = 0; pass < kPasses; ++pass) {
        if (bins[pass][first >> (pass * kBits) & (kBins - 1)] == static_cast<u32>(count)) continue;
        scatter<kShift, kBits>(list, spare, count, pass * kBits, bins[pass]);
        u64 *const sorted = spare;
        spare = list;
        list = sorted;
    }
    return list;
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
