// A block of warps: as core/block.h's Block, with what only the lanes of a warp can do together (products on tensor
// cores) or over time (copies that land later).
//
// `block.phase(f)` calls f(warp) once a warp and ends in a barrier; between two barriers warps run in any order. In
// it `warp.lanes(g)` calls g(lane) for the lanes of the warp, 0 to 31. Values that a lane keeps are PerLane, those
// that it keeps from phase to phase PerWarp of PerLane. On the host the warps of a phase run one after the other,
// forwards or backwards, and copies take effect at once or as late as they may: whatever is missing, a barrier or a
// wait, shows in one of these orders.
#pragma once

#include <cstring>
#include <vector>

#include "core/fragment.h"
#include "core/macros.h"

namespace t3ssfast {

// D += A B of the numbers that a lane group holds, worked out from the layouts in core/fragment.h. Tensor cores add
// with truncation (Ootomo & Yokota 2022, section 4.1); this does so once a product.
template <bool kPairs>
inline void multiply_fragments(const std::uint32_t (&a)[kWarpLanes][4], const std::uint32_t (&b)[kWarpLanes][2],
                               float (&d)[kWarpLanes][4]) {
    constexpr int kPerWord = kPairs ? 2 : 1;
    const auto value = [](std::uint32_t word, int half) {
        if (kPairs) return float_of(half == 0 ? word << 16 : word & 0xFFFF0000u);
        return float_of(word & 0xFFFFE000u);  // a TF32 operand's lower bits are not looked at
    };
    float rows[kFragmentRows][kFragmentWords * 2], columns[kFragmentColumns][kFragmentWords * 2];
    for (int lane = 0; lane < kWarpLanes; ++lane) {
        for (int half = 0; half < kPerWord; ++half) {
            for (int r = 0; r < 4; ++r)
                rows[a_row(lane, r)][a_word(lane, r) * kPerWord + half] = value(a[lane][r], half);
            for (int r = 0; r < 2; ++r)
                columns[b_column(lane)][b_word(lane, r) * kPerWord + half] = value(b[lane][r], half);
        }
    }
    for (int lane = 0; lane < kWarpLanes; ++lane) {
        for (int r = 0; r < 4; ++r) {
            double sum = d[lane][r];
            for (int k = 0; k < kFragmentWords * kPerWord; ++k)
                sum += static_cast<double>(rows[d_row(lane, r)][k]) * columns[d_column(lane, r)][k];
            const float near = static_cast<float>(sum);
            const bool beyond = (near < 0.0f ? -static_cast<double>(near) : near) > (sum < 0.0 ? -sum : sum);
            d[lane][r] = beyond && near - near == 0.0f ? float_of(bits_of(near) - 1) : near;
        }
    }
}

class HostWarp {
public:
    template <typename T>
    struct PerLane {
        T of[kWarpLanes];
        T &operator[](int lane) { return of[lane]; }
    };

    HostWarp(int index, bool reversed, bool late) : index_(index), reversed_(reversed), late_(late) {}

    int index() const { return index_; }

    template <typename Lane>
    void lanes(const Lane &lane) {
        for (int i = 0; i < kWarpLanes; ++i) lane(reversed_ ? kWarpLanes - 1 - i : i);
    }

    // 16 bytes, or zeros where they are not wanted. They are there for sure after `wait`.
    void copy_reused(void *to, const void *from, bool wanted) { copy({to, from, wanted}); }
    void copy_once(void *to, const void *from) { copy({to, from, true}); }

    // Copies since the last one become a group.
    void commit() {
        if (late_) groups_.emplace_back(std::move(open_));
        open_.clear();
    }

    // All groups but the last kOpen are there.
    template <int kOpen>
    void wait() {
        while (groups_.size() > kOpen) {
            for (const Copy &copy : groups_.front()) write(copy);
            groups_.erase(groups_.begin());
        }
    }

    // Registers of A from shared memory; `piece(lane)` is the 16 bytes that a lane names (core/fragment.h).
    template <typename Piece>
    void load_rows(PerLane<Quad> &words, const Piece &piece) {
        for (int lane = 0; lane < kWarpLanes; ++lane) {
            for (int r = 0; r < 4; ++r) {
                const int row = a_row(lane, r), word = a_word(lane, r);
                const std::uint32_t *from = piece(row + kFragmentRows * (word / kLaneWords));
                words[lane].word[r] = from[word % kLaneWords];
            }
        }
    }

    // The same as `multiply`, into sums that begin with it.
    template <typename Numbers, int kTerms>
    void multiply_first(PerLane<Sums> &d, PerLane<OperandA<kTerms>> &a, int a_term, PerLane<OperandB<kTerms>> &b,
                        int b_term) {
        for (int lane = 0; lane < kWarpLanes; ++lane) d[lane] = Sums{};
        multiply<Numbers>(d, a, a_term, b, b_term);
    }

