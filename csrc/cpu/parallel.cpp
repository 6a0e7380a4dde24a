#include "cpu/parallel.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include <atomic>

namespace t3ssfast::cpu {
namespace {

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int fork_guard = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
#endif

}  // namespace

int usable_threads(int requested) {
    if (forked.load()) return 1;
    return requested > 0 ? requested : omp_get_max_threads();
}

}  // namespace t3ssfast::cpu
