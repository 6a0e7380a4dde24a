// score_windows on the CPU. A tile of windows at a time: feature maps in (y, x, channel) order, then the
// head, whose first layer is a matrix product over gathered rows of the last map (no im2col). One
// register-blocked kernel, positions x outputs, does every convolution and every fully connected layer.
//
// This file alone is compiled with -ffp-contract=fast (CMakeLists.txt): its products are fused where the
// instruction set has FMA, so bits may differ between instruction sets, but never between tilings or thread
// counts: every sum runs bias first, then taps and channels ascending, in whole vectors without remainders.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend.h"
#include "core/block.h"
#include "core/macros.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

// A tile's maps stay within a 2 MiB L2 cache for a LeNet; halos then cost 2-3% of dense work.
constexpr std::int64_t kTile = 64;
// Positions whose first hidden layer is held at once, in whole register blocks of every instruction set.
constexpr std::int64_t kGroup = 96;
// Vectors of outputs in a register block; 3 x 4 (AVX2) and 3 x 8 (AVX-512) accumulators fill the registers.
constexpr int kPanel = 3;
constexpr std::int64_t kMostPositions = 8;
// Floats past the end of every buffer, so that whole vectors may be read and written.
constexpr std::size_t kSlack = 64;

typedef float Vector4 __attribute__((vector_size(16)));
typedef float Vector8 __attribute__((vector_size(32)));
typedef float Vector16 __attribute__((vector_size(64)));

template <class V>
constexpr std::int64_t width_of = sizeof(V) / sizeof(float);

template <class V>
T3_ALWAYS_INLINE void load(V &value, const float *from) {
    std::memcpy(&value, from, sizeof(V));
}

template <class V>
T3_ALWAYS_INLINE void store(float *to, const V &value) {
    std::memcpy(to, &value, sizeof(V));
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Weights of one layer in panels of up to kPanel vectors of outputs: [panel][tap and channel][output].
struct PackedLayer {
    std::vector<float> weights, bias;
    std::int64_t outputs;  // out_channels rounded up to whole vectors; the rest has weight 0
};

struct Position {
    std::int64_t window;  // row of the answer
    std::int64_t y, x;    // top-left corner in the image
};

// A run of positions that share one set of maps.
struct Leaf {
    std::int64_t first, last;
};

struct Scratch {
    std::vector<float> maps[2];
    std::vector<float> head[2];
    std::vector<const float *> rows;
    std::vector<float> block;  // outputs of one register block of a convolution
    std::vector<Position> positions;
    std::vector<Leaf> leaves;
};

struct Work {
    LayerProgram program;
    const std::vector<PackedLayer> *packed;
    const float *image;
    std::int64_t image_width;
    Scores out;
};

// Sums start as `init` and end in `sums`, P rows of N vectors each: `tap_rows` rows of taps x channels products
// are added. Rows are written in ascending order, whole vectors each.
template <class V, int P, int N>
T3_ALWAYS_INLINE void gather_block(const float *const *rows, std::int64_t tap_rows, std::int64_t row_step,
                                   std::int64_t taps, std::int64_t tap_step, std::int64_t channels,
                                   const float *weights, const float *init, std::int64_t init_stride,
                                   float *sums, std::int64_t sums_stride) {
    constexpr std::int64_t W = width_of<V>;
    V acc[P][N];
    const float *in[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
        in[p] = rows[p];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) load(acc[p][n], init + p * init_stride + n * W);
    }
    for (std::int64_t r = 0; r < tap_rows; ++r) {
        for (std::int64_t t = 0; t < taps; ++t) {
            const std::int64_t at = r * row_step + t * tap_step;
            for (std::int64_t c = 0; c < channels; ++c) {
                V w[N];
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n) load(w[n], weights + n * W);
                weights += N * W;
#pragma GCC unroll 16
                for (int p = 0; p < P; ++p) {
                    // x - 0 is x to the bit, so this is a broadcast and no arithmetic; x + 0 would not be.
                    const V x = in[p][at + c] - V{};
#pragma GCC unroll 4
                    for (int n = 0; n < N; ++n) acc[p][n] += x * w[n];
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(sums + p * sums_stride + n * W, acc[p][n]);
    }
}

template <class V, int P>
T3_ALWAYS_INLINE void gather_panel(std::int64_t vectors, const float *const *rows, std::int64_t tap_rows,
                                   std::int64_t row_step, std::int64_t taps, std::int64_t tap_step,
                                   std::int64_t channels, const float *weights, const float *init,
                                   std::int64_t init_stride, float *sums, std::int64_t sums_stride) {
    // Neighbouring taps without a gap are one longer run.
    if (tap_step == channels) {
        channels *= taps;
        taps = 1;
    }
    switch (vectors) {
        case 1:
            return gather_block<V, P, 1>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init,
                                         init_stride, sums, sums_stride);
        case 2:
            return gather_block<V, P, 2>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init,
                                         init_stride, sums, sums_stride);
        default:
            return gather_block<V, P, 3>(rows, tap_rows, row_step, taps, tap_step, channels, weights, init,
                                         init_stride, sums, sums_stride);
    }
}

