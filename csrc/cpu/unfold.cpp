// Gathering windows on the CPU: rows of windows are copied side by side, each window scaled on its own if asked.
#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "backend.h"
#include "core/element.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Windows in a task: enough to hide its overhead, few enough to share the work of a small mask.
constexpr i64 kWindowsPerTask = 64;

// Bytes gathered in the L1 cache before they are written past the caches.
constexpr i64 kStage = 16 << 10;
constexpr i64 kLine = 64;

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

struct Stage {
    std::vector<unsigned char> bytes;

    unsigned char *aligned(i64 row_bytes) {
        bytes.resize(kStage + row_bytes + 2 * kLine);
        const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes.data());
        return bytes.data() + (kLine - address % kLine) % kLine;
    }
};

struct Request {
    ImageStack<const float> images;
    i64 size;
    bool zscore;
    WindowList windows;
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

T3_SIMD_CLONES void write_float32(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    write_windows<Float32>(request, begin, end, out, stage);
}

T3_SIMD_CLONES void write_float16(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    write_windows<Float16>(request, begin, end, out, stage);
}

T3_SIMD_CLONES void write_bfloat16(const Request &request, i64 begin, i64 end, void *out, unsigned char *stage) {
    write_windows<BFloat16>(request, begin, end, out, stage);
}

}  // namespace

void unfold(ImageStack<const float> images, const UnfoldRequest &wanted, WindowList windows, void *out, bool stream,
            int threads) {
    const Request request{images, wanted.size, wanted.zscore, windows};
    const i64 total = windows.dense() ? images.count * valid_windows(images.height, wanted.size) *
                                            valid_windows(images.width, wanted.size)
                                      : windows.count;
    const i64 word = wanted.element == Element::float32 ? 4 : 2;
    const i64 row_bytes = wanted.size * word, window_bytes = wanted.size * row_bytes;
    const i64 tasks = (total + kWindowsPerTask - 1) / kWindowsPerTask;
    parallel_tasks<Stage>(tasks, threads, [&](Stage &stage, i64 task) {
        const i64 begin = task * kWindowsPerTask, end = std::min(total, begin + kWindowsPerTask);
        unsigned char *to = static_cast<unsigned char *>(out) + begin * window_bytes;
        unsigned char *lines = stream ? stage.aligned(row_bytes) : nullptr;
        switch (wanted.element) {
            case Element::float32: return write_float32(request, begin, end, to, lines);
            case Element::float16: return write_float16(request, begin, end, to, lines);
            case Element::bfloat16: return write_bfloat16(request, begin, end, to, lines);
        }
    });
}

}  // namespace t3ssfast::cpu
