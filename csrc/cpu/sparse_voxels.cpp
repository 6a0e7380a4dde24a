#include "cpu/sparse_voxels.h"

#include <algorithm>
#include <atomic>

#include "core/macros.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

constexpr i64 kIndicesPerTask = 1 << 18;
constexpr i64 kRowsPerTask = 32;

struct NoWorkspace {};

T3_SIMD_CLONES bool ascend_here(const i64 *index, i64 count) {
    bool ascending = true;
    for (i64 i = 0; i < count; ++i) ascending &= index[i] < index[i + 1];
    return ascending;
}

T3_SIMD_CLONES void join_marks(const std::uint8_t *marks, i64 count, std::uint8_t *out) {
    for (i64 x = 0; x < count; ++x) out[x] = static_cast<std::uint8_t>(out[x] | marks[x]);
}

// The voxels of a slice: numbers [begin, end), and the index of its first column.
struct SliceVoxels {
    i64 begin, end, first;
};

i64 slices_of(const SparseVoxels &voxels) {
    const i64 plane = voxels.height * voxels.width;
    return voxels.count == 0 ? 0 : voxels.index[voxels.count - 1] / plane + 1 - voxels.index[0] / plane;
}

// Calls task(k, slice) for each slice from that of the first voxel to that of the last.
template <typename Task>
void each_slice(const SparseVoxels &voxels, int threads, Task task) {
    const i64 plane = voxels.height * voxels.width, *const end = voxels.index + voxels.count;
    parallel_tasks<NoWorkspace>(slices_of(voxels), threads, [&](NoWorkspace &, i64 k) {
        const i64 first = (voxels.index[0] / plane + k) * plane;
        const i64 *const begin = std::lower_bound(voxels.index, end, first);
        task(k, SliceVoxels{begin - voxels.index, std::lower_bound(begin, end, first + plane) - voxels.index, first});
    });
}

// Calls found(i) for each voxel of a slice that is kept.
template <typename Found>
void each_kept(const SparseVoxels &voxels, const KeptVoxels &kept, const SliceVoxels &slice, Found found) {
    if (kept.columns != nullptr) {
        for (i64 i = slice.begin; i < slice.end; ++i)
            if (kept.columns[voxels.index[i] - slice.first] != 0) found(i);
    } else {
        for (i64 i = slice.begin; i < slice.end; ++i)
            if (voxels.value[i] >= kept.floor) found(i);
    }
}

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

bool ascend(const i64 *index, i64 count, int threads) {
    std::atomic<bool> ascending{true};
    const i64 pairs = std::max<i64>(0, count - 1);
    parallel_tasks<NoWorkspace>((pairs + kIndicesPerTask - 1) / kIndicesPerTask, threads, [&](NoWorkspace &, i64 task) {
        const i64 begin = task * kIndicesPerTask;
        if (!ascend_here(index + begin, std::min(kIndicesPerTask, pairs - begin))) ascending = false;
    });
    return ascending;
}

void mark_columns(const SparseVoxels &voxels, float floor, std::uint8_t *columns, int threads) {
    const i64 plane = voxels.height * voxels.width;
    // Several slices may mark a column at a time.
    std::vector<std::atomic<std::uint8_t>> marks(static_cast<std::size_t>(plane));
    for (std::atomic<std::uint8_t> &mark : marks) mark.store(0, std::memory_order_relaxed);
    each_slice(voxels, threads, [&](i64, const SliceVoxels &slice) {
        for (i64 i = slice.begin; i < slice.end; ++i) {
            if (voxels.value[i] >= floor)
                marks[static_cast<std::size_t>(voxels.index[i] - slice.first)].store(1, std::memory_order_relaxed);
        }
    });
    for (i64 i = 0; i < plane; ++i)
        if (marks[static_cast<std::size_t>(i)].load(std::memory_order_relaxed) != 0) columns[i] = 1;
}

void widen_columns(const std::vector<const std::uint8_t *> &planes, i64 height, i64 width, i64 reach,
                   std::uint8_t *out, int threads) {
    struct Scratch {
        std::vector<std::uint8_t> row;
    };
    parallel_tasks<Scratch>((height + kRowsPerTask - 1) / kRowsPerTask, threads, [&](Scratch &scratch, i64 task) {
        for (i64 y = task * kRowsPerTask; y < std::min(height, (task + 1) * kRowsPerTask); ++y) {
            scratch.row.assign(static_cast<std::size_t>(width), 0);
            std::uint8_t *const row = scratch.row.data(), *const widened = out + y * width;
            for (i64 other = std::max<i64>(0, y - reach); other <= std::min(height - 1, y + reach); ++other)
                for (const std::uint8_t *const plane : planes) join_marks(plane + other * width, width, row);
            std::copy(row, row + width, widened);
            for (i64 distance = 1; distance <= std::min(reach, width - 1); ++distance) {
                join_marks(row, width - distance, widened + distance);
                join_marks(row + distance, width - distance, widened);
            }
        }
    });
}

std::vector<i64> count_kept(const SparseVoxels &voxels, const KeptVoxels &kept, int threads) {
    std::vector<i64> counts(static_cast<std::size_t>(slices_of(voxels)), 0);
    each_slice(voxels, threads, [&](i64 k, const SliceVoxels &slice) {
        i64 count = 0;
        each_kept(voxels, kept, slice, [&](i64) { ++count; });
        counts[static_cast<std::size_t>(k)] = count;
    });
    return counts;
}

void write_kept(const SparseVoxels &voxels, const KeptVoxels &kept, const i64 *starts, i64 *index, float *value,
                int threads) {
    each_slice(voxels, threads, [&](i64 k, const SliceVoxels &slice) {
        i64 next = starts[k];
        each_kept(voxels, kept, slice, [&](i64 i) {
            index[next] = voxels.index[i];
            value[next++] = voxels.value[i];
        });
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