    template <typename Numbers, int kTerms>
    void multiply(PerLane<Sums> &d, PerLane<OperandA<kTerms>> &a, int a_term, PerLane<OperandB<kTerms>> &b,
                  int b_term) {
        std::uint32_t rows[kWarpLanes][4], columns[kWarpLanes][2];
        float sums[kWarpLanes][4];
        for (int lane = 0; lane < kWarpLanes; ++lane) {
            std::memcpy(rows[lane], a[lane].term[a_term], sizeof(rows[lane]));
            std::memcpy(columns[lane], b[lane].term[b_term], sizeof(columns[lane]));
            std::memcpy(sums[lane], d[lane].value, sizeof(sums[lane]));
        }
        multiply_fragments<Numbers::kPairs>(rows, columns, sums);
        for (int lane = 0; lane < kWarpLanes; ++lane) std::memcpy(d[lane].value, sums[lane], sizeof(sums[lane]));
    }

private:
    struct Copy {
        void *to;
        const void *from;
        bool wanted;
    };

    void copy(const Copy &one) {
        if (late_)
            open_.push_back(one);
        else
            write(one);
    }
    static void write(const Copy &copy) {
        if (copy.wanted)
            std::memcpy(copy.to, copy.from, 16);
        else
            std::memset(copy.to, 0, 16);
    }

    int index_;
    bool reversed_, late_;
    std::vector<Copy> open_;
    std::vector<std::vector<Copy>> groups_;
};

class HostWarps {
public:
    using Warp = HostWarp;

    // `lanes` is a multiple of 32.
    HostWarps(int lanes, bool reversed, bool late) : reversed_(reversed) {
        for (int i = 0; i < lanes / kWarpLanes; ++i) warps_.emplace_back(i, reversed, late);
    }

    int warps() const { return static_cast<int>(warps_.size()); }
    int lanes() const { return warps() * kWarpLanes; }

    template <typename Work>
    void phase(const Work &work) {
        for (int i = 0; i < warps(); ++i) work(warps_[reversed_ ? warps() - 1 - i : i]);
    }

    template <typename T>
    class PerWarp {
    public:
        explicit PerWarp(const HostWarps &block) : values_(block.warps()) {}
        T &operator[](const HostWarp &warp) { return values_[warp.index()]; }

    private:
        std::vector<T> values_;
    };

private:
    bool reversed_;
    std::vector<HostWarp> warps_;
};

#if defined(__CUDACC__)
class DeviceWarp {
public:
    template <typename T>
    struct PerLane {
        T own;
        __device__ __forceinline__ T &operator[](int) { return own; }
    };

    __device__ __forceinline__ int index() const { return static_cast<int>(threadIdx.x) / kWarpLanes; }

    template <typename Lane>
    __device__ __forceinline__ void lanes(const Lane &lane) {
        lane(static_cast<int>(threadIdx.x) % kWarpLanes);
    }

    // Through the L1 cache: neighbouring windows read the same pixels.
    __device__ __forceinline__ void copy_reused(void *to, const void *from, bool wanted) {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address(to)), "l"(from),
                     "r"(wanted ? 16 : 0)
                     : "memory");
#endif
    }

    // Past the L1 cache: each block reads them once.
    __device__ __forceinline__ void copy_once(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address(to)), "l"(from) : "memory");
#endif
    }

    __device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    }

    template <int kOpen>
    __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
#endif
    }

    template <typename Piece>
    __device__ __forceinline__ void load_rows(PerLane<Quad> &words, const Piece &piece) {
        std::uint32_t(&to)[kLaneWords] = words.own.word;
        const std::uint32_t from = address(piece(static_cast<int>(threadIdx.x) % kWarpLanes));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from));
    }

    template <typename Numbers, int kTerms>
    __device__ __forceinline__ void multiply(PerLane<Sums> &d, PerLane<OperandA<kTerms>> &a, int a_term,
                                             PerLane<OperandB<kTerms>> &b, int b_term) {
        const float(&c)[4] = d.own.value;
        product<Numbers>(d.own.value, a.own.term[a_term], b.own.term[b_term], c[0], c[1], c[2], c[3]);
    }

    template <typename Numbers, int kTerms>
    __device__ __forceinline__ void multiply_first(PerLane<Sums> &d, PerLane<OperandA<kTerms>> &a, int a_term,
                                                   PerLane<OperandB<kTerms>> &b, int b_term) {
        product<Numbers>(d.own.value, a.own.term[a_term], b.own.term[b_term], 0.0f, 0.0f, 0.0f, 0.0f);
    }

private:
    template <typename Numbers>
    __device__ __forceinline__ static void product(float (&d)[4], const std::uint32_t (&a)[4],
                                                   const std::uint32_t (&b)[2], float c0, float c1, float c2,
                                                   float c3) {
#if __CUDA_ARCH__ >= 800
        if constexpr (Numbers::kPairs) {
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%10, %11, %12, %13};"
                : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
        } else {
            asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%10, %11, %12, %13};"
                : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
        }
#endif
    }
    __device__ __forceinline__ static std::uint32_t address(const void *shared) {
        return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
    }
};

class DeviceWarps {
public:
    using Warp = DeviceWarp;

    __device__ __forceinline__ int warps() const { return static_cast<int>(blockDim.x) / kWarpLanes; }
    __device__ __forceinline__ int lanes() const { return static_cast<int>(blockDim.x); }

    template <typename Work>
    __device__ __forceinline__ void phase(const Work &work) {
        DeviceWarp warp;
        work(warp);
        __syncthreads();
    }

    template <typename T>
    class PerWarp {
    public:
        __device__ __forceinline__ explicit PerWarp(const DeviceWarps &) {}
        __device__ __forceinline__ T &operator[](const DeviceWarp &) { return value_; }

    private:
        T value_;
    };
};
#endif

}  // namespace t3ssfast
