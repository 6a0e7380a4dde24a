// The voxels near a mask: squared distances along z, then y, then x (Felzenszwalb & Huttenlocher 2012).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/masks.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

#define T3_SIMD_KERNEL "cpu/near_mask_kernel.h"
#include "cpu/simd_dispatch.h"

// The columns [begin, end) outside of which a row is far from the mask along z.
struct Columns {
    i64 begin, end;
};

// `Step` holds reach + 1, and `Square` holds reach^2 + (reach + 1)^2.
template <typename Step, typename Square>
class NearMask {
  public:
    NearMask(const MaskRun &run, i64 reach, std::uint8_t *out)
        : run_(run),
          reach_(reach),
          far_(static_cast<Step>(reach + 1)),
          out_(out),
          nearest_(static_cast<std::size_t>(run.slices() * run.height * run.width), far_),
          columns_(static_cast<std::size_t>(run.slices() * run.height)) {}

    void compute(int threads) {
        parallel_tasks<std::vector<Step>>(run_.height, threads,
                                          [&](std::vector<Step> &distance, i64 y) { along_z(distance, y); });
        parallel_tasks<Scratch>(run_.slices() * run_.height, threads, [&](Scratch &scratch, i64 row) {
            along_rows(scratch, row / run_.height, row % run_.height);
        });
    }

  private:
    struct Scratch {
        std::vector<Square> squared, least;
    };

    Step *nearest(i64 z, i64 y) { return nearest_.data() + (z * run_.height + y) * run_.width; }

    // One row of every slice: sweeps upwards, then downwards.
    void along_z(std::vector<Step> &distance, i64 y) {
        const i64 width = run_.width;
        const auto sweep = [&](i64 z) {
            const std::uint8_t *mask = run_.mask + (z * run_.height + y) * width;
            Step *to = z >= run_.first && z < run_.end ? nearest(z - run_.first, y) : nullptr;
            T3_SIMD_DISPATCH(sweep_row, mask, width, far_, distance.data(), to);
        };
        distance.assign(static_cast<std::size_t>(width), far_);
        for (i64 z = 0; z < run_.end; ++z) sweep(z);
        distance.assign(static_cast<std::size_t>(width), far_);
        for (i64 z = run_.depth - 1; z >= run_.first; --z) sweep(z);
        for (i64 z = 0; z < run_.slices(); ++z) {
            const Step *row = nearest(z, y);
            i64 begin = 0, end = width;
            while (begin < end && row[begin] == far_) ++begin;
            while (begin < end && row[end - 1] == far_) --end;
            columns_[static_cast<std::size_t>(z * run_.height + y)] = {begin, end};
        }
    }

    void along_rows(Scratch &scratch, i64 z, i64 y) {
        const i64 width = run_.width, low = std::max<i64>(0, y - reach_), high = std::min(run_.height, y + reach_ + 1);
        std::uint8_t *const out = out_ + (z * run_.height + y) * width;
        i64 begin = width, end = 0;
        for (i64 row = low; row < high; ++row) {
            const Columns &columns = columns_[static_cast<std::size_t>(z * run_.height + row)];
            if (columns.begin >= columns.end) continue;
            begin = std::min(begin, columns.begin);
            end = std::max(end, columns.end);
        }
        std::fill_n(out, width, std::uint8_t{0});
        if (begin >= end) return;
        // The pixels that the row can be near to, and those that can be near; the former with a margin on both sides.
        const i64 first = std::max<i64>(0, begin - reach_), last = std::min(width, end + reach_), count = last - first;
        const Square nothing = static_cast<Square>(std::numeric_limits<Square>::max() - reach_ * reach_);
        scratch.squared.assign(static_cast<std::size_t>(count + 2 * reach_), nothing);
        Square *const squared = scratch.squared.data() + reach_;
        for (i64 row = low; row < high; ++row) {
            const Columns &columns = columns_[static_cast<std::size_t>(z * run_.height + row)];
            if (columns.begin >= columns.end) continue;
            T3_SIMD_DISPATCH(lower_by_row, nearest(z, row) + columns.begin, columns.end - columns.begin,
                             static_cast<Square>(std::abs(row - y)), squared + (columns.begin - first));
        }
        scratch.least.assign(squared, squared + count);
        // No two pixels of the row are farther from each other.
        const i64 farthest = std::min(reach_, count - 1);
        for (i64 step = 1; step <= farthest; ++step) {
            T3_SIMD_DISPATCH(lower_by_pixels, squared - step, count, static_cast<Square>(step), scratch.least.data());
            T3_SIMD_DISPATCH(lower_by_pixels, squared + step, count, static_cast<Square>(step), scratch.least.data());
        }
        T3_SIMD_DISPATCH(within_limit, scratch.least.data(), count, static_cast<Square>(run_.limit), out + first);
    }

    const MaskRun run_;
    const i64 reach_;
    const Step far_;
    std::uint8_t *const out_;
    // Distance along z, at most reach + 1, of each voxel of the slices [first, end); and where a row has smaller ones.
    std::vector<Step> nearest_;
    std::vector<Columns> columns_;
};

}  // namespace

void near_mask(const MaskRun &run, std::uint8_t *out, int threads) {
    const i64 reach = static_cast<i64>(std::sqrt(static_cast<double>(run.limit)));
    // 180^2 + 181^2 fits into 16 bits.
    if (run.limit <= 180 * 180)
        NearMask<std::uint8_t, std::uint16_t>(run, reach, out).compute(threads);
    else
        NearMask<std::uint16_t, std::uint32_t>(run, reach, out).compute(threads);
}

}  // namespace t3ssfast::cpu
