// Lattice cells at once (see core/moments.h), one in each SIMD lane: the sums run along rows and columns inside
// a lane, so that no step depends on a neighbour in the same vector. A kernel of cpu/each_level.h.
#include "cpu/statistics/lines.h"

namespace t3ssfast::cpu {
namespace T3_LEVEL {
namespace {

// As many cells as a register of the level has lanes: gcc takes longer vectors apart, through memory.
#if T3_AVX512
constexpr int kLanes = 8;
#elif T3_AVX2
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
static_assert(kLanes <= kMomentLanes && kMomentLanes % kLanes == 0, "batches are made of whole vectors");

// The alignment is given because gcc's own depends on the instruction set of the function that asks.
typedef double Vector __attribute__((vector_size(kLanes * sizeof(double)), aligned(kLanes * sizeof(double))));

typedef std::int64_t Bits __attribute__((vector_size(sizeof(Vector)), aligned(sizeof(Vector))));
typedef float Rounded __attribute__((vector_size(kLanes * sizeof(float)), aligned(kLanes * sizeof(float))));

// core/moments.h for a vector.
T3_ALWAYS_INLINE Vector product(Vector a, Vector b) { return a * b; }
T3_ALWAYS_INLINE Vector positive_part(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<Bits>(x) & (x > 0.0)); }
T3_ALWAYS_INLINE Vector nan_unless_positive(Vector x, Vector value) {
    return x > 0.0 ? value : Vector{} + std::numeric_limits<double>::quiet_NaN();
}
T3_ALWAYS_INLINE Vector inverse_root_guess(Vector x) {
    // The sign is 0, so shifting a signed number is right.
    return reinterpret_cast<Vector>(static_cast<std::int64_t>(kInverseRootBits) - (reinterpret_cast<Bits>(x) >> 1));
}

using Real = Vector;
#include "core/moments_formula.h"

struct VectorSums {
    Vector s1, s2, s3, s4;

    T3_ALWAYS_INLINE void clear() { s1 = s2 = s3 = s4 = Vector{}; }
    T3_ALWAYS_INLINE void add(const Vector &d) {
        const Vector d2 = d * d;
        s1 += d;
        s2 += d2;
        s3 += d2 * d;
        s4 += d2 * d2;
    }
    T3_ALWAYS_INLINE void add(const VectorSums &other) {
        s1 += other.s1;
        s2 += other.s2;
        s3 += other.s3;
        s4 += other.s4;
    }
};

// Four floats of a lane, or of two: those of the lane behind the next three are the pack's second half.
#if T3_AVX512
typedef float Pack __attribute__((vector_size(32), aligned(32)));
typedef double WidePack __attribute__((vector_size(64), aligned(64)));
typedef int Pick __attribute__((vector_size(32)));

// Elements i and j of each half, those of a and of b by turns.
#define T3_PICK(a, b, i, j) __builtin_shuffle(a, b, Pick{i, 8 + i, j, 8 + j, 4 + i, 12 + i, 4 + j, 12 + j})

T3_ALWAYS_INLINE Pack load_pack(const float *const *sources, i64 at) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(sources[0] + at)), _mm_loadu_ps(sources[4] + at), 1);
}

T3_ALWAYS_INLINE WidePack to_double(Pack pack) { return _mm512_cvtps_pd(pack); }

T3_ALWAYS_INLINE void store_pack(Pack pack, float *const *targets, i64 at) {
    _mm_storeu_ps(targets[0] + at, _mm256_castps256_ps128(pack));
    _mm_storeu_ps(targets[4] + at, _mm256_extractf128_ps(pack, 1));
}
#elif T3_AVX2
typedef float Pack __attribute__((vector_size(16)));
typedef double WidePack __attribute__((vector_size(32), aligned(32)));
typedef int Pick __attribute__((vector_size(16)));

#define T3_PICK(a, b, i, j) __builtin_shuffle(a, b, Pick{i, 4 + i, j, 4 + j})

T3_ALWAYS_INLINE Pack load_pack(const float *const *sources, i64 at) {
    Pack pack;
    std::memcpy(&pack, sources[0] + at, sizeof(pack));
    return pack;
}

T3_ALWAYS_INLINE WidePack to_double(Pack pack) { return __builtin_convertvector(pack, WidePack); }

T3_ALWAYS_INLINE void store_pack(Pack pack, float *const *targets, i64 at) {
    std::memcpy(targets[0] + at, &pack, sizeof(pack));
}
#endif