template <class V, int P>
T3_ALWAYS_INLINE void convolve(const Layer &layer, const PackedLayer &packed, const float *in, Extent in_extent,
                               float *out, Extent extent, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const std::int64_t channels = layer.in_channels, outputs = layer.out_channels;
    const std::int64_t vectors = packed.outputs / W, fan_in = layer.fan_in();
    const std::int64_t row_step = layer.step_y * in_extent.width * channels, tap_step = layer.step_x * channels;
    // One panel may write its pixels in place: the vector that runs over is overwritten by the next pixel.
    const bool direct = vectors <= kPanel && extent.width >= P;
    const float *rows[P];
    float *block = scratch.block.data();
    for (std::int64_t y = 0; y < extent.height; ++y) {
        for (std::int64_t start = 0; start < extent.width; start += P) {
            // The last block of a row is moved back to end with it, and does some pixels again.
            const std::int64_t x = direct ? std::min(start, extent.width - P) : start;
            for (int p = 0; p < P; ++p)
                rows[p] = in + (y * in_extent.width + std::min(x + p, extent.width - 1)) * channels;
            float *to = out + (y * extent.width + x) * outputs;
            if (direct) {
                gather_panel<V, P>(vectors, rows, layer.kernel_y, row_step, layer.kernel_x, tap_step, channels,
                                   packed.weights.data(), packed.bias.data(), 0, to, outputs);
                continue;
            }
            for (std::int64_t v = 0; v < vectors; v += kPanel)
                gather_panel<V, P>(std::min<std::int64_t>(kPanel, vectors - v), rows, layer.kernel_y, row_step,
                                   layer.kernel_x, tap_step, channels, packed.weights.data() + v * W * fan_in,
                                   packed.bias.data() + v * W, 0, block + v * W, packed.outputs);
            const std::int64_t here = std::min<std::int64_t>(P, extent.width - x);
            for (std::int64_t p = 0; p < here; ++p)
                std::memcpy(to + p * outputs, block + p * packed.outputs, outputs * sizeof(float));
        }
    }
}

// Tap by tap over whole rows, which the compiler turns into vectors.
T3_ALWAYS_INLINE void pool(const Layer &layer, const float *in, Extent in_extent, float *out, Extent extent) {
    const std::int64_t channels = layer.in_channels, length = extent.width * channels;
    const float share = 1.0f / static_cast<float>(layer.kernel_y * layer.kernel_x);
    for (std::int64_t y = 0; y < extent.height; ++y) {
        float *__restrict to = out + y * length;
        for (std::int64_t tap = 0; tap < layer.kernel_y * layer.kernel_x; ++tap) {
            const std::int64_t ky = tap / layer.kernel_x, kx = tap % layer.kernel_x;
            const float *__restrict from =
                in + ((y + ky * layer.step_y) * in_extent.width + kx * layer.step_x) * channels;
            if (tap == 0)
                std::memcpy(to, from, length * sizeof(float));
            else if (layer.kind == LayerKind::average_pool)
                for (std::int64_t i = 0; i < length; ++i) to[i] += from[i];
            else  // a NaN stays, as in torch
                for (std::int64_t i = 0; i < length; ++i) to[i] = to[i] >= from[i] || to[i] != to[i] ? to[i] : from[i];
        }
        if (layer.kind == LayerKind::average_pool)
            for (std::int64_t i = 0; i < length; ++i) to[i] *= share;
    }
}

