// Sliding statistics on the CPU: which family computes which plane, and the check of the input.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "backend.h"
#include "cpu/parallel.h"
#include "cpu/window_statistics/families.h"

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

// The look for NaN and Inf, block by block, by any number of threads.
class FiniteCheck {
public:
    FiniteCheck(const float *values, i64 count)
        : values_(values), count_(count), blocks_((count + kBlock - 1) / kBlock), first_bad_(blocks_) {}

    i64 blocks() const { return blocks_; }

    void run(i64 block) {
        const bool needed = block < first_bad_.load();
        if (needed && !all_finite(values_ + block * kBlock, std::min(kBlock, count_ - block * kBlock))) {
            for (i64 seen = first_bad_.load(); block < seen && !first_bad_.compare_exchange_weak(seen, block);) {
            }
        }
        ++done_;
    }

    // Waits for the blocks that other threads have begun; false where one is bad. Only after every block was begun.
    bool passed() const {
        while (done_.load() < blocks_) std::this_thread::yield();
        return first_bad_.load() == blocks_;
    }

    // Index of the first value that is not finite, or -1.
    i64 first() const {
        for (i64 i = first_bad_.load() * kBlock; i < count_; ++i) {
            if (!all_finite(values_ + i, 1)) return i;
        }
        return -1;
    }

private:
    static constexpr i64 kBlock = 1 << 16;

    const float *values_;
    i64 count_, blocks_;
    std::atomic<i64> first_bad_, done_{0};
};

struct NoScratch {};

// The check's blocks, then the tasks of all families, one family after the other: none is begun before all blocks are
// known to be finite.
void run_families(FiniteCheck &check, const std::vector<std::unique_ptr<Family>> &families, int threads) {
    struct Scratch {
        std::size_t family = 0;
        std::unique_ptr<Family::Memory> memory;
    };
    i64 count = 0;
    for (const auto &family : families) count += family->tasks();
    // To wake a thread takes as long as some blocks: none is woken for them alone.
    const int team = static_cast<int>(std::min<i64>(usable_threads(threads), count));
    parallel_tasks<Scratch>(check.blocks() + count, team, [&](Scratch &scratch, i64 task) {
        if (task < check.blocks()) return check.run(task);
        if (!check.passed()) return;
        task -= check.blocks();
        std::size_t k = 0;
        for (; task >= families[k]->tasks(); ++k) task -= families[k]->tasks();
        // Tasks come in order, so that a family that is left is not met again.
        if (scratch.memory == nullptr || scratch.family != k) {
            scratch.memory = families[k]->memory();
            scratch.family = k;
        }
        families[k]->run(*scratch.memory, task);
    });
}

}  // namespace

i64 window_statistics(ImageStack<const float> images, i64 size, const std::vector<StatisticRequest> &statistics,
                      WindowList windows, float *out, bool stream, bool check, int threads) {
    if (images.count == 0 || (!windows.dense() && windows.count == 0)) return -1;
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
    // In one go, so that threads are called once; the longest tasks first, so that none is left alone at the end.
    std::vector<std::unique_ptr<Family>> families;
    if (!order_planes.empty()) {
        families.push_back(order_statistics(images, size, std::move(order_planes), planes, windows, output));
    }
    if (!moment_planes.empty()) {
        families.push_back(moments(images, size, std::move(moment_planes), planes, windows, output));
    }
    if (!(extrema_planes.low.empty() && extrema_planes.high.empty() && extrema_planes.range.empty())) {
        families.push_back(extrema(images, size, std::move(extrema_planes), planes, windows, output));
    }
    FiniteCheck finite(images.data, check ? images.count * images.height * images.width : 0);
    run_families(finite, families, threads);
    return finite.first();
}

i64 first_nonfinite(const float *values, i64 count, int threads) {
    constexpr i64 kBlocksAlone = 32;
    FiniteCheck check(values, count);
    // To wake another thread takes as long as some blocks.
    parallel_tasks<NoScratch>(check.blocks(), check.blocks() > kBlocksAlone ? threads : 1,
                              [&](NoScratch &, i64 block) { check.run(block); });
    return check.first();
}

}  // namespace t3ssfast::cpu
