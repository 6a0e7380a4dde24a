// OpenMP over independent tasks: rethrows exceptions in the caller, and uses one thread in a forked child.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <exception>

namespace t3ssfast::cpu {

// Number of threads for a request of `requested` (0: OpenMP's default). 1 in a forked child, where libgomp's thread
// pool no longer exists and a parallel region would wait for it forever.
int usable_threads(int requested);

// Calls task(scratch, i) for i in [0, count), with one scratch per thread. Tasks are assigned to threads dynamically,
// so the result of a task must depend on i alone.
template <typename Scratch, typename Task>
void parallel_tasks(std::int64_t count, int threads, Task task) {
    const std::int64_t limit = usable_threads(threads);
    const int team = static_cast<int>(limit < count ? limit : count);
    if (team <= 1) {
        Scratch scratch;
        for (std::int64_t i = 0; i < count; ++i) task(scratch, i);
        return;
    }
    std::exception_ptr failure;
    std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(team)
    {
        try {
            Scratch scratch;
            for (std::int64_t i = next++; i < count; i = next++) task(scratch, i);
        } catch (...) {
            next = count;
#pragma omp critical(t3ssfast_failure)
            failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace t3ssfast::cpu