T3_ALWAYS_INLINE void activate_all(const Layer &layer, const float *parameters, float *values,
                                   std::int64_t count) {
    const float slope = layer.kind == LayerKind::leaky_relu ? parameters[layer.parameters] : 0.0f;
    switch (layer.kind) {  // the cheap ones apart, so that their loops are vectors
        case LayerKind::relu:
            for (std::int64_t i = 0; i < count; ++i) values[i] = activate(LayerKind::relu, values[i], 0.0f);
            break;
        case LayerKind::leaky_relu:
            for (std::int64_t i = 0; i < count; ++i)
                values[i] = activate(LayerKind::leaky_relu, values[i], slope);
            break;
        default:
            for (std::int64_t i = 0; i < count; ++i) values[i] = activate(layer.kind, values[i], slope);
    }
}

T3_ALWAYS_INLINE void scale_and_shift(const Layer &layer, const float *parameters, float *values,
                                      std::int64_t count, std::int64_t stride) {
    const float *scale = parameters + layer.parameters, *shift = scale + layer.in_channels;
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t c = 0; c < layer.in_channels; ++c)
            values[i * stride + c] = __builtin_fmaf(values[i * stride + c], scale[c], shift[c]);
}

// The head for up to kGroup positions whose rows of the last map are scratch.rows.
template <class V, int P>
T3_ALWAYS_INLINE void answer(const Work &work, std::int64_t map_width, const Position *positions,
                             std::int64_t count, Scratch &scratch) {
    constexpr std::int64_t W = width_of<V>;
    const LayerProgram &program = work.program;
    const std::int64_t padded = (count + P - 1) / P * P;
    float *values = scratch.head[0].data(), *spare = scratch.head[1].data();
    std::int64_t stride = 0;
    for (std::int64_t i = program.map_layers; i < program.count; ++i) {
        const Layer &layer = program.layers[i];
        if (layer.kind == LayerKind::linear) {
            const PackedLayer &packed = (*work.packed)[i];
            const bool first = i == program.map_layers;
            for (std::int64_t p = 0; p < padded && !first; ++p) scratch.rows[p] = values + p * stride;
            const std::int64_t row_step = first ? layer.step_y * map_width * layer.in_channels : 0;
            const std::int64_t row_terms = layer.kernel_x * layer.in_channels;
            const std::int64_t vectors = packed.outputs / W;
            for (std::int64_t v = 0; v < vectors; v += kPanel) {
                const std::int64_t here = std::min<std::int64_t>(kPanel, vectors - v);
                const float *weights = packed.weights.data() + v * W * layer.fan_in();
                // One row of taps at a time keeps its weights in the L1 cache for all positions.
                for (std::int64_t ky = 0; ky < layer.kernel_y; ++ky) {
                    for (std::int64_t p = 0; p < padded; p += P) {
                        const float *rows[P];
                        for (int q = 0; q < P; ++q) rows[q] = scratch.rows[p + q] + ky * row_step;
                        float *sums = spare + p * packed.outputs + v * W;
                        gather_panel<V, P>(here, rows, 1, 0, layer.kernel_x, layer.step_x * layer.in_channels,
                                           layer.in_channels, weights + ky * row_terms * here * W,
                                           ky == 0 ? packed.bias.data() + v * W : sums,
                                           ky == 0 ? 0 : packed.outputs, sums, packed.outputs);
                    }
                }
            }
            stride = packed.outputs;
            std::swap(values, spare);
        } else if (layer.kind == LayerKind::softmax || layer.kind == LayerKind::log_softmax) {
            for (std::int64_t p = 0; p < count; ++p)
                normalise_exponentials(values + p * stride, layer.in_channels,
                                       layer.kind == LayerKind::log_softmax);
        } else if (layer.kind == LayerKind::affine) {
            scale_and_shift(layer, program.parameters, values, count, stride);
        } else {
            activate_all(layer, program.parameters, values, padded * stride);
        }
    }
    const std::int64_t classes = program.classes();
    for (std::int64_t p = 0; p < count; ++p)
        for (std::int64_t c = 0; c < classes; ++c)
            work.out.data[positions[p].window * work.out.window_stride + c * work.out.class_stride] =
                values[p * stride + c];
}

