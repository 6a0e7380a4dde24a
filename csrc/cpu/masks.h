// Masks of 8 bits on the CPU: the voxels near one, counts of levels, and thresholds. For components see cpu/mask_components.h.
#pragma once

#include <cstdint>

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

}  // namespace t3ssfast::cpu
