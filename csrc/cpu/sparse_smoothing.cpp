#include "cpu/sparse_smoothing.h"

#include <algorithm>
#include <vector>

#include "core/macros.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Voxels of a row closer than this are averaged together with those between, which is faster than one by one.
constexpr i64 kGap = 16;

T3_SIMD_CLONES void weigh(const float *values, i64 count, double weight, double *sums) {
    for (i64 x = 0; x < count; ++x) sums[x] = static_cast<double>(values[x]) * weight;
}

T3_SIMD_CLONES void add_pair(const float *before, const float *after, i64 count, double weight, double *sums) {
    for (i64 x = 0; x < count; ++x)
        sums[x] += (static_cast<double>(before[x]) + static_cast<double>(after[x])) * weight;
}

class SparseSmoothing {
  public:
    SparseSmoothing(const SparseVoxels &voxels, const SmoothingKernel &kernel, float *out, int threads)
        : voxels_(voxels), rows_(voxels, threads), kernel_(kernel), out_(out) {}

    void along_z(int threads) const {
        parallel_tasks<Scratch>(voxels_.height, threads, [&](Scratch &scratch, i64 y) {
            across_rows(scratch, {y, voxels_.height, rows_.slices(), kernel_.inside + rows_.first_slice()});
        });
    }

    void along_y(int threads) const {
        parallel_tasks<Scratch>(rows_.slices(), threads, [&](Scratch &scratch, i64 z) {
            across_rows(scratch, {z * voxels_.height, 1, voxels_.height, kernel_.inside});
        });
    }

    void along_x(int threads) const {
        parallel_tasks<Scratch>(rows_.slices(), threads, [&](Scratch &scratch, i64 z) {
            for (i64 y = 0; y < voxels_.height; ++y) along_row(scratch, z * voxels_.height + y);
        });
    }

  private:
    struct Scratch {
        std::vector<float> dense, zeros;
        std::vector<double> sums;
    };

    // Rows that are neighbours along an axis, and the sum of the weights inside of the volume at each.
    struct Rows {
        i64 first, step, count;
        const float *inside;
    };

    i64 start(i64 row) const { return rows_.start(row); }

    i64 column(i64 row, i64 i) const { return voxels_.index[i] - (rows_.first_slice() * voxels_.height + row) * voxels_.width; }

    // Writes the voxels of a row to `dense`, which holds zeros.
    void lay_out(i64 row, float *dense) const {
        for (i64 i = start(row); i < start(row + 1); ++i) dense[column(row, i)] = voxels_.value[i];
    }

    // Calls average(first column, end) for each group of voxels of a row, which leaves the sums from the first column
    // on in `sums`, and divides these by inside(column).
    template <typename Average, typename Inside>
    void each_group(i64 row, const double *sums, Average average, Inside inside) const {
        const i64 last = start(row + 1);
        for (i64 i = start(row); i < last;) {
            i64 next = i + 1;
            while (next < last && voxels_.index[next] - voxels_.index[next - 1] <= kGap) ++next;
            const i64 begin = column(row, i);
            average(begin, column(row, next - 1) + 1);
            for (; i < next; ++i) {
                const i64 x = column(row, i);
                out_[i] = static_cast<float>(sums[x - begin]) / inside(x);
            }
        }
    }

    void across_rows(Scratch &scratch, const Rows &rows) const {
        const i64 width = voxels_.width;
        scratch.dense.assign(static_cast<std::size_t>(rows.count * width), 0.0f);
        scratch.zeros.resize(static_cast<std::size_t>(width));
        scratch.sums.resize(static_cast<std::size_t>(width));
        double *const sums = scratch.sums.data();
        const auto row = [&](i64 n) { return rows.first + n * rows.step; };
        const auto dense = [&](i64 n) { return scratch.dense.data() + n * width; };
        const auto holds_voxels = [&](i64 n) {
            return n >= 0 && n < rows.count && start(row(n)) < start(row(n) + 1);
        };
        for (i64 n = 0; n < rows.count; ++n) lay_out(row(n), dense(n));
        for (i64 n = 0; n < rows.count; ++n) {
            const auto average = [&](i64 begin, i64 end) {
                weigh(dense(n) + begin, end - begin, kernel_.weights[0], sums);
                for (i64 distance = kernel_.radius; distance > 0; --distance) {
                    const bool before = holds_voxels(n - distance), after = holds_voxels(n + distance);
                    if (!before && !after) continue;
                    const float *const zeros = scratch.zeros.data();
                    add_pair((before ? dense(n - distance) : zeros) + begin,
                             (after ? dense(n + distance) : zeros) + begin, end - begin, kernel_.weights[distance],
                             sums);
                }
            };
            each_group(row(n), sums, average, [&](i64) { return rows.inside[n]; });
        }
    }

    void along_row(Scratch &scratch, i64 row) const {
        if (start(row) == start(row + 1)) return;
        scratch.dense.assign(static_cast<std::size_t>(voxels_.width + 2 * kernel_.radius), 0.0f);
        scratch.sums.resize(static_cast<std::size_t>(voxels_.width));
        float *const dense = scratch.dense.data() + kernel_.radius;
        double *const sums = scratch.sums.data();
        lay_out(row, dense);
        const auto average = [&](i64 begin, i64 end) {
            weigh(dense + begin, end - begin, kernel_.weights[0], sums);
            for (i64 distance = kernel_.radius; distance > 0; --distance)
                add_pair(dense + begin - distance, dense + begin + distance, end - begin, kernel_.weights[distance],
                         sums);
        };
        each_group(row, sums, average, [&](i64 x) { return kernel_.inside[x]; });
    }

    const SparseVoxels voxels_;
    const SparseRows rows_;
    const SmoothingKernel kernel_;
    float *const out_;
};

}  // namespace

void smooth_along(const SparseVoxels &voxels, int axis, const SmoothingKernel &kernel, float *out, int threads) {
    if (voxels.count == 0) return;
    const SparseSmoothing smoothing(voxels, kernel, out, threads);
    if (axis == 0)
        smoothing.along_z(threads);
    else if (axis == 1)
        smoothing.along_y(threads);
    else
        smoothing.along_x(threads);
}

}  // namespace t3ssfast::cpu