// All positions of one leaf: their common maps, then their heads.
template <class V, int P>
T3_ALWAYS_INLINE void answer_leaf(const Work &work, const Position *positions, std::int64_t count,
                                  Scratch &scratch) {
    const LayerProgram &program = work.program;
    std::int64_t top = positions[0].y, bottom = top, left = positions[0].x, right = left;
    for (std::int64_t p = 1; p < count; ++p) {
        top = std::min(top, positions[p].y);
        bottom = std::max(bottom, positions[p].y);
        left = std::min(left, positions[p].x);
        right = std::max(right, positions[p].x);
    }
    const Extent windows{bottom - top + 1, right - left + 1};
    float *in = scratch.maps[0].data(), *out = scratch.maps[1].data();
    Extent extent = extent_before(program, 0, windows);
    for (std::int64_t y = 0; y < extent.height; ++y)
        std::memcpy(in + y * extent.width, work.image + (top + y) * work.image_width + left,
                    extent.width * sizeof(float));
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const Layer &layer = program.layers[i];
        const Extent after = extent_before(program, i + 1, windows);
        if (layer.kind == LayerKind::convolution) {
            convolve<V, P>(layer, (*work.packed)[i], in, extent, out, after, scratch);
            std::swap(in, out);
        } else if (layer.pools()) {
            pool(layer, in, extent, out, after);
            std::swap(in, out);
        } else if (layer.kind == LayerKind::affine) {
            scale_and_shift(layer, program.parameters, in, after.area(), layer.in_channels);
        } else {
            activate_all(layer, program.parameters, in, after.area() * layer.in_channels);
        }
        extent = after;
    }
    const std::int64_t channels = program.head().in_channels;
    for (std::int64_t first = 0; first < count; first += kGroup) {
        const std::int64_t here = std::min(kGroup, count - first);
        for (std::int64_t p = 0; p < kGroup; ++p) {
            const Position &at = positions[first + std::min(p, here - 1)];
            scratch.rows[p] = in + ((at.y - top) * extent.width + at.x - left) * channels;
        }
        answer<V, P>(work, extent.width, positions + first, here, scratch);
    }
}

using LeafFunction = void (*)(const Work &, const Position *, std::int64_t, Scratch &);

struct Instructions {
    LeafFunction answer_leaf;
    std::int64_t vector_width;
};

void answer_leaf_baseline(const Work &work, const Position *positions, std::int64_t count, Scratch &scratch) {
    answer_leaf<Vector4, 4>(work, positions, count, scratch);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void answer_leaf_avx2(const Work &work, const Position *positions,
                                                          std::int64_t count, Scratch &scratch) {
    answer_leaf<Vector8, 4>(work, positions, count, scratch);
}

__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) void answer_leaf_avx512(
    const Work &work, const Position *positions, std::int64_t count, Scratch &scratch) {
    answer_leaf<Vector16, 8>(work, positions, count, scratch);
}
#endif

Instructions choose_instructions() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return {answer_leaf_avx512, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {answer_leaf_avx2, 8};
#endif
    return {answer_leaf_baseline, 4};
}

