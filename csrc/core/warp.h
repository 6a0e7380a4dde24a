// A block of warps: like the Block of core/block.h, with operations of whole warps (products on tensor cores) and
// asynchronous copies.
//
// `block.phase(f)` calls f(warp) once per warp and ends in a barrier; between two barriers warps run in any order.
// Inside a phase `warp.lanes(g)` calls g(lane) for lanes 0 to 31. PerLane holds one value per lane; PerWarp of PerLane
// keeps it from phase to phase. On the host the warps of a phase run one after another, forwards or backwards, and
// asynchronous copies complete at once or as late as allowed. A missing barrier or wait shows in one of these orders.
#pragma once

#include <cstring>
#include <vector>

#include "core/device_instructions.h"
#include "core/fragment.h"
#include "core/macros.h"

namespace t3ssfast {

// D += A B for the fragments of one warp (layouts in core/fragment.h). Tensor cores truncate sums (Ootomo & Yokota
// 2022, section 4.1); this emulation truncates once per product.
template <bool kPairs>
inline void multiply_fragments(const std::uint32_t (&a)[kWarpLanes][4], const std::uint32_t (&b)[kWarpLanes][2],
                               float (&d)[kWarpLanes][4]) {
    constexpr int kPerWord = kPairs ? 2 : 1;
    const auto value = [](std::uint32_t word, int half) {
        if (kPairs) return float_of(half == 0 ? word << 16 : word & 0xFFFF0000u);
        return float_of(word & 0xFFFFE000u);  // tensor cores ignore the lower bits of a TF32 operand
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
            const float rounded = static_cast<float>(sum);
            const bool rounded_away =
                (rounded < 0.0f ? -static_cast<double>(rounded) : rounded) > (sum < 0.0 ? -sum : sum);
            d[lane][r] = rounded_away && rounded - rounded == 0.0f ? float_of(bits_of(rounded) - 1) : rounded;
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

    // Copies 16 bytes, or writes zeros if not `valid`. The data are valid after `wait`.
    void copy_reused(void *to, const void *from, bool valid) { copy({to, from, valid}); }
    void copy_once(void *to, const void *from) { copy({to, from, true}); }

    // Closes the current group of copies.
    void commit() {
        if (late_) groups_.emplace_back(std::move(open_));
        open_.clear();
    }

    // Waits until at most the last kOpen groups are incomplete.
    template <int kOpen>
    void wait() {
        while (groups_.size() > kOpen) {
            for (const Copy &copy : groups_.front()) write(copy);
            groups_.erase(groups_.begin());
        }
    }

    // Loads registers of A from shared memory; `quad(lane)` is the address of the 16 bytes that a lane passes
    // (core/fragment.h).
    template <typename Piece>
    void load_rows(PerLane<Quad> &words, const Piece &quad) {
        for (int lane = 0; lane < kWarpLanes; ++lane) {
            for (int r = 0; r < 4; ++r) {
                const int row = a_row(lane, r), word = a_word(lane, r);
                const std::uint32_t *from = quad(row + kFragmentRows * (word / kQuadWords));
                words[lane].word[r] = from[word % kQuadWords];
            }
        }
    }

    // Like `multiply`, with accumulators that start at 0.
    template <typename Format, int kTerms>
    void multiply_first(PerLane<Accumulators> &d, PerLane<OperandA<kTerms>> &a, int a_term,
                        PerLane<OperandB<kTerms>> &b, int b_term) {
        for (int lane = 0; lane < kWarpLanes; ++lane) d[lane] = Accumulators{};
        multiply<Format>(d, a, a_term, b, b_term);
    }

    template <typename Format, int kTerms>
    void multiply(PerLane<Accumulators> &d, PerLane<OperandA<kTerms>> &a, int a_term, PerLane<OperandB<kTerms>> &b,
                  int b_term) {
        std::uint32_t rows[kWarpLanes][4], columns[kWarpLanes][2];
        float sums[kWarpLanes][4];
        for (int lane = 0; lane < kWarpLanes; ++lane) {
            std::memcpy(rows[lane], a[lane].term[a_term], sizeof(rows[lane]));
            std::memcpy(columns[lane], b[lane].term[b_term], sizeof(columns[lane]));
            std::memcpy(sums[lane], d[lane].value, sizeof(sums[lane]));
        }
        multiply_fragments<Format::kPairs>(rows, columns, sums);
        for (int lane = 0; lane < kWarpLanes; ++lane) std::memcpy(d[lane].value, sums[lane], sizeof(sums[lane]));
    }

private:
    struct Copy {
        void *to;
        const void *from;
        bool valid;
    };

    void copy(const Copy &one) {
        if (late_)
            open_.push_back(one);
        else
            write(one);
    }
    static void write(const Copy &copy) {
        if (copy.valid)
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
        T value;
        __device__ __forceinline__ T &operator[](int) { return value; }
    };

    __device__ __forceinline__ int index() const { return static_cast<int>(threadIdx.x) / kWarpLanes; }

    template <typename Lane>
    __device__ __forceinline__ void lanes(const Lane &lane) {
        lane(static_cast<int>(threadIdx.x) % kWarpLanes);
    }

    // Through the L1 cache: neighbouring windows read the same pixels.
    __device__ __forceinline__ void copy_reused(void *to, const void *from, bool valid) {
#if __CUDA_ARCH__ >= 800
        device::cp_async_ca(to, from, valid);
#endif
    }

    // Bypasses the L1 cache: each block reads the data once.
    __device__ __forceinline__ void copy_once(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
        device::cp_async_cg(to, from);
#endif
    }

    __device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
        device::cp_async_commit_group();
#endif
    }

    template <int kOpen>
    __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 800
        device::cp_async_wait_group<kOpen>();
#endif
    }

    template <typename Piece>
    __device__ __forceinline__ void load_rows(PerLane<Quad> &words, const Piece &quad) {
#if __CUDA_ARCH__ >= 800
        device::ldmatrix_x4(words.value.word, quad(static_cast<int>(threadIdx.x) % kWarpLanes));
#endif
    }

    template <typename Format, int kTerms>
    __device__ __forceinline__ void multiply(PerLane<Accumulators> &d, PerLane<OperandA<kTerms>> &a, int a_term,
                                             PerLane<OperandB<kTerms>> &b, int b_term) {
        product<Format>(d.value.value, a.value.term[a_term], b.value.term[b_term], d.value.value);
    }

    template <typename Format, int kTerms>
    __device__ __forceinline__ void multiply_first(PerLane<Accumulators> &d, PerLane<OperandA<kTerms>> &a, int a_term,
                                                   PerLane<OperandB<kTerms>> &b, int b_term) {
        const float zeros[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        product<Format>(d.value.value, a.value.term[a_term], b.value.term[b_term], zeros);
    }

private:
    template <typename Format>
    __device__ __forceinline__ static void product(float (&d)[4], const std::uint32_t (&a)[4],
                                                   const std::uint32_t (&b)[2], const float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
        if constexpr (Format::kPairs)
            device::mma_m16n8k16_bf16(d, a, b, c);
        else
            device::mma_m16n8k8_tf32(d, a, b, c);
#endif
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
