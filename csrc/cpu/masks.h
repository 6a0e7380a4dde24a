// Masks of 8 bits on the CPU: their voxels, those near them, counts of levels, and thresholds. For components see
// cpu/mask_components.h.
#pragma once

#include <cstdint>
#include <vector>

namespace t3ssfast::cpu {

// Slices of a mask, non-zero inside, and those of them, [first, end), that are asked for.
struct MaskRun {
    const std::uint8_t *mask;
    std::int64_t depth, height, width;
    std::int64_t first, end;
    std::int64_t limit;  // largest squared distance in voxels, at most that of two corners

    std::int64_t slices() const { return end - first; }
};

// out: slices [first, end), 1 where the centre of a voxel of the mask is within the distance, otherwise 0.
void near_mask(const MaskRun &run, std::uint8_t *out, int threads);

// Adds to each of the 256 `counts` how many values have that level.
void count_levels(const std::uint8_t *levels, std::int64_t count, std::int64_t *counts, int threads);

// Replaces each level by how many of two thresholds it exceeds: 0, 1 or 2. Needs no memory, so that it never stops
// halfway.
void threshold_levels(std::uint8_t *levels, std::int64_t count, std::uint8_t lower, std::uint8_t upper, int threads);

// Values of a mask, in parts of equal length; the last part may be shorter.
struct MaskParts {
    const std::uint8_t *values;
    std::int64_t count, length;

    std::int64_t parts() const { return (count + length - 1) / length; }
};

// counts: how many values of each part are not 0.
void count_nonzero(const MaskParts &mask, std::int64_t *counts, int threads);

// index: the numbers of the values that are not 0, ascending; those of each part from its entry of `starts` to the next
// one.
void list_nonzero(const MaskParts &mask, const std::int64_t *starts, std::int64_t *index, int threads);

// Slices of a mask. Those with numbers p * thickness <= z + offset < (p + 1) * thickness belong to plane p.
struct MaskPlanes {
    const std::uint8_t *mask;
    std::int64_t depth, height, width;
    std::int64_t offset, thickness;
};

// Squares of side x side pixels that cover a slice, non-zero where marked, for each plane. The last ones along y and x
// may reach beyond the slice.
struct MarkedSquares {
    std::vector<const std::uint8_t *> planes;
    std::int64_t side;
};

// out: 1 where the mask is not 0 and each of `squares` is marked in the plane of the slice, otherwise 0.
void keep_in_squares(const MaskPlanes &planes, const std::vector<MarkedSquares> &squares, std::uint8_t *out,
                     int threads);

// Images of `count` values each, and the weight of each image.
struct WeightedImages {
    std::vector<const float *> values;
    std::vector<double> weights;
    std::int64_t count;
};

// marks: 1 where the sum of the weighted images, added in their order in double precision, is at least `limit`,
// otherwise 0.
void mark_high_sums(const WeightedImages &images, double limit, std::uint8_t *marks, int threads);

}  // namespace t3ssfast::cpu
