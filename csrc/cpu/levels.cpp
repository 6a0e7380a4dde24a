// Values of 8 bits: their histogram, and thresholds.
#include <algorithm>
#include <array>
#include <mutex>

#include "core/macros.h"
#include "cpu/masks.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

constexpr i64 kValuesPerTask = 1 << 20;
// Of neighbouring values, which are mostly equal, none waits for the count of another.
constexpr int kTables = 4;

struct Tables {
    std::array<std::array<std::uint32_t, 256>, kTables> counts;
};

struct NoWorkspace {};

T3_SIMD_CLONES void count_exceeded(std::uint8_t *levels, i64 count, std::uint8_t lower, std::uint8_t upper) {
    for (i64 i = 0; i < count; ++i)
        levels[i] = static_cast<std::uint8_t>((levels[i] > lower ? 1 : 0) + (levels[i] > upper ? 1 : 0));
}

}  // namespace

void count_levels(const std::uint8_t *levels, i64 count, i64 *counts, int threads) {
    std::mutex mutex;
    parallel_tasks<Tables>((count + kValuesPerTask - 1) / kValuesPerTask, threads, [&](Tables &tables, i64 task) {
        tables.counts = {};
        const i64 begin = task * kValuesPerTask, end = std::min(count, begin + kValuesPerTask);
        i64 i = begin;
        for (; i + kTables <= end; i += kTables)
            for (int k = 0; k < kTables; ++k) ++tables.counts[static_cast<std::size_t>(k)][levels[i + k]];
        for (; i < end; ++i) ++tables.counts[0][levels[i]];
        const std::lock_guard<std::mutex> lock(mutex);
        for (const auto &table : tables.counts)
            for (std::size_t level = 0; level < table.size(); ++level) counts[level] += table[level];
    });
}

void threshold_levels(std::uint8_t *levels, i64 count, std::uint8_t lower, std::uint8_t upper, int threads) {
    parallel_tasks<NoWorkspace>((count + kValuesPerTask - 1) / kValuesPerTask, threads, [&](NoWorkspace &, i64 task) {
        const i64 begin = task * kValuesPerTask;
        count_exceeded(levels + begin, std::min(kValuesPerTask, count - begin), lower, upper);
    });
}

}  // namespace t3ssfast::cpu
