// The three families of statistics, each over the tiles of all images; `plane_count` is the number of planes of all
// families.
#pragma once

#include <memory>
#include <vector>

#include "cpu/window_statistics/tiles.h"

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

// A family's work on one call: independent tasks, which write their planes of the output. A thread makes itself one
// memory for all the tasks that it does.
class Family {
public:
    class Memory {
    public:
        virtual ~Memory() = default;
    };

    virtual ~Family() = default;
    virtual i64 tasks() const = 0;
    virtual std::unique_ptr<Memory> memory() const = 0;
    virtual void run(Memory &memory, i64 task) const = 0;
};

std::unique_ptr<Family> moments(const Images &images, i64 size, std::vector<MomentPlane> planes, i64 plane_count,
                                const WindowList &windows, const Output &output);

std::unique_ptr<Family> extrema(const Images &images, i64 size, ExtremaPlanes planes, i64 plane_count,
                                const WindowList &windows, const Output &output);

std::unique_ptr<Family> order_statistics(const Images &images, i64 size, std::vector<OrderPlane> planes, i64 plane_count,
                                         const WindowList &windows, const Output &output);

}  // namespace t3ssfast::cpu
