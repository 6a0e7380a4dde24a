// Windows side by side; a kernel of cpu/each_level.h. Bits do not depend on the level: the build forbids contraction.

namespace T3_LEVEL {
namespace {

// Where rows of windows are written, one after the other: straight to memory.
struct Straight {
    unsigned char *to;

    T3_ALWAYS_INLINE unsigned char *row() { return to; }
    T3_ALWAYS_INLINE void wrote(i64 bytes) { to += bytes; }
    T3_ALWAYS_INLINE void end() {}
};

// The same, but whole cache lines at a time and past the caches: a line is then not read before it is written, and
// what the caches hold stays there. Worth it for outputs larger than they are.
struct Streamed {
    unsigned char *lines;  // in memory, what stage[0] belongs to: the start of a line
    unsigned char *stage;  // aligned, kStage and a row long
    i64 begin, end_;       // bytes of the stage that hold something

    Streamed(void *to, unsigned char *stage_)
        : stage(stage_), begin(static_cast<i64>(reinterpret_cast<std::uintptr_t>(to) % kLine)), end_(begin) {
        lines = static_cast<unsigned char *>(to) - begin;
    }

    T3_ALWAYS_INLINE unsigned char *row() { return stage + end_; }
    T3_ALWAYS_INLINE void wrote(i64 bytes) {
        end_ += bytes;
        if (end_ >= kStage) flush();
    }

    void flush() {
        const i64 whole = end_ / kLine * kLine;
        i64 at = 0;
        if (begin > 0 && whole > 0) {  // the line that something else begins
            std::memcpy(lines + begin, stage + begin, kLine - begin);
            begin = 0;
            at = kLine;
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

    void end() {
        flush();
        std::memcpy(lines + begin, stage + begin, end_ - begin);
#if defined(__SSE2__)
        _mm_sfence();  // other threads see the lines before they hear that the task is done
#endif
    }
};

// Sums of d and d^2 in eight partial sums each: a fixed order, whatever the vector length.
T3_ALWAYS_INLINE Scaling zscore_of(const float *corner, i64 stride, i64 size) {
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
            const Scaling scaling = zscore_of(corner, stride, size);
            for (i64 y = 0; y < size; ++y) {
                Word *target = reinterpret_cast<Word *>(writer.row());
                for (i64 x = 0; x < size; ++x) target[x] = Type::from(scaling(corner[y * stride + x]));
                writer.wrote(size * static_cast<i64>(sizeof(Word)));
            }
        } else {
            for (i64 y = 0; y < size; ++y) {
                Word *target = reinterpret_cast<Word *>(writer.row());
                for (i64 x = 0; x < size; ++x) target[x] = Type::from(corner[y * stride + x]);
                writer.wrote(size * static_cast<i64>(sizeof(Word)));
            }
        }
    }
    writer.end();
}

// Windows [begin, end) to `out`, the place of the first of them; past the caches where there is a stage.
template <typename Type>
T3_ALWAYS_INLINE void write_windows(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    if (stage == nullptr)
        copy_windows<Type>(request, begin, end, Straight{static_cast<unsigned char *>(out)});
    else
        copy_windows<Type>(request, begin, end, Streamed(out, stage));
}

void write(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    switch (request.element) {
        case Element::float32: return write_windows<Float32>(request, begin, end, out, stage);
        case Element::float16: return write_windows<Float16>(request, begin, end, out, stage);
        case Element::bfloat16: return write_windows<BFloat16>(request, begin, end, out, stage);
    }
}

}  // namespace
}  // namespace T3_LEVEL
