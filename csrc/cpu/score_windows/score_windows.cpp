// score_windows on the CPU. For every tile of windows the requested windows are dispatched to the direct or the
// Winograd path (dispatch.h), feature maps are computed for what both read (feature_maps.h), then the fully connected
// layers are computed window by window (fully_connected.h) or, where most of a block's 3 x 3 windows are requested, for
// the whole block with a third of the multiplications (winograd.h).
//
// Only this file is compiled with -ffp-contract=fast (CMakeLists.txt). Products are fused where the instruction set has
// FMA, so results may differ between instruction sets, but never between tilings or thread counts: every sum is
// computed in a fixed order, in whole vectors without remainders.
#include <algorithm>
#include <vector>

#include "backend.h"
#include "core/macros.h"
#include "core/window.h"
#include "cpu/parallel.h"
#include "cpu/score_windows/dispatch.h"
#include "cpu/score_windows/feature_maps.h"
#include "cpu/score_windows/fully_connected.h"
#include "cpu/score_windows/packed_weights.h"
#include "cpu/score_windows/winograd.h"

namespace t3ssfast::cpu {
namespace {

// Maximum edge of a tile in windows: the overlap with its neighbours' feature maps then costs a third of its own.
constexpr std::int64_t kMaxTileWindows = 192;
// Minimum number of tiles per thread, for load balance. Under a mask one thread has as many tiles as two, so that both
// do the same work in total: smaller tiles compute more feature maps.
constexpr std::int64_t kTilesPerThread = 8;
constexpr std::int64_t kMaskedTiles = 16;
// Maximum floats of a tile's largest feature map, of which a thread has two: 64 MiB.
constexpr std::int64_t kMaxMapFloats = 16 << 20;
constexpr std::int64_t kMaxBlockPositions = 8;
// Floats past the end of every buffer, for loads and stores of whole vectors.
constexpr std::int64_t kSlack = 64;

// Computes the feature maps of a region.
template <class V, int P>
T3_ALWAYS_INLINE FeatureMap compute_feature_maps(const Context &context, const Rectangle &footprint, Scratch &scratch) {
    const LayerProgram &program = context.program;
    float *in = scratch.feature_maps[0].data(), *out = scratch.feature_maps[1].data();
    Extent extent = strided_input_extent(program, 0, footprint.extent());
    const std::int64_t stride = program.window_stride();
    for (std::int64_t y = 0; y < extent.height; ++y)
        std::copy_n(context.image + (footprint.top * stride + y) * context.image_width + footprint.left * stride,
                    extent.width, in + y * extent.width);
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const Layer &layer = program.layers[i];
        const Extent after = strided_input_extent(program, i + 1, footprint.extent());
        if (layer.kind == LayerKind::convolution) {
            convolve<V, P>(layer, context.prepared->packed[i], in, extent, out, after, scratch.block.data());
            std::swap(in, out);
        } else if (layer.pools()) {
            pool(layer, in, extent, out, after);
            std::swap(in, out);
        } else if (layer.kind == LayerKind::affine) {
            scale_and_shift(layer, program.parameters, in, after.area(), layer.in_channels);
        } else {
            activate_map(layer, program.parameters, in, after.area() * layer.in_channels);
        }
        extent = after;
    }
    return {in, extent, footprint.top, footprint.left};
}

// Scores all windows of a region: their shared feature maps first, then the fully connected layers, patch by patch.
template <class V, int P>
T3_ALWAYS_INLINE void score_region(const Context &context, const MapRegion &region, Scratch &scratch) {
    const FeatureMap map = compute_feature_maps<V, P>(context, region.footprint, scratch);
    TileDispatch &dispatch = scratch.dispatch;
    const Extent subtile = subtile_extent(context.winograd), patch = patch_extent(context.winograd);
    const auto patch_of = [&](const Subtile &p) {
        return WinogradBlock{p.y * subtile.height / patch.height * patch.height,
                             p.x * subtile.width / patch.width * patch.width};
    };
    const auto begin = dispatch.subtiles.begin() + region.first, end = dispatch.subtiles.begin() + region.last;
    std::sort(begin, end, [&](const Subtile &a, const Subtile &b) {
        const WinogradBlock here = patch_of(a), there = patch_of(b);
        if (here.y != there.y) return here.y < there.y;
        if (here.x != there.x) return here.x < there.x;
        return a.y != b.y ? a.y < b.y : a.x < b.x;
    });
    scratch.direct_windows.clear();
    for (auto first = begin, last = begin; first != end; first = last) {
        const WinogradBlock corner = patch_of(*first);
        scratch.blocks.clear();
        for (; last != end && patch_of(*last).y == corner.y && patch_of(*last).x == corner.x; ++last) {
            scratch.direct_windows.insert(scratch.direct_windows.end(),
                                          dispatch.direct_windows.begin() + last->first_direct,
                                          dispatch.direct_windows.begin() + last->last_direct);
            scratch.blocks.insert(scratch.blocks.end(), dispatch.blocks.begin() + last->first_block,
                                  dispatch.blocks.begin() + last->last_block);
        }
        if (!scratch.blocks.empty())
            score_winograd_patch<V, P>(context, map, scratch.blocks.data(),
                                       static_cast<std::int64_t>(scratch.blocks.size()), corner.y, corner.x, scratch);
    }
    if (!scratch.direct_windows.empty())
        score_direct<V, P>(context, map, scratch.direct_windows.data(),
                           static_cast<std::int64_t>(scratch.direct_windows.size()), scratch);
}

using RegionFunction = void (*)(const Context &, const MapRegion &, Scratch &);

void score_region_portable(const Context &context, const MapRegion &region, Scratch &scratch) {
    score_region<Vector4, 4>(context, region, scratch);
}

#if T3_HAS_SIMD_LEVELS
__attribute__((target("avx2,fma"))) void score_region_avx2(const Context &context, const MapRegion &region,
                                                           Scratch &scratch) {
    score_region<Vector8, 4>(context, region, scratch);
}

__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) void score_region_avx512(
    const Context &context, const MapRegion &region, Scratch &scratch) {
    score_region<Vector16, 8>(context, region, scratch);
}
#endif

