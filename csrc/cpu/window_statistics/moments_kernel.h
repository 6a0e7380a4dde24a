// Moments of a batch of lattice cells (see core/moments.h), one cell per SIMD lane: sums run along rows and columns
// within a lane, so no step depends on a neighbouring lane. A kernel of cpu/simd_dispatch.h.
#include "cpu/window_statistics/streaming_stores.h"

#include "cpu/window_statistics/moments_vectors.h"

#include "cpu/window_statistics/moments_pixels.h"

#include "cpu/window_statistics/moments_output.h"

namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

// Adds the part of a row left of the lattice pixel to the sums of each column of windows.
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

// Adds the rest of the row.
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

void moments_of_vector(const MomentCell *all_cells, int used, i64 size, const MomentPlane *planes, int plane_count,
                       const MomentBuffers &buffers) {
    MomentCell cells[kLanes];
    CellBatch batch = {cells, size, {}, size, {}, 0, {}};
    Vector centre;
    i64 t_begin = size, t_end = 0, u_begin = size, u_end = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = cells[lane] = all_cells[lane < used ? lane : used - 1];
        centre[lane] = cell.image[cell.y * cell.width + cell.x];
        batch.columns[lane] = cell.width - cell.x < size ? cell.width - cell.x : size;
        batch.common_columns = batch.common_columns < batch.columns[lane] ? batch.common_columns : batch.columns[lane];
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
    BatchOutput output = {
        cells, used,           planes,       plane_count,           t_begin, u_begin, used == kLanes, false, 1,
        {},    buffers.values, buffers.rows, panel_columns * kLanes};
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = cells[lane];
        output.uniform =
            output.uniform && cell.t0 == t_begin && cell.t1 == t_end && cell.u0 == u_begin && cell.u1 == u_end;
        if (lane > 0 && cell.out.data != cells[lane - 1].out.data + (u_end - u_begin)) {
            output.run_starts[output.runs++] = lane;
        }
    }
    output.stream = output.uniform && cells[0].out.stream && size <= kMomentPanel;

    unsigned requested_kinds = 0;
    for (int k = 0; k < plane_count; ++k) requested_kinds |= 1u << planes[k].kind;
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    VectorSums *const columns = reinterpret_cast<VectorSums *>(buffers.sums);
    VectorSums *const above = columns + panel_columns;
    Floats *const pixels = reinterpret_cast<Floats *>(buffers.pixels);
    const LaneRow row = {pixels, pixels + size};
    const int half = (plane_count + 1) / 2;

    for (i64 p = u_begin; p < u_end; p += panel_columns) {
        const Panel panel = {p, p + panel_columns < u_end ? p + panel_columns : u_end};
        for (i64 i = 0; i < panel.width(); ++i) above[(size - 1) * panel_columns + i].clear();
        for (i64 t = size - 2; t >= t_begin; --t) {
            load_row(batch, t - (size - 1), -kPrefetchRows * row_pixels, row);
            VectorSums *const sums = above + t * panel_columns;
            add_left(size, row, centre, panel, sums + panel_columns, sums);
            add_right(row, centre, panel, sums);
        }
        for (i64 i = 0; i < panel.width(); ++i) columns[i].clear();
        for (i64 t = 0; t < t_end; ++t) {
            load_row(batch, t, kPrefetchRows * row_pixels, row);
            if (t >= t_begin) {
                for (int k = 0; k < plane_count; ++k) prefetch_output_row(output, k, t, panel);
            }
            // Streamed rows are written during the next row, in two parts: stores that wait for memory would block
            // those behind them.
            const bool pending = output.stream && t > t_begin;
            for (int k = 0; pending && k < half; ++k) stream_plane(output, k, t - 1, panel);
            add_left(size, row, centre, panel, columns, columns);
            for (int k = half; pending && k < plane_count; ++k) stream_plane(output, k, t - 1, panel);
            add_right(row, centre, panel, columns);
            if (t < t_begin) continue;
            // A separate loop: the sums of a row depend on each other, their moments do not.
            const VectorSums *const upper = above + t * panel_columns;
            for (i64 i = 0; i < panel.width(); ++i) {
                VectorSums whole = columns[i];
                whole.add(upper[i]);
                const Moments m = moments_of(whole.s1, whole.s2, whole.s3, whole.s4, centre, inverse_count);
                // One statistic at a time, directly from registers.
                float *const values = buffers.values + i * kLanes;
                const i64 stride = panel_columns * kLanes;
                if (requested_kinds & 1 << 0) round_to(m.mean, values);
                if (requested_kinds & 1 << 1) round_to(m.std, values + stride);
                if (requested_kinds & 1 << 2) round_to(m.variance, values + 2 * stride);
                if (requested_kinds & 1 << 3) round_to(m.skewness, values + 3 * stride);
                if (requested_kinds & 1 << 4) round_to(m.kurtosis, values + 4 * stride);
                if (requested_kinds & 1 << 5) round_to(m.energy, values + 5 * stride);
            }
            if (output.stream) {
                transpose_rows(output, requested_kinds, panel);
            } else {
                for (int k = 0; k < plane_count; ++k) write_plane(output, k, t, panel);
            }
        }
        for (int k = 0; output.stream && k < plane_count; ++k) stream_plane(output, k, t_end - 1, panel);
    }
}

void moments_of_cells(const MomentCell *cells, int used, i64 size, const MomentPlane *planes, int plane_count,
                      const MomentBuffers &buffers) {
    for (int first = 0; first < used; first += kLanes) {
        const int count = used - first < kLanes ? used - first : kLanes;
        moments_of_vector(cells + first, count, size, planes, plane_count, buffers);
    }
    end_stream();
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
