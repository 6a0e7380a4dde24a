// Moments: van Herk sums about lattice pixels (core/moments.h), eight cells of the lattice at a time.
#include "core/moments.h"

#include <algorithm>
#include <memory>

#include "cpu/parallel.h"
#include "cpu/statistics/families.h"

namespace t3ssfast::cpu {
namespace {

// Eight lattice cells (see core/moments.h) are worked on at once, one in each SIMD lane: the sums run along
// rows and columns inside a lane, so that no step depends on a neighbour in the same vector.
constexpr int kLanes = 8;
// Columns of windows held at a time; bounds the workspace for large windows (size * 64 * 256 bytes).
constexpr i64 kPanel = 64;

// The alignment is given because gcc's own depends on the instruction set of the function that asks.
typedef double Vector __attribute__((vector_size(kLanes * sizeof(double)), aligned(64)));

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

// One lattice cell: its lattice pixel, and the part of its size x size windows that is wanted.
struct Cell {
    const float *image;
    i64 height, width, y, x;
    i64 t0, t1, u0, u1;
    TileOutput out;
};

struct MomentScratch {
    std::vector<float> gathered[kLanes];
    std::vector<float> values;
    std::vector<unsigned char> memory;

    // Vectors of unknown content, aligned to their size.
    Vector *vectors(i64 count) {
        memory.resize(static_cast<std::size_t>(count + 1) * sizeof(Vector));
        void *start = memory.data();
        std::size_t space = memory.size();
        return static_cast<Vector *>(std::align(sizeof(Vector), sizeof(Vector) * count, start, space));
    }
};

// Row `offset` from the lattice row, columns -(size - 1) .. size - 1, less the origin. Pixels outside the image
// count as the origin: only windows that do not exist hold them.
T3_ALWAYS_INLINE void load_row(const Cell *cells, int used, const double *origin, i64 size, i64 offset,
                               double *row) {
    for (int lane = 0; lane < used; ++lane) {
        const Cell &cell = cells[lane];
        const i64 y = cell.y + offset;
        double *target = row + lane;
        if (y < 0 || y >= cell.height) {
            for (i64 c = 0; c < 2 * size - 1; ++c) target[c * kLanes] = 0.0;
            continue;
        }
        const i64 left = cell.x - (size - 1);
        const i64 begin = std::max<i64>(0, -left);
        const i64 end = std::min(2 * size - 1, cell.width - left);
        const float *source = cell.image + y * cell.width + left;
        for (i64 c = begin; c < end; ++c) target[c * kLanes] = source[c] - origin[lane];
    }
}

// Adds the sums of one row over each window column p0 <= u < p1 to `columns`.
T3_ALWAYS_INLINE void add_row(const Vector *row, i64 size, i64 p0, i64 p1, VectorSums *suffix,
                              VectorSums *columns) {
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
        columns[u - p0].add(whole);
    }
}

T3_SIMD_CLONES void moments_of_cells(const Cell *cells, int used, i64 size, const MomentPlane *planes,
                                     int plane_count, MomentScratch &scratch) {
    alignas(64) double origin[kLanes] = {};
    i64 t_begin = size, t_end = 0, u_begin = size, u_end = 0;
    for (int lane = 0; lane < used; ++lane) {
        const Cell &cell = cells[lane];
        origin[lane] = cell.image[cell.y * cell.width + cell.x];
        t_begin = std::min(t_begin, cell.t0);
        t_end = std::max(t_end, cell.t1);
        u_begin = std::min(u_begin, cell.u0);
        u_end = std::max(u_end, cell.u1);
    }
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    const i64 panel = std::min(kPanel, u_end - u_begin);
    Vector *memory = scratch.vectors(2 * size - 1 + 4 * panel * (size + 2));
    Vector *row = memory;
    std::fill(row, row + 2 * size - 1, Vector{});
    VectorSums *columns = reinterpret_cast<VectorSums *>(row + 2 * size - 1);
    VectorSums *suffix = columns + panel;
    VectorSums *above = suffix + panel;
    scratch.values.resize(static_cast<std::size_t>(kMomentKinds * panel * kLanes));
    float *values[kMomentKinds];
    for (int k = 0; k < kMomentKinds; ++k) values[k] = scratch.values.data() + k * panel * kLanes;

    for (i64 p0 = u_begin; p0 < u_end; p0 += panel) {
        const i64 p1 = std::min(p0 + panel, u_end), width = p1 - p0;
        for (i64 i = 0; i < width; ++i) columns[i].clear();
        for (i64 t = size - 1; t >= t_begin; --t) {
            if (t < size - 1) {
                load_row(cells, used, origin, size, t - (size - 1), reinterpret_cast<double *>(row));
                add_row(row, size, p0, p1, suffix, columns);
            }
            std::copy(columns, columns + width, above + t * panel);
        }
        for (i64 i = 0; i < width; ++i) columns[i].clear();
        for (i64 t = 0; t < t_end; ++t) {
            load_row(cells, used, origin, size, t, reinterpret_cast<double *>(row));
            add_row(row, size, p0, p1, suffix, columns);
            if (t < t_begin) continue;
            for (i64 i = 0; i < width; ++i) {
                VectorSums whole = above[t * panel + i];
                whole.add(columns[i]);
                const double *sums = reinterpret_cast<const double *>(&whole);
                alignas(64) float rounded[kMomentKinds][kLanes];
                for (int lane = 0; lane < kLanes; ++lane) {
                    const Moments m =
                        moments_of({sums[lane], sums[kLanes + lane], sums[2 * kLanes + lane], sums[3 * kLanes + lane]},
                                   origin[lane], inverse_count);
                    rounded[0][lane] = static_cast<float>(m.mean);
                    rounded[1][lane] = static_cast<float>(m.std);
                    rounded[2][lane] = static_cast<float>(m.variance);
                    rounded[3][lane] = static_cast<float>(m.skewness);
                    rounded[4][lane] = static_cast<float>(m.kurtosis);
                    rounded[5][lane] = static_cast<float>(m.energy);
                }
                for (int k = 0; k < kMomentKinds; ++k) {
                    std::copy(rounded[k], rounded[k] + kLanes, values[k] + i * kLanes);
                }
            }
            for (int lane = 0; lane < used; ++lane) {
                const Cell &cell = cells[lane];
                if (t < cell.t0 || t >= cell.t1) continue;
                const i64 begin = std::max(p0, cell.u0), end = std::min(p1, cell.u1);
                for (int k = 0; k < plane_count; ++k) {
                    const float *source = values[planes[k].kind] + lane - p0 * kLanes;
                    float *target =
                        cell.out.data + planes[k].slot * cell.out.plane + (t - cell.t0) * cell.out.stride - cell.u0;
                    for (i64 u = begin; u < end; ++u) target[u] = source[u * kLanes];
                }
            }
        }
    }
}

}  // namespace