#if T3_AVX2
constexpr int kPackLanes = sizeof(Pack) / sizeof(float);

// Rows made columns, in each half.
T3_ALWAYS_INLINE void transpose(Pack &a, Pack &b, Pack &c, Pack &d) {
    const Pack low_ac = T3_PICK(a, c, 0, 1), high_ac = T3_PICK(a, c, 2, 3);
    const Pack low_bd = T3_PICK(b, d, 0, 1), high_bd = T3_PICK(b, d, 2, 3);
    a = T3_PICK(low_ac, low_bd, 0, 1);
    b = T3_PICK(low_ac, low_bd, 2, 3);
    c = T3_PICK(high_ac, high_bd, 0, 1);
    d = T3_PICK(high_ac, high_bd, 2, 3);
}
#undef T3_PICK
#endif

// Row `offset` from the lattice row, columns -(size - 1) .. size - 1, less the origin. Pixels outside the image
// count as the origin: only windows that do not exist hold them.
T3_ALWAYS_INLINE void load_row(const MomentCell *cells, int used, const double *origin, i64 size, i64 offset,
                               double *row) {
    const i64 columns = 2 * size - 1;
    const float *sources[kLanes];
    i64 begin = 0, end = used == kLanes ? columns : 0;
    i64 first[kLanes], last[kLanes];
    for (int lane = 0; lane < used; ++lane) {
        const MomentCell &cell = cells[lane];
        const i64 y = cell.y + offset, left = cell.x - (size - 1);
        const bool inside = y >= 0 && y < cell.height;
        sources[lane] = cell.image + (inside ? y * cell.width : 0) + left;
        first[lane] = left < 0 ? -left : 0;
        last[lane] = inside ? (columns < cell.width - left ? columns : cell.width - left) : first[lane];
        begin = begin > first[lane] ? begin : first[lane];
        end = end < last[lane] ? end : last[lane];
    }
    // Columns that all lanes have, four at a time; then the rest of each lane.
    i64 done = begin;
#if T3_AVX2
    for (; done + 4 <= end; done += 4) {
        for (int lane = 0; lane < kLanes; lane += kPackLanes) {
            Pack a = load_pack(sources + lane, done), b = load_pack(sources + lane + 1, done);
            Pack c = load_pack(sources + lane + 2, done), d = load_pack(sources + lane + 3, done);
            transpose(a, b, c, d);
            WidePack centre;
            std::memcpy(&centre, origin + lane, sizeof(centre));
            double *const target = row + done * kLanes + lane;
            const WidePack columns_of_lanes[4] = {
                to_double(a) - centre, to_double(b) - centre, to_double(c) - centre, to_double(d) - centre};
            for (int i = 0; i < 4; ++i) {
                std::memcpy(target + i * kLanes, columns_of_lanes + i, sizeof(WidePack));
            }
        }
    }
#endif
    for (int lane = 0; lane < used; ++lane) {
        double *const target = row + lane;
        const i64 left_end = begin < done ? begin : done;
        for (i64 c = 0; c < first[lane]; ++c) target[c * kLanes] = 0.0;
        for (i64 c = first[lane]; c < (left_end < last[lane] ? left_end : last[lane]); ++c) {
            target[c * kLanes] = sources[lane][c] - origin[lane];
        }
        for (i64 c = done > first[lane] ? done : first[lane]; c < last[lane]; ++c) {
            target[c * kLanes] = sources[lane][c] - origin[lane];
        }
        for (i64 c = last[lane]; c < columns; ++c) target[c * kLanes] = 0.0;
    }
}

// Sums of one row over each window column p0 <= u < p1, added to those of the row before and handed to then(i, sums).
template <typename Then>
T3_ALWAYS_INLINE void add_row(const Vector *row, i64 size, i64 p0, i64 p1, VectorSums *suffix,
                              const VectorSums *before, VectorSums *after, const Then &then) {
    VectorSums sums;
    sums.clear();
    i64 u = size - 1;
    if (u < p1) suffix[u - p0] = sums;
    for (--u; u >= p1; --u) sums.add(row[u]);
    for (; u >= p0; --u) {
        sums.add(row[u]);
        suffix[u - p0] = sums;
    }
    sums.clear();
    const Vector *right = row + size - 1;
    for (u = 0; u < p0; ++u) sums.add(right[u]);
    for (; u < p1; ++u) {
        sums.add(right[u]);
        VectorSums whole = suffix[u - p0];
        whole.add(sums);
        whole.add(before[u - p0]);
        after[u - p0] = whole;
        then(u - p0, whole);
    }
}

