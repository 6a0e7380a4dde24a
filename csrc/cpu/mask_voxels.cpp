// The voxels of a mask: how many, where, and those in marked squares; marks where sums of images are high.
#include <algorithm>
#include <cstring>

#include "core/macros.h"
#include "cpu/masks.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

constexpr i64 kRowsPerTask = 32;
constexpr i64 kValuesPerTask = 1 << 14;
// Counts of so many values are sums of bytes.
constexpr i64 kBlock = 255;

struct NoWorkspace {};

T3_SIMD_CLONES i64 count_here(const std::uint8_t *values, i64 count) {
    i64 total = 0;
    for (i64 begin = 0; begin < count; begin += 32 * kBlock) {
        // One count for each of 32 columns of a block: bytes hold them, which sums over rows need not widen.
        std::uint8_t columns[32] = {};
        const i64 end = std::min(count, begin + 32 * kBlock), whole = begin + (end - begin) / 32 * 32;
        for (i64 row = begin; row < whole; row += 32)
            for (i64 k = 0; k < 32; ++k) columns[k] = static_cast<std::uint8_t>(columns[k] + (values[row + k] != 0));
        for (const std::uint8_t column : columns) total += column;
        for (i64 i = whole; i < end; ++i) total += values[i] != 0;
    }
    return total;
}

// Writes the numbers of the values of [begin, end) that are not 0 from `index` on, up to `last`.
void list_here(const std::uint8_t *values, i64 begin, i64 end, i64 *index, const i64 *last) {
    i64 i = begin;
    while (index != last) {
        std::uint64_t eight = 1;
        if (end - i >= 8) std::memcpy(&eight, values + i, 8);
        if (eight == 0) {
            // Most are empty.
            i += 8;
        } else if (end - i >= 8 && last - index >= 8) {
            // What is written of a value that is 0 is written over.
            for (const i64 stop = i + 8; i < stop; ++i) {
                *index = i;
                index += values[i] != 0;
            }
        } else {
            if (values[i] != 0) *index++ = i;
            ++i;
        }
    }
}

T3_SIMD_CLONES void keep_marked(const std::uint8_t *mask, const std::uint8_t *marked, i64 count, std::uint8_t *out) {
    for (i64 x = 0; x < count; ++x) out[x] = static_cast<std::uint8_t>((mask[x] != 0) & marked[x]);
}

T3_SIMD_CLONES void mark_high_sums(const float *const *images, const double *weights, i64 images_count, i64 begin,
                                   i64 end, double limit, std::uint8_t *marks) {
    constexpr i64 kTogether = 64;
    double sums[kTogether];
    i64 i = begin;
    for (; i + kTogether <= end; i += kTogether) {
        for (i64 k = 0; k < kTogether; ++k) sums[k] = 0.0;
        for (i64 n = 0; n < images_count; ++n) {
            const float *const values = images[n] + i;
            const double weight = weights[n];
            for (i64 k = 0; k < kTogether; ++k) sums[k] += weight * static_cast<double>(values[k]);
        }
        for (i64 k = 0; k < kTogether; ++k) marks[i + k] = sums[k] >= limit ? 1 : 0;
    }
    for (; i < end; ++i) {
        double sum = 0.0;
        for (i64 n = 0; n < images_count; ++n) sum += weights[n] * static_cast<double>(images[n][i]);
        marks[i] = sum >= limit ? 1 : 0;
    }
}

// Which pixels of a row are marked.
struct MarkedRow {
    std::vector<std::uint8_t> pixels;

    // Squares of the plane in row y, of which pixel x is in the one of number column[x].
    void mark(const MarkedSquares &squares, i64 plane, i64 y, const std::vector<std::int32_t> &column) {
        const i64 columns = (static_cast<i64>(pixels.size()) + squares.side - 1) / squares.side;
        const std::uint8_t *const row =
            squares.planes[static_cast<std::size_t>(plane)] + y / squares.side * columns;
        for (std::size_t x = 0; x < pixels.size(); ++x)
            pixels[x] = static_cast<std::uint8_t>(pixels[x] & (row[column[x]] != 0));
    }
};

}  // namespace

void count_nonzero(const MaskParts &mask, i64 *counts, int threads) {
    parallel_tasks<NoWorkspace>(mask.parts(), threads, [&](NoWorkspace &, i64 part) {
        const i64 begin = part * mask.length;
        counts[part] = count_here(mask.values + begin, std::min(mask.length, mask.count - begin));
    });
}

void list_nonzero(const MaskParts &mask, const i64 *starts, i64 *index, int threads) {
    parallel_tasks<NoWorkspace>(mask.parts(), threads, [&](NoWorkspace &, i64 part) {
        const i64 begin = part * mask.length;
        list_here(mask.values, begin, std::min(mask.count, begin + mask.length), index + starts[part],
                  index + starts[part + 1]);
    });
}

void keep_in_squares(const MaskPlanes &planes, const std::vector<MarkedSquares> &squares, std::uint8_t *out,
                     int threads) {
    std::vector<std::vector<std::int32_t>> columns;
    for (const MarkedSquares &each : squares) {
        std::vector<std::int32_t> &column = columns.emplace_back(static_cast<std::size_t>(planes.width));
        for (i64 x = 0; x < planes.width; ++x)
            column[static_cast<std::size_t>(x)] = static_cast<std::int32_t>(x / each.side);
    }
    const i64 plane_count = (planes.depth + planes.offset + planes.thickness - 1) / planes.thickness;
    const i64 tasks = (planes.height + kRowsPerTask - 1) / kRowsPerTask;
    parallel_tasks<MarkedRow>(plane_count * tasks, threads, [&](MarkedRow &row, i64 task) {
        const i64 plane = task / tasks, first_row = task % tasks * kRowsPerTask;
        const i64 first = std::max<i64>(0, plane * planes.thickness - planes.offset);
        const i64 last = std::min(planes.depth, (plane + 1) * planes.thickness - planes.offset);
        for (i64 y = first_row; y < std::min(planes.height, first_row + kRowsPerTask); ++y) {
            const bool same_squares =
                y > first_row && std::all_of(squares.begin(), squares.end(), [&](const MarkedSquares &each) {
                    return y % each.side != 0;
                });
            if (!same_squares) {
                row.pixels.assign(static_cast<std::size_t>(planes.width), 1);
                for (std::size_t k = 0; k < squares.size(); ++k) row.mark(squares[k], plane, y, columns[k]);
            }
            for (i64 z = first; z < last; ++z) {
                const i64 start = (z * planes.height + y) * planes.width;
                keep_marked(planes.mask + start, row.pixels.data(), planes.width, out + start);
            }
        }
    });
}

void mark_high_sums(const WeightedImages &images, double limit, std::uint8_t *marks, int threads) {
    const i64 tasks = (images.count + kValuesPerTask - 1) / kValuesPerTask;
    parallel_tasks<NoWorkspace>(tasks, threads, [&](NoWorkspace &, i64 task) {
        const i64 begin = task * kValuesPerTask;
        mark_high_sums(images.values.data(), images.weights.data(), static_cast<i64>(images.values.size()), begin,
                       std::min(images.count, begin + kValuesPerTask), limit, marks);
    });
}

}  // namespace t3ssfast::cpu
