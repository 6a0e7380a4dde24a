// Edges of a mask: where the gradient of the blurred mask is steep, on a coarser grid of cubes of voxels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace t3ssfast::cpu {

struct EdgeAxis {
    std::int64_t voxels;  // length of the mask
    std::int64_t step;    // voxels of a cube; an incomplete cube at the end is left out
    double spacing;       // of cubes
    // Of the symmetric blur, at distances of 0 to `radius` cubes. Beyond the ends the outermost cubes repeat.
    const double *weights;
    std::int64_t radius;
    // By cube: its position, and the number of its box.
    const float *position;
    const std::int64_t *box;
    std::int64_t boxes;

    std::int64_t cubes() const { return voxels / step; }
};

// A mask, non-zero inside, along z, y and x.
struct EdgeGrid {
    const std::uint8_t *mask;
    std::array<EdgeAxis, 3> axes;
    float min_squared;  // edges have a squared gradient above this
};

// The cube means are blurred and differentiated in the precision and order of scipy.ndimage.gaussian_filter and
// numpy.gradient on float32, so that results depend neither on threads nor on the instruction set.
class MaskEdges {
  public:
    MaskEdges(const EdgeGrid &grid, int threads);

    std::int64_t count() const { return static_cast<std::int64_t>(sorted_.size()); }

    // Writes the edges by box, z, y and x: the number of each edge's box, and rows (7, count) of its position, the
    // direction of the gradient, and the length of the gradient.
    void write(std::int64_t *box, float *rows, int threads) const;

  private:
    struct Edge {
        std::array<std::int32_t, 3> cube;
        std::array<float, 3> gradient;
    };
    class Block;

    std::int64_t box_of(const Edge &edge) const;
    void sort(int threads);

    const EdgeGrid grid_;
    // Those of each block of cubes, and all of them by box.
    std::vector<std::vector<Edge>> found_;
    std::vector<const Edge *> sorted_;
};

}  // namespace t3ssfast::cpu
