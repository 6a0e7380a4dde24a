// Shadow memory: for every granule of registered memory, who wrote and read it last. The compiler calls
// __tsan_read4(address) and the like before each access of the instrumented .cu files (-fsanitize=thread, without its
// runtime). Reported are accesses outside of registered memory, reads of uninitialised memory, misaligned accesses,
// writes to inputs and parameters, and races: two accesses, one of them a write, by lanes of a block without a barrier
// between them, or by two blocks of a launch.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "runtime.h"

namespace cuda_on_host {
namespace {

constexpr std::int16_t kNobody = -1, kSeveral = -2;

struct Cell {
    std::uint32_t written = 0, read = 0, first_read = 0;  // epochs; first_read: in this launch
    std::int16_t writer = kNobody, reader = kNobody;
    bool initialised = false;
};

struct Region {
    char *begin = nullptr;
    std::size_t bytes = 0, granule = 4;
    std::string name;
    bool global = true, writable = true;
    bool flags = false;  // lanes may write the same value without an order
    std::vector<Cell> cells;

    bool holds(const char *at) const { return at >= begin && at < begin + bytes; }
};

std::map<const char *, Region> regions;  // by their end
Region shared;
std::map<std::string, long> findings;
std::string launch_name;
std::vector<Counts> launches;
Counts current_counts{};

// An epoch ends at each barrier, block and launch.
std::uint32_t epoch = 1, launch_begin = 1, block_begin = 1;
std::int16_t lane = kNobody;
const char *stack_begin = nullptr, *stack_end = nullptr;  // of the current lane
const char *stacks_begin = nullptr, *stacks_end = nullptr;
const char *call_begin = nullptr, *call_end = nullptr;  // the kernel and its parameters

Region *region_of(const char *at) {
    if (shared.holds(at)) return &shared;
    const auto found = regions.upper_bound(at);
    return found != regions.end() && found->second.holds(at) ? &found->second : nullptr;
}

enum class Conflict { none, lanes, blocks };

Conflict conflict(const Region &region, std::uint32_t when, std::int16_t who) {
    if (when < launch_begin || who == kNobody) return Conflict::none;
    if (when < block_begin) return region.global ? Conflict::blocks : Conflict::none;
    return when == epoch && who != lane ? Conflict::lanes : Conflict::none;
}

void report_race(const char *kinds, Conflict found, const Region &region) {
    if (found == Conflict::none) return;
    report(std::string(kinds) + " race between " + (found == Conflict::lanes ? "lanes" : "blocks") + " in " +
           region.name);
}

void read_cell(const Region &region, Cell &cell, bool atomic) {
    if (!cell.initialised) {
        report("read of uninitialised " + region.name);
        cell.initialised = true;
    }
    if (!atomic && !region.flags) report_race("read-after-write", conflict(region, cell.written, cell.writer), region);
    if (cell.first_read < launch_begin) cell.first_read = epoch;
    cell.reader = cell.read == epoch && cell.reader != lane ? kSeveral : lane;
    cell.read = epoch;
}

void write_cell(const Region &region, Cell &cell, bool atomic) {
    if (!atomic && !region.flags) {
        report_race("write-after-write", conflict(region, cell.written, cell.writer), region);
        Conflict found = conflict(region, cell.read, cell.reader);
        if (found == Conflict::none && cell.first_read >= launch_begin && cell.first_read < block_begin &&
            region.global)
            found = Conflict::blocks;
        report_race("write-after-read", found, region);
    }
    cell.written = epoch;
    cell.writer = lane;
    cell.initialised = true;
}

}  // namespace

void report(const std::string &fault) { ++findings[launch_name + ": " + fault]; }

Counts &counts() { return current_counts; }

void begin_launch(const std::string &name, const void *call, std::size_t call_bytes, const char *stacks,
                  std::size_t stack_bytes) {
    launch_name = name;
    call_begin = static_cast<const char *>(call);
    call_end = call_begin + call_bytes;
    stacks_begin = stacks;
    stacks_end = stacks + stack_bytes;
    launch_begin = ++epoch;
    current_counts = Counts{};
}

void begin_block(char *memory, std::size_t bytes) {
    shared.begin = memory;
    shared.granule = 2;  // 16-bit ranks are the smallest values in it
    shared.bytes = bytes;
    shared.name = "shared memory";
    shared.global = false;
    shared.cells.assign((bytes + shared.granule - 1) / shared.granule, Cell{});
    block_begin = ++epoch;
}

void end_launch() {
    shared.bytes = 0;
    lane = kNobody;
    launches.push_back(current_counts);
    launch_name = "outside of a launch";
}

void barrier_passed() {
    ++epoch;
    ++current_counts.barriers;
}

void set_lane(int index, const char *stack, std::size_t bytes) {
    lane = static_cast<std::int16_t>(index);
    stack_begin = stack;
    stack_end = stack + bytes;
}

bool inside_shared(const void *address, std::size_t bytes) {
    const char *at = static_cast<const char *>(address);
    return shared.holds(at) && at + bytes <= shared.begin + shared.bytes;
}

void touch(const void *address, std::size_t bytes, bool write, bool atomic) {
    if (lane == kNobody) return;
    const char *at = static_cast<const char *>(address);
    if (at >= stack_begin && at < stack_end) return;
    const std::string kind = write ? "write" : "read";
    if (at >= stacks_begin && at < stacks_end) return report(kind + " in the local memory of another lane");
    if (at >= call_begin && at < call_end) {
        if (write) report("write to a kernel parameter");
        return;
    }
    const auto is_index = [&](const auto &index) {
        return at >= reinterpret_cast<const char *>(&index) && at < reinterpret_cast<const char *>(&index + 1);
    };
    if (is_index(threadIdx) || is_index(blockIdx) || is_index(blockDim) || is_index(gridDim)) return;
    Region *region = region_of(at);
    if (region == nullptr) return report(kind + " out of bounds");
    if (at + bytes > region->begin + region->bytes) return report(kind + " past the end of " + region->name);
    if (write && !region->writable) report("write to the input " + region->name);
    if (reinterpret_cast<std::size_t>(at) % bytes != 0) report("misaligned " + kind + " in " + region->name);
    const std::size_t first = static_cast<std::size_t>(at - region->begin) / region->granule;
    const std::size_t last = static_cast<std::size_t>(at - region->begin + bytes - 1) / region->granule;
    for (std::size_t i = first; i <= last; ++i)
        write ? write_cell(*region, region->cells[i], atomic) : read_cell(*region, region->cells[i], atomic);
    std::int64_t &count = region->global ? (write ? current_counts.global_written : current_counts.global_read)
                                         : (write ? current_counts.shared_written : current_counts.shared_read);
    count += static_cast<std::int64_t>(bytes);
}

void in_flight(void *to, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += shared.granule)
        shared.cells[(static_cast<char *>(to) - shared.begin + i) / shared.granule].initialised = false;
}

