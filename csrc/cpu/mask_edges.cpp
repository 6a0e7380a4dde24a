#include "cpu/mask_edges.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>

#include "core/macros.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

// Cubes of a block along z and y: a few MB for each thread, and not many cubes around it.
constexpr i64 kBlockZ = 16, kBlockY = 32;
// Boxes that one task sorts.
constexpr i64 kBoxesPerTask = 256;
constexpr i64 kEdgesPerTask = 1 << 14;

struct NoWorkspace {};

// Cubes [begin, end) along an axis.
struct Range {
    i64 begin, end;

    i64 length() const { return end - begin; }
    Range widened(i64 by, i64 limit) const { return {std::max<i64>(0, begin - by), std::min(limit, end + by)}; }
};

T3_SIMD_CLONES bool any_inside(const std::uint8_t *mask, i64 count) {
    std::uint8_t all = 0;
    for (i64 x = 0; x < count; ++x) all = static_cast<std::uint8_t>(all | mask[x]);
    return all != 0;
}

T3_SIMD_CLONES void add_inside(const std::uint8_t *mask, i64 count, std::uint32_t *inside) {
    for (i64 x = 0; x < count; ++x) inside[x] += mask[x] != 0 ? 1 : 0;
}

T3_SIMD_CLONES void weigh(const float *values, i64 count, double weight, double *sums) {
    for (i64 x = 0; x < count; ++x) sums[x] = static_cast<double>(values[x]) * weight;
}

T3_SIMD_CLONES void add_pair(const float *before, const float *after, i64 count, double weight, double *sums) {
    for (i64 x = 0; x < count; ++x)
        sums[x] += (static_cast<double>(before[x]) + static_cast<double>(after[x])) * weight;
}

T3_SIMD_CLONES void round_sums(const double *sums, i64 count, float *out) {
    for (i64 x = 0; x < count; ++x) out[x] = static_cast<float>(sums[x]);
}

T3_SIMD_CLONES void differentiate(const float *before, const float *after, i64 count, double distance, float *out) {
    for (i64 x = 0; x < count; ++x) out[x] = static_cast<float>(static_cast<double>(after[x] - before[x]) / distance);
}

T3_SIMD_CLONES void square_length(const float *z, const float *y, const float *x, i64 count, float *out) {
    for (i64 i = 0; i < count; ++i) out[i] = z[i] * z[i] + y[i] * y[i] + x[i] * x[i];
}

// Rows along x of a block. Those in which everything is 0 are not stored.
class Rows {
  public:
    void reset(Range z, Range y, i64 width) {
        z_ = z, y_ = y, width_ = width;
        values_.resize(static_cast<std::size_t>(z.length() * y.length() * width));
        filled_.assign(static_cast<std::size_t>(z.length() * y.length()), 0);
        zeros_.assign(static_cast<std::size_t>(width), 0.0f);
    }
    Range z() const { return z_; }
    Range y() const { return y_; }
    bool filled(i64 z, i64 y) const { return filled_[number(z, y)] != 0; }
    bool any_filled() const {
        return std::any_of(filled_.begin(), filled_.end(), [](std::uint8_t flag) { return flag != 0; });
    }
    const float *row(i64 z, i64 y) const {
        return filled(z, y) ? values_.data() + number(z, y) * static_cast<std::size_t>(width_) : zeros_.data();
    }
    // For a row that is to be filled.
    float *fill(i64 z, i64 y) {
        filled_[number(z, y)] = 1;
        return values_.data() + number(z, y) * static_cast<std::size_t>(width_);
    }

  private:
    std::size_t number(i64 z, i64 y) const {
        return static_cast<std::size_t>((z - z_.begin) * y_.length() + y - y_.begin);
    }

    Range z_{}, y_{};
    i64 width_ = 0;
    std::vector<float> values_, zeros_;
    std::vector<std::uint8_t> filled_;
};

}  // namespace