// Calls the lines of the output that row `t` of a panel will be written to: they lie too far apart for the processor
// to foresee them.
T3_ALWAYS_INLINE void fetch_rows(const MomentCell *cells, i64 t, i64 begin, i64 width, const MomentPlane *planes,
                                 int plane_count) {
    if (t < 0) return;
    for (int k = 0; k < plane_count; ++k) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const TileOutput &out = cells[lane].out;
            const float *const row = out.data + planes[k].slot * out.plane + t * out.stride + begin;
            for (i64 u = 0; u < width; u += 16) __builtin_prefetch(row + u, 1);
            __builtin_prefetch(row + width - 1, 1);
        }
    }
}

T3_ALWAYS_INLINE void round_to(const Vector &value, float *target) {
    const Rounded rounded = __builtin_convertvector(value, Rounded);
    std::memcpy(target, &rounded, sizeof(rounded));
}

// The same where whole lines are written past the caches: the lines at the ends of the runs of lanes.
T3_ALWAYS_INLINE void fetch_ends(const MomentCell *cells, i64 t, i64 width, const int *lane_runs, int runs,
                                 const MomentPlane *planes, int plane_count) {
    if (t < 0) return;
    for (int k = 0; k < plane_count; ++k) {
        for (int run = 0; run < runs; ++run) {
            const TileOutput &out = cells[lane_runs[run]].out;
            const i64 lanes = (run + 1 < runs ? lane_runs[run + 1] : kLanes) - lane_runs[run];
            const float *const row = out.data + planes[k].slot * out.plane + t * out.stride;
            __builtin_prefetch(row, 1);
            __builtin_prefetch(row + lanes * width - 1, 1);
        }
    }
}

// Brings values of `count` windows of all lanes, (count, lanes), home to a row of each lane's output.
T3_ALWAYS_INLINE void write_rows(const float *values, i64 count, float *const *targets) {
    i64 i = 0;
#if T3_AVX2
    for (; i + 4 <= count; i += 4) {
        for (int first = 0; first < kLanes; first += kPackLanes) {
            Pack packs[4];
            for (int k = 0; k < 4; ++k) std::memcpy(packs + k, values + (i + k) * kLanes + first, sizeof(Pack));
            transpose(packs[0], packs[1], packs[2], packs[3]);
            for (int lane = 0; lane < 4; ++lane) store_pack(packs[lane], targets + first + lane, i);
        }
    }
#endif
    for (; i < count; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) targets[lane][i] = values[i * kLanes + lane];
    }
}