void landed(void *to, std::size_t bytes) {
    touch(to, bytes, true);
    current_counts.shared_written -= static_cast<std::int64_t>(bytes);  // counted when the copy was issued
}

}  // namespace cuda_on_host

// ------------------------------------------------------------------------------------------- for the tests

using namespace cuda_on_host;

extern "C" {

// Registers memory of the device. `flags`: bytes that several lanes may set to the same value.
__attribute__((visibility("default"))) void cuda_on_host_register(void *begin, std::size_t bytes, std::size_t granule,
                                                                  const char *name, int initialised, int writable,
                                                                  int flags) {
    Region region;
    region.begin = static_cast<char *>(begin);
    region.bytes = bytes;
    region.granule = granule;
    region.name = name;
    region.writable = writable != 0;
    region.flags = flags != 0;
    region.cells.resize((bytes + granule - 1) / granule);
    for (Cell &cell : region.cells) cell.initialised = initialised != 0;
    regions[region.begin + bytes] = std::move(region);
}

__attribute__((visibility("default"))) void cuda_on_host_forget() {
    regions.clear();
    launches.clear();
}

// The faults since the last call, one per line; the text is valid until the next call.
__attribute__((visibility("default"))) const char *cuda_on_host_findings() {
    static std::string text;
    text.clear();
    for (const auto &[fault, times] : findings) text += fault + " (" + std::to_string(times) + " times)\n";
    findings.clear();
    return text.c_str();
}

// Counts of the launches since cuda_on_host_forget, seven numbers each; returns the number of launches.
__attribute__((visibility("default"))) int cuda_on_host_counts(std::int64_t *values, int capacity) {
    const int count = std::min(capacity, static_cast<int>(launches.size()));
    std::memcpy(values, launches.data(), static_cast<std::size_t>(count) * sizeof(Counts));
    return static_cast<int>(launches.size());
}

// The compiler's hooks.
#define HOOKS(n)                                           \
    void __tsan_read##n(void *at) { touch(at, n, false); } \
    void __tsan_write##n(void *at) { touch(at, n, true); }
HOOKS(1)
HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
#define UNALIGNED_HOOKS(n)                                           \
    void __tsan_unaligned_read##n(void *at) { touch(at, n, false); } \
    void __tsan_unaligned_write##n(void *at) { touch(at, n, true); }
    UNALIGNED_HOOKS(2) UNALIGNED_HOOKS(4) UNALIGNED_HOOKS(8)
        UNALIGNED_HOOKS(16) void __tsan_read_range(void *at, unsigned long bytes) {
    for (unsigned long i = 0; i < bytes; i += 4) touch(static_cast<char *>(at) + i, 4, false);
}
void __tsan_write_range(void *at, unsigned long bytes) {
    for (unsigned long i = 0; i < bytes; i += 4) touch(static_cast<char *>(at) + i, 4, true);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}