// Finds the edges of a block of cubes, complete rows along x.
class MaskEdges::Block {
  public:
    // Appends the edges among cubes z and y.
    void find(const EdgeGrid &grid, Range z, Range y, std::vector<Edge> &edges) {
        const auto &[axis_z, axis_y, axis_x] = grid.axes;
        width_ = axis_x.cubes();
        // A gradient depends on one cube on each side, and these on those that the blur reaches.
        const Range near_z = z.widened(1, axis_z.cubes()), near_y = y.widened(1, axis_y.cubes());
        const Range reached_y = near_y.widened(axis_y.radius, axis_y.cubes());
        means_.reset(near_z.widened(axis_z.radius, axis_z.cubes()), reached_y, width_);
        average_cubes(grid);
        if (!means_.any_filled()) return;
        blurred_z_.reset(near_z, reached_y, width_);
        blur_across(axis_z, true, means_, blurred_z_);
        blurred_.reset(near_z, near_y, width_);
        blur_across(axis_y, false, blurred_z_, blurred_);
        blur_rows(axis_x);
        for (i64 at_z = z.begin; at_z < z.end; ++at_z)
            for (i64 at_y = y.begin; at_y < y.end; ++at_y) find_in_row(grid, at_z, at_y, edges);
    }

  private:
    // The share of the voxels of each cube that are inside of the mask.
    void average_cubes(const EdgeGrid &grid) {
        const auto &[axis_z, axis_y, axis_x] = grid.axes;
        const i64 used = width_ * axis_x.step;
        const float voxels = static_cast<float>(axis_z.step * axis_y.step * axis_x.step);
        inside_.resize(static_cast<std::size_t>(used));
        for (i64 z = means_.z().begin; z < means_.z().end; ++z) {
            for (i64 y = means_.y().begin; y < means_.y().end; ++y) {
                bool filled = false;
                for (i64 k = 0; k < axis_z.step * axis_y.step; ++k) {
                    const i64 voxel_z = z * axis_z.step + k / axis_y.step, voxel_y = y * axis_y.step + k % axis_y.step;
                    const std::uint8_t *const row = grid.mask + (voxel_z * axis_y.voxels + voxel_y) * axis_x.voxels;
                    if (!any_inside(row, used)) continue;
                    if (!filled) std::fill(inside_.begin(), inside_.end(), 0u);
                    filled = true;
                    add_inside(row, used, inside_.data());
                }
                if (!filled) continue;
                float *const means = means_.fill(z, y);
                const std::uint32_t *inside = inside_.data();
                for (i64 x = 0; x < width_; ++x) {
                    std::uint32_t total = 0;
                    for (i64 k = 0; k < axis_x.step; ++k) total += *inside++;
                    means[x] = static_cast<float>(total) / voxels;
                }
            }
        }
    }

    // Averages rows with others along z or y.
    void blur_across(const EdgeAxis &axis, bool along_z, const Rows &in, Rows &out) {
        sums_.resize(static_cast<std::size_t>(width_));
        for (i64 z = out.z().begin; z < out.z().end; ++z) {
            for (i64 y = out.y().begin; y < out.y().end; ++y) {
                const i64 own = along_z ? z : y, last = axis.cubes() - 1;
                const auto filled = [&](i64 n) { return along_z ? in.filled(n, y) : in.filled(z, n); };
                const auto row = [&](i64 n) { return along_z ? in.row(n, y) : in.row(z, n); };
                bool started = false;
                for (i64 distance = axis.radius; distance >= 0; --distance) {
                    const i64 before = std::max<i64>(0, own - distance), after = std::min(last, own + distance);
                    if (!filled(before) && !filled(after)) continue;
                    if (!started) weigh(row(own), width_, axis.weights[0], sums_.data());
                    started = true;
                    if (distance > 0) add_pair(row(before), row(after), width_, axis.weights[distance], sums_.data());
                }
                if (started) round_sums(sums_.data(), width_, out.fill(z, y));
            }
        }
    }

