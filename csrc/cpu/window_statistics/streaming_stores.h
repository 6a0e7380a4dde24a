// Non-temporal stores. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Copies a row with non-temporal stores of whole cache lines, which are then not read before they are overwritten.
T3_ALWAYS_INLINE void stream_row(float *to, const float *from, i64 count) {
    constexpr i64 kLine = 64 / sizeof(float);
    const i64 past = static_cast<i64>(reinterpret_cast<std::uintptr_t>(to) % 64 / sizeof(float));
    const i64 head = past == 0 ? 0 : (kLine - past < count ? kLine - past : count);
    i64 i = 0;
    for (; i < head; ++i) to[i] = from[i];
    for (; i + kLine <= count; i += kLine) {
#if T3_AVX512
        _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
#elif defined(__SSE2__)
        for (int k = 0; k < kLine; k += 4) _mm_stream_ps(to + i + k, _mm_loadu_ps(from + i + k));
#else
        std::memcpy(to + i, from + i, 64);
#endif
    }
    for (; i < count; ++i) to[i] = from[i];
}

// Makes streamed data visible to other threads before the task is reported as done.
T3_ALWAYS_INLINE void end_stream() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