PackedLayer pack(const Layer &layer, const float *parameters, std::int64_t vector_width) {
    const std::int64_t fan_in = layer.fan_in(), outputs = layer.out_channels;
    const float *weights = parameters + layer.parameters, *bias = weights + fan_in * outputs;
    PackedLayer packed;
    packed.outputs = round_up(outputs, vector_width);
    packed.weights.assign(packed.outputs * fan_in, 0.0f);
    packed.bias.assign(packed.outputs, 0.0f);
    std::copy(bias, bias + outputs, packed.bias.begin());
    const std::int64_t panel = kPanel * vector_width;
    for (std::int64_t first = 0; first < packed.outputs; first += panel) {
        const std::int64_t columns = std::min(panel, packed.outputs - first);
        for (std::int64_t k = 0; k < fan_in; ++k)
            for (std::int64_t c = 0; c < columns && first + c < outputs; ++c)
                packed.weights[first * fan_in + k * columns + c] = weights[k * outputs + first + c];
    }
    return packed;
}

// Multiply-adds of the maps that a rectangle of windows needs.
double map_cost(const LayerProgram &program, Extent windows) {
    double cost = 0.0;
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const Layer &layer = program.layers[i];
        const double area = static_cast<double>(extent_before(program, i + 1, windows).area());
        if (layer.kind == LayerKind::convolution)
            cost += area * layer.fan_in() * round_up(layer.out_channels, 16);
        else
            cost += area * layer.kernel_y * layer.kernel_x * layer.out_channels;
    }
    return cost;
}

double head_cost(const LayerProgram &program) {
    double cost = 0.0;
    for (std::int64_t i = program.map_layers; i < program.count; ++i)
        if (program.layers[i].weighted())
            cost += static_cast<double>(program.layers[i].fan_in()) * program.layers[i].out_channels;
    return cost;
}

// Divides positions into leaves so that the maps of all leaves together cost least; returns that cost.
// A ring through a tile touches little of it, two windows in its corners almost nothing.
double divide(const LayerProgram &program, double head, std::vector<Position> &positions, Leaf all,
              std::vector<Leaf> &leaves) {
    const auto first = positions.begin() + all.first, last = positions.begin() + all.last;
    const auto by_y = [](const Position &a, const Position &b) { return a.y < b.y; };
    const auto by_x = [](const Position &a, const Position &b) { return a.x < b.x; };
    const auto [low_y, high_y] = std::minmax_element(first, last, by_y);
    const auto [low_x, high_x] = std::minmax_element(first, last, by_x);
    const std::int64_t top = low_y->y, left = low_x->x;
    const Extent windows{high_y->y - top + 1, high_x->x - left + 1};
    const double whole = map_cost(program, windows);
    const double count = static_cast<double>(all.last - all.first);
    const std::size_t mark = leaves.size();
    leaves.push_back(all);
    // Below a twentieth of the work, better maps are not worth the search.
    if (windows.area() == 1 || whole < 0.05 * head * count) return whole;
    const bool across = windows.width >= windows.height;
    const std::int64_t middle = across ? left + windows.width / 2 : top + windows.height / 2;
    const auto cut = std::partition(
        first, last, [=](const Position &p) { return across ? p.x < middle : p.y < middle; });
    const std::int64_t split = cut - positions.begin();
    leaves.pop_back();
    const double parts = divide(program, head, positions, {all.first, split}, leaves) +
                         divide(program, head, positions, {split, all.last}, leaves);
    if (parts < whole) return parts;
    leaves.resize(mark);
    leaves.push_back(all);
    return whole;
}

// Positions of the windows asked for in one tile, in C order.
void collect(const WindowList &windows, std::int64_t first_window, std::int64_t windows_x, std::int64_t y0,
             std::int64_t x0, Extent tile, std::vector<Position> &positions) {
    positions.clear();
    const std::int64_t begin = first_window + y0 * windows_x + x0;
    if (windows.dense()) {
        for (std::int64_t y = 0; y < tile.height; ++y)
            for (std::int64_t x = 0; x < tile.width; ++x)
                positions.push_back({begin + y * windows_x + x, y0 + y, x0 + x});
        return;
    }
    const std::int64_t *end = windows.data + windows.count;
    const std::int64_t *low = std::lower_bound(windows.data, end, begin);
    const std::int64_t *high = std::lower_bound(low, end, begin + (tile.height - 1) * windows_x + tile.width);
    for (std::int64_t y = 0; y < tile.height && low != high; ++y) {
        const std::int64_t row = begin + y * windows_x;
        low = std::lower_bound(low, high, row);
        for (; low != high && *low < row + tile.width; ++low)
            positions.push_back({low - windows.data, y0 + y, x0 + *low - row});
    }
}