    // Averages along the rows.
    void blur_rows(const EdgeAxis &axis) {
        padded_.resize(static_cast<std::size_t>(width_ + 2 * axis.radius));
        float *const values = padded_.data() + axis.radius;
        for (i64 z = blurred_.z().begin; z < blurred_.z().end; ++z) {
            for (i64 y = blurred_.y().begin; y < blurred_.y().end; ++y) {
                if (!blurred_.filled(z, y)) continue;
                float *const row = blurred_.fill(z, y);
                std::copy(row, row + width_, values);
                std::fill(padded_.data(), values, row[0]);
                std::fill(values + width_, values + width_ + axis.radius, row[width_ - 1]);
                weigh(values, width_, axis.weights[0], sums_.data());
                for (i64 distance = axis.radius; distance > 0; --distance)
                    add_pair(values - distance, values + distance, width_, axis.weights[distance], sums_.data());
                round_sums(sums_.data(), width_, row);
            }
        }
    }

    void find_in_row(const EdgeGrid &grid, i64 z, i64 y, std::vector<Edge> &edges) {
        const auto &[axis_z, axis_y, axis_x] = grid.axes;
        const Range near_z = Range{z, z + 1}.widened(1, axis_z.cubes());
        const Range near_y = Range{y, y + 1}.widened(1, axis_y.cubes());
        bool filled = false;
        for (i64 n = near_z.begin; n < near_z.end; ++n) filled |= blurred_.filled(n, y);
        for (i64 n = near_y.begin; n < near_y.end; ++n) filled |= blurred_.filled(z, n);
        if (!filled) return;
        for (auto *values : {&gradient_[0], &gradient_[1], &gradient_[2], &squared_})
            values->assign(static_cast<std::size_t>(width_), 0.0f);
        // Central differences; at the ends of the volume, those between the last two.
        const auto difference = [&](const EdgeAxis &axis, Range near, const float *first, const float *last, i64 count,
                                    float *out) {
            const double cubes = static_cast<double>(near.length() - 1);
            if (near.length() > 1) differentiate(first, last, count, cubes * axis.spacing, out);
        };
        difference(axis_z, near_z, blurred_.row(near_z.begin, y), blurred_.row(near_z.end - 1, y), width_,
                   gradient_[0].data());
        difference(axis_y, near_y, blurred_.row(z, near_y.begin), blurred_.row(z, near_y.end - 1), width_,
                   gradient_[1].data());
        const float *const row = blurred_.row(z, y);
        float *const along_x = gradient_[2].data();
        if (width_ > 1) {
            difference(axis_x, {0, 2}, row, row + 1, 1, along_x);
            difference(axis_x, {0, 3}, row, row + 2, width_ - 2, along_x + 1);
            difference(axis_x, {0, 2}, row + width_ - 2, row + width_ - 1, 1, along_x + width_ - 1);
        }
        square_length(gradient_[0].data(), gradient_[1].data(), along_x, width_, squared_.data());
        for (i64 x = 0; x < width_; ++x) {
            const auto i = static_cast<std::size_t>(x);
            if (!(squared_[i] > grid.min_squared)) continue;
            edges.push_back({{static_cast<std::int32_t>(z), static_cast<std::int32_t>(y), static_cast<std::int32_t>(x)},
                             {gradient_[0][i], gradient_[1][i], gradient_[2][i]}});
        }
    }

    i64 width_ = 0;
    Rows means_, blurred_z_, blurred_;
    std::vector<std::uint32_t> inside_;
    std::vector<double> sums_;
    std::vector<float> padded_, squared_;
    std::array<std::vector<float>, 3> gradient_;
};

MaskEdges::MaskEdges(const EdgeGrid &grid, int threads) : grid_(grid) {
    const i64 depth = grid.axes[0].cubes(), height = grid.axes[1].cubes();
    if (depth == 0 || height == 0 || grid.axes[2].cubes() == 0) return;
    const i64 across = (height + kBlockY - 1) / kBlockY, blocks = (depth + kBlockZ - 1) / kBlockZ * across;
    found_.resize(static_cast<std::size_t>(blocks));
    parallel_tasks<Block>(blocks, threads, [&](Block &block, i64 task) {
        const i64 z = task / across * kBlockZ, y = task % across * kBlockY;
        std::vector<Edge> &edges = found_[static_cast<std::size_t>(task)];
        block.find(grid, {z, std::min(depth, z + kBlockZ)}, {y, std::min(height, y + kBlockY)}, edges);
        edges.shrink_to_fit();
    });
    sort(threads);
}

