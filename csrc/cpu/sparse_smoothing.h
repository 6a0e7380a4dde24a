// Averages of values at some voxels of a volume with their neighbours along an axis; the other voxels count as zeros.
#pragma once

#include <cstdint>

#include "cpu/sparse_voxels.h"

namespace t3ssfast::cpu {

// A symmetric kernel: the weights at distances 0 to `radius`. `inside` holds the sum of the weights that lie in the
// volume, for each position along the axis.
struct SmoothingKernel {
    const double *weights;
    std::int64_t radius;
    const float *inside;
};

// out: the average at each of the voxels, along z, y or x (axis 0, 1 or 2). Sums are in double precision, from the
// farthest neighbours to the nearest, so that results depend neither on threads nor on the instruction set.
void smooth_along(const SparseVoxels &voxels, int axis, const SmoothingKernel &kernel, float *out, int threads);

}  // namespace t3ssfast::cpu
