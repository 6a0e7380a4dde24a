// Lattice cells at once (see core/moments.h), one in each SIMD lane: the sums run along rows and columns inside
// a lane, so that no step depends on a neighbour in the same vector. A kernel of cpu/each_level.h.
#include "cpu/window_statistics/lines.h"

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
typedef std::int32_t Marks __attribute__((vector_size(sizeof(Rounded)), aligned(sizeof(Rounded))));

// core/moments.h for a vector.
T3_ALWAYS_INLINE Vector product(Vector a, Vector b) { return a * b; }
T3_ALWAYS_INLINE Vector positive_part(Vector x) {
    return reinterpret_cast<Vector>(reinterpret_cast<Bits>(x) & (x > 0.0));
}
T3_ALWAYS_INLINE Vector nan_unless_positive(Vector x, Vector value) {
    return x > 0.0 ? value : Vector{} + std::numeric_limits<double>::quiet_NaN();
}
#if T3_AVX512
T3_ALWAYS_INLINE Vector root(Vector x) { return _mm512_sqrt_pd(x); }
#elif T3_AVX2
T3_ALWAYS_INLINE Vector root(Vector x) { return _mm256_sqrt_pd(x); }
#else
T3_ALWAYS_INLINE Vector root(Vector x) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrt(x[lane]);
    return x;
}
#endif
T3_ALWAYS_INLINE Vector reciprocal(Vector x) { return 1.0 / x; }

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

// ------------------------------------------------------------------------------------ pixels into lanes

#if T3_AVX512
typedef float Wide __attribute__((vector_size(64), aligned(64)));
typedef int WidePick __attribute__((vector_size(64), aligned(64)));

// Eight columns of eight rows, two rows in each vector, made eight rows of eight columns, two in each vector.
T3_ALWAYS_INLINE void transpose(Wide &a, Wide &b, Wide &c, Wide &d) {
    // Of four rows, columns 0 .. 3, column by column; then columns 4 .. 7.
    const WidePick first = {0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27};
    const WidePick last = first + 4;
    const Wide ab_first = __builtin_shuffle(a, b, first), ab_last = __builtin_shuffle(a, b, last);
    const Wide cd_first = __builtin_shuffle(c, d, first), cd_last = __builtin_shuffle(c, d, last);
    const WidePick low = {0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23};
    const WidePick high = low + 8;
    a = __builtin_shuffle(ab_first, cd_first, low);
    b = __builtin_shuffle(ab_first, cd_first, high);
    c = __builtin_shuffle(ab_last, cd_last, low);
    d = __builtin_shuffle(ab_last, cd_last, high);
}
#elif T3_AVX2
typedef float Pack __attribute__((vector_size(16)));
typedef int Pick __attribute__((vector_size(16)));

T3_ALWAYS_INLINE void transpose(Pack &a, Pack &b, Pack &c, Pack &d) {
    const Pick low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
    const Pack low_ac = __builtin_shuffle(a, c, low), high_ac = __builtin_shuffle(a, c, high);
    const Pack low_bd = __builtin_shuffle(b, d, low), high_bd = __builtin_shuffle(b, d, high);
    a = __builtin_shuffle(low_ac, low_bd, low);
    b = __builtin_shuffle(low_ac, low_bd, high);
    c = __builtin_shuffle(high_ac, high_bd, low);
    d = __builtin_shuffle(high_ac, high_bd, high);
}
#endif

// How the cells of a vector lie to each other.
struct Batch {
    const MomentCell *cells;  // kLanes of them; those beyond the used ones are copies
    i64 size;
    i64 columns[kLanes];  // of a cell's right half: those inside the image
    i64 full;             // columns that all lanes have
    // Lanes whose left half is not the right half of the lane before, and a mark at each.
    int starts[kLanes], start_count;
    Marks marks[kLanes];
};

// Rows of pixels that are on their way from memory: rows of an image lie too far apart for the processor to see it.
constexpr i64 kMomentAhead = 2;

// One row of pixels of all lanes, (columns, lanes): from the lattice pixel on, and from a window's size before it, of
// which the first column is none. Columns outside the image hold any finite value: only windows that do not exist hold
// them.
struct LaneRow {
    Rounded *left, *right;
};

