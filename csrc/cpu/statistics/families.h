// The three families of statistics. Each goes over the tiles of all images and writes its planes of the output;
// `plane_count` is the number of planes of all families.
#pragma once

#include <vector>

#include "cpu/statistics/tiles.h"

namespace t3ssfast::cpu {

constexpr int kMomentKinds = 6;

struct MomentPlane {
    i64 slot;
    int kind;  // 0 .. kMomentKinds - 1, the order of Statistic
};

struct ExtremaPlanes {
    std::vector<i64> low, high, range;
};

struct OrderPlane {
    i64 slot;
    double fraction;
    bool median;
};

void moments(const Images &images, i64 size, const std::vector<MomentPlane> &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads);

void extrema(const Images &images, i64 size, const ExtremaPlanes &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads);

void order_statistics(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                      const WindowList &windows, const Output &output, int threads);

}  // namespace t3ssfast::cpu
