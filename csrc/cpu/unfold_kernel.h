// Copies windows to consecutive memory. A kernel of cpu/simd_dispatch.h; results do not depend on the instruction set,
// as the build forbids contraction.

namespace T3_SIMD_NAMESPACE {
namespace {

// Writes rows of windows one after another through the caches.
struct CachedWriter {
    unsigned char *to;

    T3_ALWAYS_INLINE unsigned char *row() { return to; }
    T3_ALWAYS_INLINE void advance(i64 bytes) { to += bytes; }
    T3_ALWAYS_INLINE void finish() {}
};

// The same with non-temporal stores of whole cache lines: lines are not read before they are written, and the caches
// keep their contents. Faster for outputs larger than the caches.
struct StreamingWriter {
    unsigned char *lines;  // address of stage[0] in the output: the start of a cache line
    unsigned char *stage;  // aligned, kStagingBytes and one row long
    i64 begin, end_;       // used bytes of the stage

    StreamingWriter(void *to, unsigned char *stage_)
        : stage(stage_), begin(static_cast<i64>(reinterpret_cast<std::uintptr_t>(to) % kCacheLine)), end_(begin) {
        lines = static_cast<unsigned char *>(to) - begin;
    }

    T3_ALWAYS_INLINE unsigned char *row() { return stage + end_; }
    T3_ALWAYS_INLINE void advance(i64 bytes) {
        end_ += bytes;
        if (end_ >= kStagingBytes) flush();
    }

    void flush() {
        const i64 whole = end_ / kCacheLine * kCacheLine;
        i64 at = 0;
        if (begin > 0 && whole > 0) {  // a line that belongs to another task up to `begin`
            std::memcpy(lines + begin, stage + begin, kCacheLine - begin);
            begin = 0;
            at = kCacheLine;
        }
#if defined(__SSE2__)
        for (; at < whole; at += sizeof(__m128i))
            _mm_stream_si128(reinterpret_cast<__m128i *>(lines + at),
                             _mm_load_si128(reinterpret_cast<const __m128i *>(stage + at)));
#else
        std::memcpy(lines + at, stage + at, whole - at);
#endif
        std::memmove(stage, stage + whole, end_ - whole);
        lines += whole;
        end_ -= whole;
    }

    void finish() {
        flush();
        std::memcpy(lines + begin, stage + begin, end_ - begin);
#if defined(__SSE2__)
        _mm_sfence();  // makes the lines visible to other threads before the task is reported as done
#endif
    }
};

// Sums of d and d^2 in eight partial sums each: a fixed order for every vector length.
T3_ALWAYS_INLINE Scaling window_scaling(const float *corner, i64 stride, i64 size) {
    alignas(64) double sum[8] = {}, squares[8] = {};
    const double origin = corner[0];
    for (i64 y = 0; y < size; ++y) {
        const float *row = corner + y * stride;
        i64 x = 0;
        for (; x + 8 <= size; x += 8) {
            for (int i = 0; i < 8; ++i) {
                const double d = row[x + i] - origin;
                sum[i] += d;
                squares[i] += d * d;
            }
        }
        for (int i = 0; x < size; ++x, ++i) {
            const double d = row[x] - origin;
            sum[i] += d;
            squares[i] += d * d;
        }
    }
    for (int i = 1; i < 8; ++i) {
        sum[0] += sum[i];
        squares[0] += squares[i];
    }
    return zscore_scaling(origin, sum[0], squares[0], size);
}

template <typename Type, typename Writer>
T3_ALWAYS_INLINE void copy_windows(const Request &request, i64 begin, i64 end, Writer writer) {
    const ImageStack<const float> &images = request.images;
    const i64 size = request.size, stride = images.width;
    const i64 windows_y = valid_windows(images.height, size), windows_x = valid_windows(images.width, size);
    using Word = typename Type::Word;
    for (i64 i = begin; i < end; ++i) {
        const i64 index = request.windows.dense() ? i : request.windows.data[i];
        const WindowPosition at = window_position(index, windows_y, windows_x);
        const float *corner = images.image(at.image) + at.y * stride + at.x;
        if (request.zscore) {
            const Scaling scaling = window_scaling(corner, stride, size);
            for (i64 y = 0; y < size; ++y) {
                Word *target = reinterpret_cast<Word *>(writer.row());
                for (i64 x = 0; x < size; ++x) target[x] = Type::from(scaling(corner[y * stride + x]));
                writer.advance(size * static_cast<i64>(sizeof(Word)));
            }
        } else {
            for (i64 y = 0; y < size; ++y) {
                Word *target = reinterpret_cast<Word *>(writer.row());
                for (i64 x = 0; x < size; ++x) target[x] = Type::from(corner[y * stride + x]);
                writer.advance(size * static_cast<i64>(sizeof(Word)));
            }
        }
    }
    writer.finish();
}

// Writes windows [begin, end) to `out`, the address of the first; with non-temporal stores if there is a stage.
template <typename Type>
T3_ALWAYS_INLINE void write_windows(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    if (stage == nullptr)
        copy_windows<Type>(request, begin, end, CachedWriter{static_cast<unsigned char *>(out)});
    else
        copy_windows<Type>(request, begin, end, StreamingWriter(out, stage));
}

void write(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    switch (request.element) {
        case Element::float32: return write_windows<Float32>(request, begin, end, out, stage);
        case Element::float16: return write_windows<Float16>(request, begin, end, out, stage);
        case Element::bfloat16: return write_windows<BFloat16>(request, begin, end, out, stage);
    }
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
