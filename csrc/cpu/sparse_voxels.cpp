#include "cpu/sparse_voxels.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

struct NoWorkspace {};

// A row beside the one that is searched: its voxels from the first one that later voxels may need, and the distance of
// the rows in flat indices.
struct RowBeside {
    i64 next, end, distance;
};

// The rows with voxels among the eight around row y of a slice; returns their number.
int rows_beside(const SparseVoxels &voxels, const SparseRows &rows, i64 slice, i64 y, RowBeside *beside) {
    int count = 0;
    for (i64 dz = -1; dz <= 1; ++dz) {
        for (i64 dy = -1; dy <= 1; ++dy) {
            const bool inside =
                slice + dz >= 0 && slice + dz < rows.slices() && y + dy >= 0 && y + dy < voxels.height;
            if (!inside || (dz == 0 && dy == 0)) continue;
            const i64 distance = dz * voxels.height + dy, row = slice * voxels.height + y + distance;
            const RowBeside found{rows.start(row), rows.start(row + 1), distance * voxels.width};
            if (found.next < found.end) beside[count++] = found;
        }
    }
    return count;
}

// Whether one of the three neighbours of a voxel in another row exceeds it, or an earlier one equals it.
bool exceeded_beside(const SparseVoxels &voxels, i64 voxel, RowBeside &row) {
    const i64 *const index = voxels.index, middle = index[voxel] + row.distance;
    row.next = std::lower_bound(index + row.next, index + row.end, middle - 1) - index;
    for (i64 i = row.next; i < row.end && index[i] <= middle + 1; ++i) {
        if (voxels.value[i] > voxels.value[voxel]) return true;
        if (i < voxel && voxels.value[i] == voxels.value[voxel]) return true;
    }
    return false;
}

// Appends the maxima of row y of a slice.
void maxima_of_row(const SparseVoxels &voxels, const SparseRows &rows, i64 slice, i64 y, float threshold,
                   std::vector<i64> &maxima) {
    const i64 *const index = voxels.index, row = slice * voxels.height + y;
    const float *const value = voxels.value;
    const i64 first = rows.start(row), end = rows.start(row + 1);
    if (first == end) return;
    RowBeside beside[8];
    RowBeside *const last = beside + rows_beside(voxels, rows, slice, y, beside);
    for (i64 i = first; i < end; ++i) {
        const float own = value[i];
        if (!(own >= threshold && own > 0.0f)) continue;
        // Most voxels end here.
        if (i > first && index[i - 1] == index[i] - 1 && value[i - 1] >= own) continue;
        if (i + 1 < end && index[i + 1] == index[i] + 1 && value[i + 1] > own) continue;
        if (std::none_of(beside, last, [&](RowBeside &other) { return exceeded_beside(voxels, i, other); }))
            maxima.push_back(i);
    }
}

// Writes z, y and x of the centroid around a peak. Sums are in double precision, in which those of a few thousand
// float32 values are exact, unless values exceed the peak's millions of times.
void centroid(const SparseVoxels &voxels, const SparseRows &rows, i64 peak, i64 radius, double *out) {
    const i64 *const index = voxels.index, row_of_peak = index[peak] / voxels.width;
    const i64 y = row_of_peak % voxels.height, slice = row_of_peak / voxels.height - rows.first_slice();
    const double half = static_cast<double>(voxels.value[peak]) / 2.0;
    double total = 0.0, sum[3] = {0.0, 0.0, 0.0};
    for (i64 dz = std::max(-radius, -slice); dz <= std::min(radius, rows.slices() - 1 - slice); ++dz) {
        for (i64 dy = std::max(-radius, -y); dy <= std::min(radius, voxels.height - 1 - y); ++dy) {
            const i64 in_plane = radius * radius - dz * dz - dy * dy;
            if (in_plane < 0) continue;
            const i64 row = (slice + dz) * voxels.height + y + dy;
            const i64 *const end = index + rows.start(row + 1);
            const i64 middle = index[peak] + (dz * voxels.height + dy) * voxels.width;
            for (const i64 *i = std::lower_bound(index + rows.start(row), end, middle - radius); i < end; ++i) {
                const i64 dx = *i - middle;
                if (dx > radius) break;
                const double weight = static_cast<double>(voxels.value[i - index]) - half;
                if (dx * dx > in_plane || !(weight > 0.0)) continue;
                total += weight;
                sum[0] += weight * static_cast<double>(dz);
                sum[1] += weight * static_cast<double>(dy);
                sum[2] += weight * static_cast<double>(dx);
            }
        }
    }
    const i64 position[3] = {slice + rows.first_slice(), y, index[peak] % voxels.width};
    for (int axis = 0; axis < 3; ++axis)
        out[axis] = static_cast<double>(position[axis]) + (total > 0.0 ? sum[axis] / total : 0.0);
}

}  // namespace

SparseRows::SparseRows(const SparseVoxels &voxels, int threads) {
    const i64 *const index = voxels.index, plane = voxels.height * voxels.width;
    first_slice_ = index[0] / plane;
    slices_ = index[voxels.count - 1] / plane + 1 - first_slice_;
    starts_.resize(static_cast<std::size_t>(slices_ * voxels.height + 1), voxels.count);
    parallel_tasks<NoWorkspace>(slices_, threads, [&](NoWorkspace &, i64 z) {
        i64 first = (first_slice_ + z) * plane;
        i64 i = std::lower_bound(index, index + voxels.count, first) - index;
        i64 *const starts = starts_.data() + z * voxels.height;
        for (i64 y = 0; y < voxels.height; ++y, first += voxels.width) {
            while (i < voxels.count && index[i] < first) ++i;
            starts[y] = i;
        }
    });
}

std::vector<i64> local_maxima(const SparseVoxels &voxels, float threshold, int threads) {
    if (voxels.count == 0) return {};
    const SparseRows rows(voxels, threads);
    std::vector<std::vector<i64>> found(static_cast<std::size_t>(rows.slices()));
    parallel_tasks<NoWorkspace>(rows.slices(), threads, [&](NoWorkspace &, i64 slice) {
        for (i64 y = 0; y < voxels.height; ++y)
            maxima_of_row(voxels, rows, slice, y, threshold, found[static_cast<std::size_t>(slice)]);
    });
    std::vector<i64> all;
    for (const std::vector<i64> &maxima : found) all.insert(all.end(), maxima.begin(), maxima.end());
    return all;
}

void centroids(const SparseVoxels &voxels, const i64 *peaks, i64 count, i64 radius, double *out, int threads) {
    if (count == 0) return;
    const SparseRows rows(voxels, threads);
    parallel_tasks<NoWorkspace>(count, threads, [&](NoWorkspace &, i64 k) {
        centroid(voxels, rows, peaks[k], radius, out + 3 * k);
    });
}

}  // namespace t3ssfast::cpu
