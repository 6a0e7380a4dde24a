// Some voxels of a volume, each with a value, and the rows along x that they lie in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace t3ssfast::cpu {

// Values at voxels whose flat (z, y, x) indices ascend.
struct SparseVoxels {
    const std::int64_t *index;
    const float *value;
    std::int64_t count;
    std::int64_t height, width;
};

// Rows of the slices from that of the first voxel to that of the last, in order, and where their voxels begin.
class SparseRows {
  public:
    // There must be a voxel.
    SparseRows(const SparseVoxels &voxels, int threads);

    std::int64_t first_slice() const { return first_slice_; }
    std::int64_t slices() const { return slices_; }
    // Number of the first voxel of a row; the voxels of the row end at start(row + 1).
    std::int64_t start(std::int64_t row) const { return starts_[static_cast<std::size_t>(row)]; }

  private:
    std::int64_t first_slice_, slices_;
    std::vector<std::int64_t> starts_;
};

// Whether indices ascend.
bool ascend(const std::int64_t *index, std::int64_t count, int threads);

// Sets columns[y * width + x] to 1 for each voxel at or above `floor`.
void mark_columns(const SparseVoxels &voxels, float floor, std::uint8_t *columns, int threads);

// out: 1 where a column that is marked in one of the planes is at most `reach` away along y and along x. Marks are 0 or 1.
void widen_columns(const std::vector<const std::uint8_t *> &planes, std::int64_t height, std::int64_t width,
                   std::int64_t reach, std::uint8_t *out, int threads);

// Which voxels are kept: those in marked columns, or without `columns` those at or above `floor`.
struct KeptVoxels {
    const std::uint8_t *columns;
    float floor;
};

// How many voxels of each slice are kept, from that of the first voxel to that of the last.
std::vector<std::int64_t> count_kept(const SparseVoxels &voxels, const KeptVoxels &kept, int threads);

// Writes the kept voxels of each of these slices from its entry of `starts` on.
void write_kept(const SparseVoxels &voxels, const KeptVoxels &kept, const std::int64_t *starts, std::int64_t *index,
                float *value, int threads);

// Numbers of the voxels that are at or above `threshold` and above 0, and that none of their 26 neighbours exceeds,
// ascending. Of neighbours with one value, the first is a maximum.
std::vector<std::int64_t> local_maxima(const SparseVoxels &voxels, float threshold, int threads);

// out: (count, 3), z, y and x of the centroid around each of the `peaks`, which are numbers of voxels. A voxel within
// `radius` of the peak weighs as much as its value exceeds half of the peak's.
void centroids(const SparseVoxels &voxels, const std::int64_t *peaks, std::int64_t count, std::int64_t radius,
               double *out, int threads);

}  // namespace t3ssfast::cpu