RegionFunction region_function([[maybe_unused]] SimdLevel level) {
#if T3_HAS_SIMD_LEVELS
    if (level == SimdLevel::avx512) return score_region_avx512;
    if (level == SimdLevel::avx2) return score_region_avx2;
#endif
    return score_region_portable;
}

// Edge of a tile in windows if `windows` are divided into `parts`: a multiple of the patch, the same for all tiles.
std::int64_t tile_edge(std::int64_t windows, std::int64_t parts, std::int64_t patch) {
    return ((windows + parts - 1) / parts + patch - 1) / patch * patch;
}

// Floats of the largest map that a tile of windows needs, including the image.
std::int64_t max_map_floats(const LayerProgram &program, const WinogradLayout &winograd, Extent all, Extent tile) {
    const Extent footprint{std::min(all.height, tile.height + winograd.overhang_y),
                           std::min(all.width, tile.width + winograd.overhang_x)};
    std::int64_t largest = strided_input_extent(program, 0, footprint).area();
    for (std::int64_t i = 0; i < program.map_layers; ++i)
        largest = std::max(largest, strided_input_extent(program, i + 1, footprint).area() *
                                        program.layers[i].out_channels);
    return largest;
}

Extent tile_extent(const LayerProgram &program, const WinogradLayout &winograd, std::int64_t images, Extent all,
                   bool masked, int threads) {
    const std::int64_t min_tiles = std::max(kTilesPerThread * usable_threads(threads), masked ? kMaskedTiles : 0);
    const Extent patch = patch_extent(winograd);
    Extent parts{(all.height + kMaxTileWindows - 1) / kMaxTileWindows,
                 (all.width + kMaxTileWindows - 1) / kMaxTileWindows};
    for (;;) {
        const Extent tile{tile_edge(all.height, parts.height, patch.height),
                          tile_edge(all.width, parts.width, patch.width)};
        const bool enough = images * parts.area() >= min_tiles;
        const bool smallest = tile.height <= patch.height && tile.width <= patch.width;
        if (smallest || (enough && max_map_floats(program, winograd, all, tile) <= kMaxMapFloats)) return tile;
        ++(tile.height >= tile.width ? parts.height : parts.width);
    }
}