void moments_of_vector(const MomentCell *cells, int used, i64 size, const MomentPlane *planes, int plane_count,
                       const MomentMemory &memory) {
    alignas(64) double origin[kLanes] = {};
    i64 t_begin = size, t_end = 0, u_begin = size, u_end = 0;
    bool alike = used == kLanes;
    for (int lane = 0; lane < used; ++lane) {
        const MomentCell &cell = cells[lane];
        origin[lane] = cell.image[cell.y * cell.width + cell.x];
        t_begin = t_begin < cell.t0 ? t_begin : cell.t0;
        t_end = t_end > cell.t1 ? t_end : cell.t1;
        u_begin = u_begin < cell.u0 ? u_begin : cell.u0;
        u_end = u_end > cell.u1 ? u_end : cell.u1;
    }
    for (int lane = 0; lane < used; ++lane) {
        const MomentCell &cell = cells[lane];
        alike = alike && cell.t0 == t_begin && cell.t1 == t_end && cell.u0 == u_begin && cell.u1 == u_end;
    }
    // Lanes whose cells lie side by side write one row together.
    const bool stream = alike && cells[0].out.stream && size <= kMomentPanel;
    alignas(64) float row_of_lanes[kLanes * kMomentPanel];
    int lane_runs[kLanes] = {}, runs = 1;
    for (int lane = 1; lane < used; ++lane) {
        if (cells[lane].out.data != cells[lane - 1].out.data + (u_end - u_begin)) lane_runs[runs++] = lane;
    }
    Vector centre;
    std::memcpy(&centre, origin, sizeof(centre));
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    const i64 panel = moment_panel(size);
    Vector *const row = reinterpret_cast<Vector *>(memory.sums);
    for (i64 i = 0; i < 2 * size - 1; ++i) row[i] = Vector{};
    VectorSums *const columns = reinterpret_cast<VectorSums *>(row + 2 * size - 1);
    VectorSums *const suffix = columns + panel;
    VectorSums *const above = suffix + panel;
    const i64 kind_stride = panel * kLanes;
    const auto nothing = [](i64, const VectorSums &) {};
    unsigned wanted = 0;
    for (int k = 0; k < plane_count; ++k) wanted |= 1u << planes[k].kind;

    for (i64 p0 = u_begin; p0 < u_end; p0 += panel) {
        const i64 p1 = p0 + panel < u_end ? p0 + panel : u_end, width = p1 - p0;
        for (i64 i = 0; i < width; ++i) above[(size - 1) * panel + i].clear();
        for (i64 t = size - 2; t >= t_begin; --t) {
            load_row(cells, used, origin, size, t - (size - 1), memory.sums);
            add_row(row, size, p0, p1, suffix, above + (t + 1) * panel, above + t * panel, nothing);
        }
        for (i64 i = 0; i < width; ++i) columns[i].clear();
        for (i64 t = 0; t < t_end; ++t) {
            load_row(cells, used, origin, size, t, memory.sums);
            if (stream) fetch_ends(cells, t - t_begin, width, lane_runs, runs, planes, plane_count);
            if (alike && !stream) fetch_rows(cells, t - t_begin, p0 - u_begin, width, planes, plane_count);
            if (t < t_begin) {
                add_row(row, size, p0, p1, suffix, columns, columns, nothing);
                continue;
            }
            const VectorSums *const upper = above + t * panel;
            float *const values = memory.values;
            add_row(row, size, p0, p1, suffix, columns, columns, [&](i64 i, VectorSums whole) {
                whole.add(upper[i]);
                const Moments m = moments_of(whole.s1, whole.s2, whole.s3, whole.s4, centre, inverse_count);
                // Kind by kind, out of registers.
                const i64 at = i * kLanes;
                if (wanted & 1 << 0) round_to(m.mean, values + at);
                if (wanted & 1 << 1) round_to(m.std, values + kind_stride + at);
                if (wanted & 1 << 2) round_to(m.variance, values + 2 * kind_stride + at);
                if (wanted & 1 << 3) round_to(m.skewness, values + 3 * kind_stride + at);
                if (wanted & 1 << 4) round_to(m.kurtosis, values + 4 * kind_stride + at);
                if (wanted & 1 << 5) round_to(m.energy, values + 5 * kind_stride + at);
            });
            for (int k = 0; k < plane_count; ++k) {
                const float *const source = memory.values + planes[k].kind * kind_stride;
                float *targets[kLanes];
                for (int lane = 0; lane < used; ++lane) {
                    const MomentCell &cell = cells[lane];
                    targets[lane] =
                        cell.out.data + planes[k].slot * cell.out.plane + (t - cell.t0) * cell.out.stride - cell.u0;
                }
                if (alike) {
                    for (int lane = 0; lane < kLanes; ++lane) targets[lane] += p0;
                    if (!stream) {
                        write_rows(source, width, targets);
                        continue;
                    }
                    float *lanes[kLanes];
                    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = row_of_lanes + lane * width;
                    write_rows(source, width, lanes);
                    for (int run = 0; run < runs; ++run) {
                        const int first = lane_runs[run], end = run + 1 < runs ? lane_runs[run + 1] : kLanes;
                        stream_row(targets[first], lanes[first], (end - first) * width);
                    }
                    continue;
                }
                for (int lane = 0; lane < used; ++lane) {
                    const MomentCell &cell = cells[lane];
                    if (t < cell.t0 || t >= cell.t1) continue;
                    const i64 begin = p0 > cell.u0 ? p0 : cell.u0, end = p1 < cell.u1 ? p1 : cell.u1;
                    for (i64 u = begin; u < end; ++u) targets[lane][u] = source[(u - p0) * kLanes + lane];
                }
            }
        }
    }
}

void moments_of_cells(const MomentCell *cells, int used, i64 size, const MomentPlane *planes, int plane_count,
                      const MomentMemory &memory) {
    for (int first = 0; first < used; first += kLanes) {
        const int count = used - first < kLanes ? used - first : kLanes;
        moments_of_vector(cells + first, count, size, planes, plane_count, memory);
    }
    end_stream();
}

}  // namespace
}  // namespace T3_LEVEL
}  // namespace t3ssfast::cpu
