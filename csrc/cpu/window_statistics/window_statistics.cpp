// window_statistics on the CPU: assigns statistics to groups, and checks the input.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "backend.h"
#include "cpu/parallel.h"
#include "cpu/window_statistics/tasks.h"

namespace t3ssfast::cpu {
namespace {

T3_SIMD_CLONES bool all_finite(const float *values, i64 count) {
    std::uint32_t bad = 0;
    for (i64 i = 0; i < count; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, values + i, sizeof(bits));
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return bad == 0;
}

// Search for NaN and Inf, block by block, by any number of threads.
class FiniteCheck {
public:
    FiniteCheck(const float *values, i64 count)
        : values_(values), count_(count), blocks_((count + kBlock - 1) / kBlock), first_bad_(blocks_) {}

    i64 blocks() const { return blocks_; }

    void run(i64 block) {
        const bool needed = block < first_bad_.load();
        if (needed && !all_finite(values_ + block * kBlock, std::min(kBlock, count_ - block * kBlock))) {
            for (i64 known = first_bad_.load(); block < known && !first_bad_.compare_exchange_weak(known, block);) {
            }
        }
        ++done_;
    }

    // Waits for blocks that other threads are checking; false if one is bad. Call it only after every block was
    // started.
    bool passed() const {
        while (done_.load() < blocks_) std::this_thread::yield();
        return first_bad_.load() == blocks_;
    }

    // Index of the first NaN or Inf.
    std::optional<i64> first() const {
        for (i64 i = first_bad_.load() * kBlock; i < count_; ++i) {
            if (!all_finite(values_ + i, 1)) return i;
        }
        return std::nullopt;
    }

private:
    static constexpr i64 kBlock = 1 << 16;

    const float *values_;
    i64 count_, blocks_;
    std::atomic<i64> first_bad_, done_{0};
};

struct NoWorkspace {};

// Runs the blocks of the check, then the tasks of all groups in order. No task starts before all blocks are known to be
// finite.
void run_tasks(FiniteCheck &check, const std::vector<std::unique_ptr<StatisticTasks>> &groups, int threads) {
    struct Scratch {
        std::size_t group = 0;
        std::unique_ptr<StatisticTasks::Workspace> workspace;
    };
    i64 count = 0;
    for (const auto &group : groups) count += group->tasks();
    // Waking a thread takes as long as checking several blocks, so the check alone uses one thread.
    const int team = static_cast<int>(std::min<i64>(usable_threads(threads), count));
    parallel_tasks<Scratch>(check.blocks() + count, team, [&](Scratch &scratch, i64 task) {
        if (task < check.blocks()) return check.run(task);
        if (!check.passed()) return;
        task -= check.blocks();
        std::size_t k = 0;
        for (; task >= groups[k]->tasks(); ++k) task -= groups[k]->tasks();
        // Tasks are started in order, so a group that was left does not return.
        if (scratch.workspace == nullptr || scratch.group != k) {
            scratch.workspace = groups[k]->make_workspace();
            scratch.group = k;
        }
        groups[k]->run(*scratch.workspace, task);
    });
}

}  // namespace

std::optional<i64> window_statistics(ImageStack<const float> images, i64 size,
                                     const std::vector<StatisticRequest> &statistics, WindowList windows, float *out,
                                     bool stream, bool check, int threads) {
    if (images.count == 0 || (!windows.dense() && windows.count == 0)) return std::nullopt;
    std::vector<MomentPlane> moment_planes;
    ExtremaPlanes extrema_planes;
    std::vector<OrderPlane> order_planes;
    const i64 planes = static_cast<i64>(statistics.size());
    for (i64 slot = 0; slot < planes; ++slot) {
        const StatisticRequest &request = statistics[slot];
        switch (request.kind) {
            case Statistic::min: extrema_planes.low.push_back(slot); break;
            case Statistic::max: extrema_planes.high.push_back(slot); break;
            case Statistic::range: extrema_planes.range.push_back(slot); break;
            case Statistic::median: order_planes.push_back({slot, 0.5, true}); break;
            case Statistic::quantile: order_planes.push_back({slot, request.fraction, false}); break;
            default: moment_planes.push_back({slot, static_cast<int>(request.kind)});
        }
    }
    const Output output(images, size, windows, out, stream);
    // One parallel region for all groups, the longest tasks first for load balance.
    std::vector<std::unique_ptr<StatisticTasks>> groups;
    if (!order_planes.empty()) {
        groups.push_back(order_statistic_tasks(images, size, std::move(order_planes), planes, windows, output));
    }
    if (!moment_planes.empty()) {
        groups.push_back(moment_tasks(images, size, std::move(moment_planes), planes, windows, output));
    }
    if (!(extrema_planes.low.empty() && extrema_planes.high.empty() && extrema_planes.range.empty())) {
        groups.push_back(extrema_tasks(images, size, std::move(extrema_planes), planes, windows, output));
    }
    FiniteCheck finite(images.data, check ? images.count * images.height * images.width : 0);
    run_tasks(finite, groups, threads);
    return finite.first();
}

std::optional<i64> first_nonfinite(const float *values, i64 count, int threads) {
    constexpr i64 kSingleThreadBlocks = 32;
    FiniteCheck check(values, count);
    // Waking another thread takes as long as checking several blocks.
    parallel_tasks<NoWorkspace>(check.blocks(), check.blocks() > kSingleThreadBlocks ? threads : 1,
                                [&](NoWorkspace &, i64 block) { check.run(block); });
    return check.first();
}

}  // namespace t3ssfast::cpu