void allocate(Scratch &scratch, const Context &context, Extent tile) {
    const LayerProgram &program = context.program;
    const WinogradLayout &winograd = context.winograd;
    const std::int64_t map = max_map_floats(program, winograd, context.all_windows, tile);
    std::int64_t convolution_outputs = 0, layer_outputs = 0;
    for (std::int64_t i = 0; i < program.map_layers; ++i)
        convolution_outputs = std::max(convolution_outputs, context.prepared->packed[i].outputs);
    for (std::int64_t i = program.map_layers + 1; i < program.count; ++i)
        layer_outputs = std::max(layer_outputs, context.prepared->packed[i].outputs);
    for (int i = 0; i < 2; ++i) {
        scratch.feature_maps[i].assign(map + kSlack, 0.0f);
        scratch.layer_outputs[i].assign(layer_outputs * kDirectBatch + kSlack, 0.0f);
    }
    scratch.block.assign(convolution_outputs * kMaxBlockPositions + kSlack, 0.0f);
    const std::int64_t hidden = context.prepared->packed[program.map_layers].outputs;
    const std::int64_t rows = std::max(kDirectBatch, 9 * kWinogradBatch) + kDirectBatch;
    scratch.hidden.assign(rows * hidden + kSlack, 0.0f);
    scratch.rows.resize(kDirectBatch);
    scratch.output_rows.resize(rows);
    if (!winograd.used()) return;
    const TransformedLayout layout(winograd, program.first_fully_connected().in_channels);
    scratch.transformed.assign(layout.floats() + kSlack, 0.0f);
    scratch.needed.resize(layout.cells_y * layout.cells_x * winograd.step_y);
    scratch.patch.resize(kWinogradPoints * kWinogradPoints * winograd.step_y * layout.run + kSlack);
    const std::int64_t panel = std::min<std::int64_t>(kPanelVectors * kMaxVectorWidth, hidden);
    scratch.products.assign((kWinogradBatch + kMaxBlockPositions) * kWinogradPoints * kWinogradPoints * panel + kSlack,
                            0.0f);
    scratch.zeros.assign(kPanelVectors * kMaxVectorWidth, 0.0f);
    scratch.hidden_rows.resize(9 * kWinogradBatch);
}

// Tiles that contain listed windows, by descending number of windows, so that the last tasks are short.
std::vector<std::int64_t> fullest_tiles_first(const WindowList &windows, Extent all, Extent tile, Extent tiles,
                                              std::int64_t images) {
    std::vector<std::int64_t> windows_in_tile(images * tiles.area(), 0), order;
    std::int64_t row = -1, begin = 0, end = 0, first_tile = 0;
    for (std::int64_t i = 0; i < windows.count; ++i) {
        const std::int64_t index = windows.data[i];
        if (index >= end || row < 0) {
            row = index / all.width;
            begin = row * all.width;
            end = begin + all.width;
            first_tile = (row / all.height * tiles.height + row % all.height / tile.height) * tiles.width;
        }
        ++windows_in_tile[first_tile + (index - begin) / tile.width];
    }
    for (std::int64_t t = 0; t < static_cast<std::int64_t>(windows_in_tile.size()); ++t)
        if (windows_in_tile[t] > 0) order.push_back(t);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return windows_in_tile[a] > windows_in_tile[b]; });
    return order;
}

}  // namespace

void score_windows(ImageStack<const float> images, std::int64_t size, const PreparedProgram &prepared,
                   WindowList windows, Scores out, int threads) {
    if (images.height < size || images.width < size || (!windows.dense() && windows.count == 0)) return;
    const LayerProgram program = prepared.program();
    const std::int64_t stride = program.window_stride();
    const Extent all{(valid_windows(images.height, size) - 1) / stride + 1,
                     (valid_windows(images.width, size) - 1) / stride + 1};
    const RegionFunction score = region_function(prepared.level);
    const bool masked = !windows.dense() && 2 * windows.count < images.count * all.area();
    const Extent tile = tile_extent(program, prepared.winograd, images.count, all, masked, threads);
    const Extent tiles{(all.height + tile.height - 1) / tile.height, (all.width + tile.width - 1) / tile.width};
    std::vector<std::int64_t> order;
    if (!windows.dense()) order = fullest_tiles_first(windows, all, tile, tiles, images.count);
    const std::int64_t tasks = windows.dense() ? images.count * tiles.area() : static_cast<std::int64_t>(order.size());
    parallel_tasks<Scratch>(tasks, threads, [&](Scratch &scratch, std::int64_t task) {
        const std::int64_t t = windows.dense() ? task : order[task];
        const WindowPosition at = window_position(t, tiles.height, tiles.width);
        const std::int64_t top = at.y * tile.height, left = at.x * tile.width;
        const Rectangle here{top, std::min(all.height, top + tile.height), left,
                             std::min(all.width, left + tile.width)};
        const Context context{program, &prepared, prepared.winograd, images.image(at.image), images.width, all, out};
        if (!dispatch_tile(windows, at.image, all, here, program.first_fully_connected(), context.winograd,
                           scratch.dispatch))
            return;
        if (scratch.rows.empty()) allocate(scratch, context, tile);
        divide_into_regions(program, scratch.dispatch);
        for (const MapRegion &region : scratch.dispatch.regions) score(context, region, scratch);
    });
}

}  // namespace t3ssfast::cpu
