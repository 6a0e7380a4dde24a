// The three groups of statistics: moments, extrema and order statistics. `plane_count` is the number of output planes
// of all groups.
#pragma once

#include <memory>
#include <vector>

#include "cpu/window_statistics/tiles.h"

namespace t3ssfast::cpu {

constexpr int kMomentKinds = 6;

struct MomentPlane {
    i64 slot;
    int kind;  // 0 .. kMomentKinds - 1, in the order of Statistic
};

struct ExtremaPlanes {
    std::vector<i64> low, high, range;
};

struct OrderPlane {
    i64 slot;
    double fraction;
    bool median;
};

// The work of one group in one call: independent tasks that write the group's planes of the output. A thread creates
// one workspace for all tasks that it runs.
class StatisticTasks {
public:
    class Workspace {
    public:
        virtual ~Workspace() = default;
    };

    virtual ~StatisticTasks() = default;
    virtual i64 tasks() const = 0;
    virtual std::unique_ptr<Workspace> make_workspace() const = 0;
    virtual void run(Workspace &workspace, i64 task) const = 0;
};

std::unique_ptr<StatisticTasks> moment_tasks(const Images &images, i64 size, std::vector<MomentPlane> planes,
                                             i64 plane_count, const WindowList &windows, const Output &output);

std::unique_ptr<StatisticTasks> extrema_tasks(const Images &images, i64 size, ExtremaPlanes planes, i64 plane_count,
                                              const WindowList &windows, const Output &output);

std::unique_ptr<StatisticTasks> order_statistic_tasks(const Images &images, i64 size, std::vector<OrderPlane> planes,
                                                      i64 plane_count, const WindowList &windows, const Output &output);

}  // namespace t3ssfast::cpu