i64 MaskEdges::box_of(const Edge &edge) const {
    const auto number = [&](std::size_t axis) { return grid_.axes[axis].box[edge.cube[axis]]; };
    return (number(0) * grid_.axes[1].boxes + number(1)) * grid_.axes[2].boxes + number(2);
}

// Sets sorted_: by box, then by z, y and x.
void MaskEdges::sort(int threads) {
    const i64 boxes = grid_.axes[0].boxes * grid_.axes[1].boxes * grid_.axes[2].boxes;
    const i64 blocks = static_cast<i64>(found_.size());
    // Of each box: its edges, then where those that are not placed yet begin.
    std::vector<std::atomic<i64>> next(static_cast<std::size_t>(boxes));
    const auto of_box = [&](const Edge &edge) -> std::atomic<i64> & {
        return next[static_cast<std::size_t>(box_of(edge))];
    };
    for (std::atomic<i64> &count : next) count.store(0, std::memory_order_relaxed);
    parallel_tasks<NoWorkspace>(blocks, threads, [&](NoWorkspace &, i64 block) {
        for (const Edge &edge : found_[static_cast<std::size_t>(block)])
            of_box(edge).fetch_add(1, std::memory_order_relaxed);
    });
    std::vector<i64> starts;
    starts.reserve(static_cast<std::size_t>(boxes + 1));
    i64 total = 0;
    for (std::atomic<i64> &count : next) {
        starts.push_back(total);
        total += count.exchange(total, std::memory_order_relaxed);
    }
    starts.push_back(total);
    sorted_.resize(static_cast<std::size_t>(total));
    parallel_tasks<NoWorkspace>(blocks, threads, [&](NoWorkspace &, i64 block) {
        for (const Edge &edge : found_[static_cast<std::size_t>(block)])
            sorted_[static_cast<std::size_t>(of_box(edge).fetch_add(1, std::memory_order_relaxed))] = &edge;
    });
    parallel_tasks<NoWorkspace>((boxes + kBoxesPerTask - 1) / kBoxesPerTask, threads, [&](NoWorkspace &, i64 task) {
        for (i64 box = task * kBoxesPerTask; box < std::min(boxes, (task + 1) * kBoxesPerTask); ++box) {
            const auto begin = sorted_.begin() + starts[static_cast<std::size_t>(box)];
            const auto end = sorted_.begin() + starts[static_cast<std::size_t>(box + 1)];
            std::sort(begin, end, [](const Edge *a, const Edge *b) { return a->cube < b->cube; });
        }
    });
}

void MaskEdges::write(i64 *box, float *rows, int threads) const {
    const i64 total = count();
    parallel_tasks<NoWorkspace>((total + kEdgesPerTask - 1) / kEdgesPerTask, threads, [&](NoWorkspace &, i64 task) {
        for (i64 i = task * kEdgesPerTask; i < std::min(total, (task + 1) * kEdgesPerTask); ++i) {
            const Edge &edge = *sorted_[static_cast<std::size_t>(i)];
            const auto &[z, y, x] = edge.gradient;
            const float length = std::sqrt(z * z + y * y + x * x);
            box[i] = box_of(edge);
            for (std::size_t axis = 0; axis < 3; ++axis) {
                rows[static_cast<i64>(axis) * total + i] = grid_.axes[axis].position[edge.cube[axis]];
                rows[static_cast<i64>(axis + 3) * total + i] = edge.gradient[axis] / length;
            }
            rows[6 * total + i] = length;
        }
    });
}

}  // namespace t3ssfast::cpu