// Half a row of all lanes, (size, lanes); `full` columns are in all lanes, `columns` in each. `ahead` is how far from
// each lane's row the one is that will be wanted.
T3_ALWAYS_INLINE void load_half(const float *const *sources, i64 size, [[maybe_unused]] i64 full, const i64 *columns,
                                [[maybe_unused]] i64 ahead, Rounded *to) {
    i64 c = 0;
#if T3_AVX512
    // The last columns are met twice where their number is not a multiple of eight.
    for (; c < full && full >= 8; c += 8) {
        c = c < full - 8 ? c : full - 8;
        Wide pairs[4];
        for (int k = 0; k < kLanes; ++k) __builtin_prefetch(sources[k] + c + ahead);
        for (int k = 0; k < 4; ++k) {
            const __m256 one = _mm256_loadu_ps(sources[2 * k] + c), other = _mm256_loadu_ps(sources[2 * k + 1] + c);
            pairs[k] = reinterpret_cast<Wide>(_mm512_insertf32x8(_mm512_castps256_ps512(one), other, 1));
        }
        transpose(pairs[0], pairs[1], pairs[2], pairs[3]);
        for (int k = 0; k < 4; ++k) std::memcpy(to + c + 2 * k, pairs + k, sizeof(Wide));
    }
#elif T3_AVX2
    for (; c < full && full >= 4; c += 4) {
        c = c < full - 4 ? c : full - 4;
        Pack packs[4];
        for (int k = 0; k < 4; ++k) std::memcpy(packs + k, sources[k] + c, sizeof(Pack));
        transpose(packs[0], packs[1], packs[2], packs[3]);
        for (int k = 0; k < 4; ++k) std::memcpy(to + c + k, packs + k, sizeof(Pack));
    }
#endif
    for (; c < size; ++c) {
        Rounded column;
        for (int lane = 0; lane < kLanes; ++lane) column[lane] = sources[lane][c < columns[lane] ? c : 0];
        to[c] = column;
    }
}

// The value of the lane before; of the first lane, some value.
T3_ALWAYS_INLINE Rounded lane_before(Rounded values) {
#if T3_AVX2
    Marks from;
    for (int lane = 0; lane < kLanes; ++lane) from[lane] = lane > 0 ? lane - 1 : 0;
    return __builtin_shuffle(values, from);
#else
    for (int lane = kLanes - 1; lane > 0; --lane) values[lane] = values[lane - 1];
    return values;
#endif
}

// The left halves: those of the lane before, its right half, but for lanes that start a run.
template <int kStarts>
T3_ALWAYS_INLINE void load_left(const Batch &batch, const float *const *sources, LaneRow row) {
    Marks marks[kStarts];
    const float *starts[kStarts];
    for (int i = 0; i < kStarts; ++i) {
        marks[i] = batch.marks[i];
        starts[i] = sources[batch.starts[i]] - (batch.cells[batch.starts[i]].x > 0 ? batch.size : 0);
    }
    for (i64 c = 1; c < batch.size; ++c) {
        Rounded column = lane_before(row.right[c]);
        for (int i = 0; i < kStarts; ++i) column = marks[i] ? Rounded{} + starts[i][c] : column;
        row.left[c] = column;
    }
}

// Row `offset` from the lattice row.
T3_ALWAYS_INLINE void load_row(const Batch &batch, i64 offset, i64 ahead, LaneRow row) {
    const float *sources[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = batch.cells[lane];
        const i64 y = cell.y + offset;
        // Rows outside the image are in windows that do not exist.
        sources[lane] = cell.image + (y >= 0 && y < cell.height ? y : cell.y) * cell.width + cell.x;
    }
    for (int i = 0; i < batch.start_count && i < 2; ++i) {
        const float *const left = sources[batch.starts[i]] - batch.size;
        for (i64 c = 0; c < batch.size; c += 16) __builtin_prefetch(left + c + ahead);
    }
    load_half(sources, batch.size, batch.full, batch.columns, ahead, row.right);
    switch (batch.start_count) {
        case 1: return load_left<1>(batch, sources, row);
        case 2: return load_left<2>(batch, sources, row);
        default: break;
    }
    // Cells that lie apart.
    i64 columns[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        columns[lane] = batch.size;
        sources[lane] -= batch.cells[lane].x > 0 ? batch.size : 0;
    }
    load_half(sources, batch.size, batch.size, columns, ahead, row.left);
}

