// Output of the moments kernel. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Columns of windows [begin, end) that are in memory at a time.
struct Panel {
    i64 begin, end;
    i64 width() const { return end - begin; }
};

// Destination of the values of a batch.
struct BatchOutput {
    const MomentCell *cells;
    int used;
    const MomentPlane *planes;
    int plane_count;
    i64 t_begin, u_begin;
    // uniform: the same windows are requested of all cells. stream: rows are written with non-temporal stores, whole
    // runs of adjacent cells at once.
    bool uniform, stream;
    int runs, run_starts[kLanes];
    const float *values;  // values of one row of a panel: (kinds, kind_stride)
    float *rows;          // the same, transposed to output rows
    i64 kind_stride;

    float *row(int lane, int k, i64 t) const {
        const TileOutput &out = cells[lane].out;
        return out.data + planes[k].slot * out.plane + (t - cells[lane].t0) * out.stride;
    }
};

// Prefetches the cache lines of row `t` of plane `k`, which are too far apart for the hardware prefetcher. For streamed
// rows only the ends of runs are needed.
T3_ALWAYS_INLINE void prefetch_output_row(const BatchOutput &output, int k, i64 t, Panel panel) {
    if (!output.uniform) return;
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
    const Floats rounded = __builtin_convertvector(value, Floats);
    std::memcpy(target, &rounded, sizeof(rounded));
}

// Transposes values of `count` windows of all lanes, (count, lanes), to one output row per lane.
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

// Transposes the values of a row of a panel to the order of output rows: (kinds, lanes, width).
T3_ALWAYS_INLINE void transpose_rows(const BatchOutput &output, unsigned requested_kinds, Panel panel) {
    for (int kind = 0; kind < kMomentKinds; ++kind) {
        if (!(requested_kinds & 1u << kind)) continue;
        const i64 at = kind * output.kind_stride;
        float *lanes[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = output.rows + at + lane * panel.width();
        write_rows(output.values + at, panel.width(), lanes);
    }
}

// Writes row `t` of plane `k` with non-temporal stores.
T3_ALWAYS_INLINE void stream_plane(const BatchOutput &output, int k, i64 t, Panel panel) {
    const float *const rows = output.rows + output.planes[k].kind * output.kind_stride;
    for (int run = 0; run < output.runs; ++run) {
        const int first = output.run_starts[run], end = run + 1 < output.runs ? output.run_starts[run + 1] : kLanes;
        stream_row(output.row(first, k, t), rows + first * panel.width(), (end - first) * panel.width());
    }
}

// Writes row `t` of plane `k` through the caches.
T3_ALWAYS_INLINE void write_plane(const BatchOutput &output, int k, i64 t, Panel panel) {
    const float *const values = output.values + output.planes[k].kind * output.kind_stride;
    if (output.uniform) {
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

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
