// The lanes of a block as fibres: a lane runs until it reaches a barrier, an instruction of its whole warp, or its end;
// then the next one runs, in the order that the schedule asks for.
#include <cuda_runtime.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "core/device_instructions.h"
#include "lanes.h"
#include "runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

#if !defined(__x86_64__)
#error "The switch between fibres is written for x86-64."
#endif

// Saves the callee-saved registers and the stack pointer, and continues another fibre.
extern "C" void cuda_on_host_switch(void **save, void *resume);
asm(R"(
.text
.globl cuda_on_host_switch
cuda_on_host_switch:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");

namespace cuda_on_host {
namespace {

constexpr int kWarp = 32, kMaxLanes = 1024;
constexpr std::size_t kStackBytes = 128 << 10;

struct Copy {
    char *to;
    const char *from;
    bool valid;
};

enum class State { ready, at_barrier, at_warp, finished };

struct Lane {
    State state = State::ready;
    void *stack_pointer = nullptr;
    WarpInstruction instruction = WarpInstruction::none;
    WarpOperands operands;
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

std::vector<Lane> lanes;
int current = -1;
void *scheduler = nullptr;
Call *call = nullptr;
char *stacks = nullptr;
char *shared_base = nullptr;
Schedule chosen;
std::mt19937 random_numbers;

char *stack_of(int lane) { return stacks + static_cast<std::size_t>(lane) * kStackBytes; }

void leave(State state) {
    lanes[current].state = state;
    cuda_on_host_switch(&lanes[current].stack_pointer, scheduler);
}

void land(const Copy &copy) {
    if (copy.valid)
        std::memcpy(copy.to, copy.from, 16);
    else
        std::memset(copy.to, 0, 16);
}

[[noreturn]] void run_lane() {
    call->run();
    const Lane &lane = lanes[current];
    if (!lane.open.empty()) report("cp.async without cp.async.commit_group");
    for (const auto &group : lane.groups)
        if (!group.empty()) report("cp.async that nobody waited for");
    leave(State::finished);
    __builtin_unreachable();
}

void prepare_lane(int index) {
    Lane &lane = lanes[index];
    lane.state = State::ready;
    lane.open.clear();
    lane.groups.clear();
    // The stack as cuda_on_host_switch left it: six registers, the address to return to, and an empty frame.
    void **top = reinterpret_cast<void **>(stack_of(index) + kStackBytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(&run_lane);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    lane.stack_pointer = top;
}

template <typename T>
void put_in_order(std::vector<T> &values) {
    std::iota(values.begin(), values.end(), T{0});
    if (chosen.order == Order::reversed) std::reverse(values.begin(), values.end());
    if (chosen.order == Order::shuffled) std::shuffle(values.begin(), values.end(), random_numbers);
}

// Performs the instructions that whole warps have reached; false if the lanes of a warp disagree.
bool run_warps(bool *progress) {
    const int count = static_cast<int>(lanes.size());
    for (int first = 0; first < count; first += kWarp) {
        const int last = std::min(first + kWarp, count);
        int waiting = 0;
        for (int i = first; i < last; ++i) waiting += lanes[i].state == State::at_warp;
        if (waiting == 0) continue;
        WarpOperands operands[kWarp];
        for (int i = first; i < last; ++i) {
            if (lanes[i].state != State::at_warp || lanes[i].instruction != lanes[first].instruction) waiting = 0;
            operands[i - first] = lanes[i].operands;
        }
        if (waiting != kWarp) {
            report("divergent instruction of a warp");
            return false;
        }
        perform(lanes[first].instruction, operands);
        for (int i = first; i < last; ++i) lanes[i].state = State::ready;
        *progress = true;
    }
    return true;
}

void run_block() {
    const int count = static_cast<int>(lanes.size());
    std::vector<int> order(count);
    for (;;) {
        put_in_order(order);
        for (const int i : order) {
            if (lanes[i].state != State::ready) continue;
            current = i;
            threadIdx = {static_cast<unsigned>(i), 0, 0};
            set_lane(i, stack_of(i), kStackBytes);
            cuda_on_host_switch(&scheduler, lanes[i].stack_pointer);
            set_lane(-1, nullptr, 0);
        }
        bool progress = false;
        if (!run_warps(&progress)) return;
        if (progress) continue;
        const auto in = [&](State state) {
            return std::count_if(lanes.begin(), lanes.end(), [&](const Lane &lane) { return lane.state == state; });
        };
        if (in(State::finished) == count) return;
        if (in(State::finished) > 0) {
            report("divergent barrier: some lanes have ended");
            return;
        }
        for (Lane &lane : lanes) lane.state = State::ready;
        barrier_passed();
    }
}

}  // namespace

Schedule &schedule() { return chosen; }

void warp_instruction(WarpInstruction instruction, const WarpOperands &operands) {
    lanes[current].instruction = instruction;
    lanes[current].operands = operands;
    leave(State::at_warp);
}

void run_grid(Call &kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::string &name) {
    if (stacks == nullptr) {
        stacks = static_cast<char *>(mmap(nullptr, kMaxLanes * kStackBytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    }
    call = &kernel;
    gridDim = grid;
    blockDim = block;
    lanes.resize(block.x);
    random_numbers.seed(chosen.seed);
    begin_launch(name, &kernel, kernel.object_bytes, stacks, kMaxLanes * kStackBytes);
    std::vector<char> memory(shared_bytes + 128);
    shared_base = memory.data();
    while (reinterpret_cast<std::uintptr_t>(shared_base) % 128 != 0) ++shared_base;
    std::vector<std::int64_t> blocks(static_cast<std::size_t>(grid.x) * grid.y);
    put_in_order(blocks);
    for (const std::int64_t index : blocks) {
        blockIdx = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x), 0};
        std::memset(shared_base, 0xFF, shared_bytes);  // NaN
        begin_block(shared_base, shared_bytes);
        for (int i = 0; i < static_cast<int>(block.x); ++i) prepare_lane(i);
        run_block();
    }
    end_launch();
    current = -1;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

void __syncthreads() { leave(State::at_barrier); }

unsigned long long atomicMin(unsigned long long *address, unsigned long long value) {
    touch(address, sizeof(*address), false, true);
    touch(address, sizeof(*address), true, true);
    const unsigned long long before = *address;
    *address = std::min(before, value);
    return before;
}

namespace t3ssfast::device {
namespace {

void issue(void *to, const void *from, bool valid) {
    if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
        report("misaligned cp.async");
    if (!inside_shared(to, 16)) return report("cp.async outside of shared memory");
    if (valid) touch(from, 16, false);
    touch(to, 16, true);
    in_flight(to, 16);
    const Copy copy{static_cast<char *>(to), static_cast<const char *>(from), valid};
    if (!chosen.late) land(copy);
    lanes[current].open.push_back(copy);
}

}  // namespace

void *dynamic_shared_memory() { return shared_base; }
void cp_async_ca(void *to, const void *from, bool valid) { issue(to, from, valid); }
void cp_async_cg(void *to, const void *from) { issue(to, from, true); }

void cp_async_commit_group() {
    lanes[current].groups.push_back(std::move(lanes[current].open));
    lanes[current].open.clear();
}

void cp_async_wait(int open_groups) {
    auto &groups = lanes[current].groups;
    for (; static_cast<int>(groups.size()) > open_groups; groups.pop_front()) {
        for (const Copy &copy : groups.front()) {
            if (chosen.late) land(copy);
            landed(copy.to, 16);
        }
    }
}

}  // namespace t3ssfast::device

extern "C" __attribute__((visibility("default"))) void cuda_on_host_schedule(int order, int late, unsigned seed) {
    chosen = {static_cast<Order>(order), late != 0, seed};
}