T3_ALWAYS_INLINE Vector to_double(Rounded value) {
#if T3_AVX512
    // gcc converts the halves one by one.
    return _mm512_cvtps_pd(value);
#else
    return __builtin_convertvector(value, Vector);
#endif
}

// ------------------------------------------------------------------------------------------- the sums

// Columns of windows that are held at a time: from begin up to end.
struct Panel {
    i64 begin, end;
    i64 width() const { return end - begin; }
};

// Adds what a row has left of the lattice pixel to the sums over each column of windows.
T3_ALWAYS_INLINE void add_left(i64 size, LaneRow row, Vector centre, Panel panel, const VectorSums *before,
                               VectorSums *after) {
    VectorSums sums;
    sums.clear();
    i64 u = size - 1;
    if (u < panel.end) after[u - panel.begin] = before[u - panel.begin];
    for (--u; u >= panel.end; --u) sums.add(to_double(row.left[u + 1]) - centre);
    for (; u >= panel.begin; --u) {
        sums.add(to_double(row.left[u + 1]) - centre);
        VectorSums whole = before[u - panel.begin];
        whole.add(sums);
        after[u - panel.begin] = whole;
    }
}

// The rest of the row.
T3_ALWAYS_INLINE void add_right(LaneRow row, Vector centre, Panel panel, VectorSums *columns) {
    VectorSums sums;
    sums.clear();
    i64 u = 0;
    for (; u < panel.begin; ++u) sums.add(to_double(row.right[u]) - centre);
    for (; u < panel.end; ++u) {
        sums.add(to_double(row.right[u]) - centre);
        columns[u - panel.begin].add(sums);
    }
}

// ------------------------------------------------------------------------------------------ the output

// Where the values of a batch go.
struct BatchOutput {
    const MomentCell *cells;
    int used;
    const MomentPlane *planes;
    int plane_count;
    i64 t_begin, u_begin;
    // All cells are wanted alike; and are written past the caches, whole rows of those that lie side by side at once.
    bool alike, stream;
    int runs, run_starts[kLanes];
    const float *values;  // of a row of a panel: (kinds, kind_stride)
    float *rows;          // the same lined up
    i64 kind_stride;

    float *row(int lane, int k, i64 t) const {
        const TileOutput &out = cells[lane].out;
        return out.data + planes[k].slot * out.plane + (t - cells[lane].t0) * out.stride;
    }
};

// Calls the lines that row `t` of plane `k` will be written to: they lie too far apart for the processor to foresee
// them. Of what is written past the caches, those at the ends of runs.
T3_ALWAYS_INLINE void fetch_row(const BatchOutput &output, int k, i64 t, Panel panel) {
    if (!output.alike) return;
    for (int run = 0; run < output.runs; ++run) {
        const int first = output.run_starts[run], end = run + 1 < output.runs ? output.run_starts[run + 1] : kLanes;
        const float *const row = output.row(first, k, t) + panel.begin - output.u_begin;
        const i64 count = (end - first) * panel.width();
        if (!output.stream) {
            for (i64 u = 0; u < count; u += 16) __builtin_prefetch(row + u, 1);
        }
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + count - 1, 1);
    }
}

T3_ALWAYS_INLINE void round_to(const Vector &value, float *target) {
    const Rounded rounded = __builtin_convertvector(value, Rounded);
    std::memcpy(target, &rounded, sizeof(rounded));
}

