// What the parts of the runtime on the host share. One launch runs at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_on_host {

// ------------------------------------------------------------------------------------- findings (shadow.cpp)

// Records a fault of the launch that runs; each text once per launch.
void report(const std::string &fault);

// --------------------------------------------------------------------------------------- shadow (shadow.cpp)

// Memory that an access may name, and what is known of it.
void begin_launch(const std::string &name, const void *call, std::size_t call_bytes, const char *stacks,
                  std::size_t stack_bytes);
void begin_block(char *shared, std::size_t shared_bytes);
void end_launch();

// A barrier: accesses before and after it are ordered.
void barrier_passed();

// The lane whose accesses follow, or -1 outside of kernels; its stack is [stack, stack + bytes).
void set_lane(int lane, const char *stack, std::size_t bytes);

// Checks one access of the current lane.
void touch(const void *address, std::size_t bytes, bool write, bool atomic = false);

// Shared memory that an asynchronous copy will write: reading it before `landed` is a fault.
void in_flight(void *to, std::size_t bytes);
void landed(void *to, std::size_t bytes);

bool inside_shared(const void *address, std::size_t bytes);

// What one launch did: bytes that its lanes read and wrote, barriers of all blocks, matrix products of warps, and
// sums and products in float64 that are never fused.
struct Counts {
    std::int64_t global_read, global_written, shared_read, shared_written, barriers, products, double_operations;
};
Counts &counts();

// ------------------------------------------------------------------------------------------ lanes (lanes.cpp)

// The order in which lanes and blocks run, and whether copies land as late as they may.
enum class Order { forward, reversed, shuffled };
struct Schedule {
    Order order = Order::forward;
    bool late = false;
    unsigned seed = 1;
};
Schedule &schedule();

// Instructions of a whole warp, which all its lanes reach together.
enum class WarpInstruction { none, ldmatrix, mma_tf32, mma_bf16 };
struct WarpOperands {
    void *to = nullptr;
    const void *a = nullptr, *b = nullptr, *c = nullptr;
};

// Waits until all lanes of the warp are here; the last one performs the instruction for all.
void warp_instruction(WarpInstruction instruction, const WarpOperands &operands);

// Performs an instruction for the 32 lanes of a warp (instructions.cpp).
void perform(WarpInstruction instruction, const WarpOperands (&lanes)[32]);

}  // namespace cuda_on_host