void moments(const Images &images, i64 size, const std::vector<MomentPlane> &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const TileGrid grid(images, size, windows, size, size, size - 1);
    const i64 batches = (grid.count() + kLanes - 1) / kLanes;
    parallel_tasks<MomentScratch>(batches, threads, [&](MomentScratch &scratch, i64 batch) {
        Cell cells[kLanes];
        Tile tiles[kLanes];
        const int used = static_cast<int>(std::min<i64>(kLanes, grid.count() - batch * kLanes));
        for (int lane = 0; lane < used; ++lane) {
            const Tile tile = grid[batch * kLanes + lane];
            const i64 row = lattice_cell(tile.y0, size), column = lattice_cell(tile.x0, size);
            const i64 y = cell_begin(row, size), x = cell_begin(column, size);
            tiles[lane] = tile;
            cells[lane] = {images.image(tile.image), images.height, images.width, row * size, column * size,
                           tile.y0 - y, tile.y1 - y, tile.x0 - x, tile.x1 - x,
                           output.open(tile, plane_count, scratch.gathered[lane])};
        }
        moments_of_cells(cells, used, size, planes.data(), static_cast<int>(planes.size()), scratch);
        for (int lane = 0; lane < used; ++lane) {
            for (const MomentPlane &plane : planes) output.close(tiles[lane], cells[lane].out, plane.slot);
        }
    });
}

}  // namespace t3ssfast::cpu