// Brings values of `count` windows of all lanes, (count, lanes), home to a row of each lane's output.
T3_ALWAYS_INLINE void write_rows(const float *values, i64 count, float *const *targets) {
    i64 i = 0;
#if T3_AVX512
    for (; i < count && count >= 8; i += 8) {
        i = i < count - 8 ? i : count - 8;
        Wide pairs[4];
        for (int k = 0; k < 4; ++k) std::memcpy(pairs + k, values + (i + 2 * k) * kLanes, sizeof(Wide));
        transpose(pairs[0], pairs[1], pairs[2], pairs[3]);
        for (int k = 0; k < 4; ++k) {
            std::memcpy(targets[2 * k] + i, pairs + k, sizeof(Wide) / 2);
            _mm256_storeu_ps(targets[2 * k + 1] + i, _mm512_extractf32x8_ps(pairs[k], 1));
        }
    }
#elif T3_AVX2
    for (; i < count && count >= 4; i += 4) {
        i = i < count - 4 ? i : count - 4;
        Pack packs[4];
        for (int k = 0; k < 4; ++k) std::memcpy(packs + k, values + (i + k) * kLanes, sizeof(Pack));
        transpose(packs[0], packs[1], packs[2], packs[3]);
        for (int lane = 0; lane < 4; ++lane) std::memcpy(targets[lane] + i, packs + lane, sizeof(Pack));
    }
#endif
    for (; i < count; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) targets[lane][i] = values[i * kLanes + lane];
    }
}