void prepare(Scratch &scratch, const LayerProgram &program, const std::vector<PackedLayer> &packed) {
    const Extent tile{kTile, kTile};
    std::int64_t map = extent_before(program, 0, tile).area(), head = 0, block = 0;
    for (std::int64_t i = 0; i < program.count; ++i) {
        if (i < program.map_layers)
            map = std::max(map, extent_before(program, i + 1, tile).area() * program.layers[i].out_channels);
        std::int64_t &widest = i < program.map_layers ? block : head;
        widest = std::max(widest, packed[i].outputs);
    }
    for (int i = 0; i < 2; ++i) {
        scratch.maps[i].assign(map + kSlack, 0.0f);
        scratch.head[i].assign(head * kGroup + kSlack, 0.0f);
    }
    scratch.block.assign(block * kMostPositions + kSlack, 0.0f);
    scratch.rows.resize(kGroup);
}

}  // namespace

void score_windows(ImageStack<const float> images, std::int64_t size, LayerProgram program, WindowList windows,
                   Scores out, int threads) {
    static const Instructions instructions = choose_instructions();
    const std::int64_t windows_y = valid_windows(images.height, size), windows_x = valid_windows(images.width, size);
    const std::int64_t tiles_y = (windows_y + kTile - 1) / kTile, tiles_x = (windows_x + kTile - 1) / kTile;
    if (windows_y <= 0 || windows_x <= 0 || (!windows.dense() && windows.count == 0)) return;
    std::vector<PackedLayer> packed(program.count);
    for (std::int64_t i = 0; i < program.count; ++i) {
        packed[i].outputs = 0;
        if (program.layers[i].weighted())
            packed[i] = pack(program.layers[i], program.parameters, instructions.vector_width);
    }
    const double head = head_cost(program);
    const std::int64_t tiles = images.count * tiles_y * tiles_x;
    parallel_tasks<Scratch>(tiles, threads, [&](Scratch &scratch, std::int64_t t) {
        const WindowPosition tile = window_position(t, tiles_y, tiles_x);
        const std::int64_t y0 = tile.y * kTile, x0 = tile.x * kTile;
        const Extent extent{std::min(kTile, windows_y - y0), std::min(kTile, windows_x - x0)};
        std::vector<Position> &positions = scratch.positions;
        collect(windows, tile.image * windows_y * windows_x, windows_x, y0, x0, extent, positions);
        if (positions.empty()) return;
        if (scratch.rows.empty()) prepare(scratch, program, packed);
        const Work work{program, &packed, images.image(tile.image), images.width, out};
        scratch.leaves.clear();
        divide(program, head, positions, {0, static_cast<std::int64_t>(positions.size())}, scratch.leaves);
        for (const Leaf &leaf : scratch.leaves) {
            Position *first = positions.data() + leaf.first;
            std::sort(first, positions.data() + leaf.last,
                      [](const Position &a, const Position &b) { return a.window < b.window; });
            instructions.answer_leaf(work, first, leaf.last - leaf.first, scratch);
        }
    });
}

void score_windows_blocks(const TileBatch &batch, int lanes, bool reversed) {
    HostBlock block{lanes, reversed};
    const std::int64_t positions = block_positions(batch.program), width = head_width(batch.program);
    constexpr std::int64_t kBlocksPerTile = 3;
    for (std::int64_t index = 0; index < batch.program.map_layers; ++index)
        for (std::int64_t slot = 0; slot < batch.tile_count; ++slot)
            for (std::int64_t part = 0; part < kBlocksPerTile; ++part)
                map_layer(block, batch, index, slot, part, kBlocksPerTile);
    std::vector<float> shared(2 * positions * width);
    for (std::int64_t first = 0; first < batch.window_count; first += positions)
        head_layers(block, batch, first, positions, width, shared.data());
}

}  // namespace t3ssfast::cpu