// Brings the values of a row of a panel, kind by kind, in the order that rows of the output have: (kinds, lanes, width).
T3_ALWAYS_INLINE void line_up(const BatchOutput &output, unsigned wanted, Panel panel) {
    for (int kind = 0; kind < kMomentKinds; ++kind) {
        if (!(wanted & 1u << kind)) continue;
        const i64 at = kind * output.kind_stride;
        float *lanes[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = output.rows + at + lane * panel.width();
        write_rows(output.values + at, panel.width(), lanes);
    }
}

// Row `t` of plane `k`, past the caches.
T3_ALWAYS_INLINE void stream_plane(const BatchOutput &output, int k, i64 t, Panel panel) {
    const float *const rows = output.rows + output.planes[k].kind * output.kind_stride;
    for (int run = 0; run < output.runs; ++run) {
        const int first = output.run_starts[run], end = run + 1 < output.runs ? output.run_starts[run + 1] : kLanes;
        stream_row(output.row(first, k, t), rows + first * panel.width(), (end - first) * panel.width());
    }
}

// The same through the caches.
T3_ALWAYS_INLINE void write_plane(const BatchOutput &output, int k, i64 t, Panel panel) {
    const float *const values = output.values + output.planes[k].kind * output.kind_stride;
    if (output.alike) {
        float *targets[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) targets[lane] = output.row(lane, k, t) + panel.begin - output.u_begin;
        return write_rows(values, panel.width(), targets);
    }
    for (int lane = 0; lane < output.used; ++lane) {
        const MomentCell &cell = output.cells[lane];
        if (t < cell.t0 || t >= cell.t1) continue;
        const i64 begin = panel.begin > cell.u0 ? panel.begin : cell.u0;
        const i64 end = panel.end < cell.u1 ? panel.end : cell.u1;
        float *const target = output.row(lane, k, t) - cell.u0;
        for (i64 u = begin; u < end; ++u) target[u] = values[(u - panel.begin) * kLanes + lane];
    }
}

void moments_of_vector(const MomentCell *given, int used, i64 size, const MomentPlane *planes, int plane_count,
                       const MomentMemory &memory) {
    MomentCell cells[kLanes];
    Batch batch = {cells, size, {}, size, {}, 0, {}};
    Vector centre;
    i64 t_begin = size, t_end = 0, u_begin = size, u_end = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = cells[lane] = given[lane < used ? lane : used - 1];
        centre[lane] = cell.image[cell.y * cell.width + cell.x];
        batch.columns[lane] = cell.width - cell.x < size ? cell.width - cell.x : size;
        batch.full = batch.full < batch.columns[lane] ? batch.full : batch.columns[lane];
        const MomentCell &before = cells[lane > 0 ? lane - 1 : 0];
        if (cell.image != before.image || cell.y != before.y || cell.x != before.x + size) {
            batch.marks[batch.start_count][lane] = -1;
            batch.starts[batch.start_count++] = lane;
        }
        t_begin = t_begin < cell.t0 ? t_begin : cell.t0;
        t_end = t_end > cell.t1 ? t_end : cell.t1;
        u_begin = u_begin < cell.u0 ? u_begin : cell.u0;
        u_end = u_end > cell.u1 ? u_end : cell.u1;
    }
    const i64 panel_columns = moment_panel(size), row_pixels = cells[0].width;
    BatchOutput output = {cells, used, planes, plane_count, t_begin, u_begin, used == kLanes, false, 1, {},
                          memory.values, memory.rows, panel_columns * kLanes};
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = cells[lane];
        output.alike =
            output.alike && cell.t0 == t_begin && cell.t1 == t_end && cell.u0 == u_begin && cell.u1 == u_end;
        if (lane > 0 && cell.out.data != cells[lane - 1].out.data + (u_end - u_begin)) {
            output.run_starts[output.runs++] = lane;
        }
    }
    output.stream = output.alike && cells[0].out.stream && size <= kMomentPanel;

    unsigned wanted = 0;
    for (int k = 0; k < plane_count; ++k) wanted |= 1u << planes[k].kind;
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    VectorSums *const columns = reinterpret_cast<VectorSums *>(memory.sums);
    VectorSums *const above = columns + panel_columns;
    Rounded *const pixels = reinterpret_cast<Rounded *>(memory.pixels);
    const LaneRow row = {pixels, pixels + size};
    const int half = (plane_count + 1) / 2;

    for (i64 p = u_begin; p < u_end; p += panel_columns) {
        const Panel panel = {p, p + panel_columns < u_end ? p + panel_columns : u_end};
        for (i64 i = 0; i < panel.width(); ++i) above[(size - 1) * panel_columns + i].clear();
        for (i64 t = size - 2; t >= t_begin; --t) {
            load_row(batch, t - (size - 1), -kMomentAhead * row_pixels, row);
            VectorSums *const sums = above + t * panel_columns;
            add_left(size, row, centre, panel, sums + panel_columns, sums);
            add_right(row, centre, panel, sums);
        }
        for (i64 i = 0; i < panel.width(); ++i) columns[i].clear();
        for (i64 t = 0; t < t_end; ++t) {
            load_row(batch, t, kMomentAhead * row_pixels, row);
            if (t >= t_begin) {
                for (int k = 0; k < plane_count; ++k) fetch_row(output, k, t, panel);
            }
            // What is streamed goes out during the next row, in two parts: stores that wait for memory hold up those
            // behind them.
            const bool late = output.stream && t > t_begin;
            for (int k = 0; late && k < half; ++k) stream_plane(output, k, t - 1, panel);
            add_left(size, row, centre, panel, columns, columns);
            for (int k = half; late && k < plane_count; ++k) stream_plane(output, k, t - 1, panel);
            add_right(row, centre, panel, columns);
            if (t < t_begin) continue;
            // In a loop of its own: the sums of a row depend on each other, their moments do not.
            const VectorSums *const upper = above + t * panel_columns;
            for (i64 i = 0; i < panel.width(); ++i) {
                VectorSums whole = columns[i];
                whole.add(upper[i]);
                const Moments m = moments_of(whole.s1, whole.s2, whole.s3, whole.s4, centre, inverse_count);
                // Kind by kind, out of registers.
                float *const values = memory.values + i * kLanes;
                const i64 stride = panel_columns * kLanes;
                if (wanted & 1 << 0) round_to(m.mean, values);
                if (wanted & 1 << 1) round_to(m.std, values + stride);
                if (wanted & 1 << 2) round_to(m.variance, values + 2 * stride);
                if (wanted & 1 << 3) round_to(m.skewness, values + 3 * stride);
                if (wanted & 1 << 4) round_to(m.kurtosis, values + 4 * stride);
                if (wanted & 1 << 5) round_to(m.energy, values + 5 * stride);
            }
            if (output.stream) {
                line_up(output, wanted, panel);
            } else {
                for (int k = 0; k < plane_count; ++k) write_plane(output, k, t, panel);
            }
        }
        for (int k = 0; output.stream && k < plane_count; ++k) stream_plane(output, k, t_end - 1, panel);
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
