// score_windows on the CPU. A tile of windows at a time: the windows asked for are sorted (places), feature maps
// made for what they reach (maps), then the head done at each window or, where most of nine neighbours are asked
// for, at nine together with a third of the multiplications (head).
//
// This file alone is compiled with -ffp-contract=fast (CMakeLists.txt): its products are fused where the
// instruction set has FMA, so bits may differ between instruction sets, but never between tilings or thread
// counts: every sum runs in a fixed order, in whole vectors without remainders.
#include <algorithm>
#include <vector>

#include "backend.h"
#include "core/block.h"
#include "core/macros.h"
#include "core/window.h"
#include "cpu/parallel.h"
#include "cpu/score_windows/head.h"
#include "cpu/score_windows/maps.h"
#include "cpu/score_windows/packed.h"
#include "cpu/score_windows/dispatch.h"

namespace t3ssfast::cpu {
namespace {

// Windows along a tile at most: the maps around it, made twice or more, are then a third of its own.
constexpr std::int64_t kTile = 192;
// Tiles a thread should have, so that all end at about the same time. One thread has as many under a mask as two, so
// that two have the same work in all: smaller tiles make more maps.
constexpr std::int64_t kTilesPerThread = 8;
constexpr std::int64_t kMaskedTiles = 16;
// Floats of the largest map of a tile, above which tiles are made smaller: 64 MiB, twice a thread.
constexpr std::int64_t kMostMapFloats = 16 << 20;
constexpr std::int64_t kMostPositions = 8;
// Floats past the end of every buffer, so that whole vectors may be read and written.
constexpr std::int64_t kSlack = 64;

// The last map of a leaf.
template <class V, int P>
T3_ALWAYS_INLINE LastMap make_maps(const Work &work, const Rectangle &reach, Scratch &scratch) {
    const LayerProgram &program = work.program;
    float *in = scratch.maps[0].data(), *out = scratch.maps[1].data();
    Extent extent = extent_before(program, 0, reach.extent());
    for (std::int64_t y = 0; y < extent.height; ++y)
        std::copy_n(work.image + (reach.top + y) * work.image_width + reach.left, extent.width, in + y * extent.width);
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const Layer &layer = program.layers[i];
        const Extent after = extent_before(program, i + 1, reach.extent());
        if (layer.kind == LayerKind::convolution) {
            convolve<V, P>(layer, work.prepared->packed[i], in, extent, out, after, scratch.block.data());
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
    return {in, extent, reach.top, reach.left};
}

// All windows of one leaf: their common maps, then their heads, patch after patch.
template <class V, int P>
T3_ALWAYS_INLINE void answer_leaf(const Work &work, const Leaf &leaf, Scratch &scratch) {
    const LastMap map = make_maps<V, P>(work, leaf.reach, scratch);
    Places &places = scratch.places;
    const Extent plot = plot_extent(work.nines), patch = patch_extent(work.nines);
    const auto patch_of = [&](const Plot &p) {
        return Nine{p.y * plot.height / patch.height * patch.height, p.x * plot.width / patch.width * patch.width};
    };
    const auto begin = places.plots.begin() + leaf.first, end = places.plots.begin() + leaf.last;
    std::sort(begin, end, [&](const Plot &a, const Plot &b) {
        const Nine here = patch_of(a), there = patch_of(b);
        if (here.y != there.y) return here.y < there.y;
        if (here.x != there.x) return here.x < there.x;
        return a.y != b.y ? a.y < b.y : a.x < b.x;
    });
    scratch.positions.clear();
    for (auto first = begin, last = begin; first != end; first = last) {
        const Nine corner = patch_of(*first);
        scratch.nines.clear();
        for (; last != end && patch_of(*last).y == corner.y && patch_of(*last).x == corner.x; ++last) {
            scratch.positions.insert(scratch.positions.end(), places.positions.begin() + last->first_position,
                                     places.positions.begin() + last->last_position);
            scratch.nines.insert(scratch.nines.end(), places.nines.begin() + last->first_nine,
                                 places.nines.begin() + last->last_nine);
        }
        if (!scratch.nines.empty())
            answer_patch<V, P>(work, map, scratch.nines.data(), static_cast<std::int64_t>(scratch.nines.size()),
                               corner.y, corner.x, scratch);
    }
    if (!scratch.positions.empty())
        answer_positions<V, P>(work, map, scratch.positions.data(),
                               static_cast<std::int64_t>(scratch.positions.size()), scratch);
}

using LeafFunction = void (*)(const Work &, const Leaf &, Scratch &);

void answer_leaf_baseline(const Work &work, const Leaf &leaf, Scratch &scratch) {
    answer_leaf<Vector4, 4>(work, leaf, scratch);
}

#if T3_HAS_SIMD_LEVELS
__attribute__((target("avx2,fma"))) void answer_leaf_avx2(const Work &work, const Leaf &leaf, Scratch &scratch) {
    answer_leaf<Vector8, 4>(work, leaf, scratch);
}

__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) void answer_leaf_avx512(
    const Work &work, const Leaf &leaf, Scratch &scratch) {
    answer_leaf<Vector16, 8>(work, leaf, scratch);
}
#endif

LeafFunction leaf_function(SimdLevel level) {
#if T3_HAS_SIMD_LEVELS
    if (level == SimdLevel::avx512) return answer_leaf_avx512;
    if (level == SimdLevel::avx2) return answer_leaf_avx2;
#endif
    return answer_leaf_baseline;
}

// Windows along a tile: whole patches, the same for all tiles, and small enough that all threads have some.
std::int64_t tile_edge(std::int64_t windows, std::int64_t pieces, std::int64_t patch) {
    return ((windows + pieces - 1) / pieces + patch - 1) / patch * patch;
}

// Floats of the largest map that a tile of windows needs, the image counted.
std::int64_t map_floats(const LayerProgram &program, const Nines &nines, Extent all, Extent tile) {
    const Extent reach{std::min(all.height, tile.height + nines.beyond_y),
                       std::min(all.width, tile.width + nines.beyond_x)};
    std::int64_t most = extent_before(program, 0, reach).area();
    for (std::int64_t i = 0; i < program.map_layers; ++i)
        most = std::max(most, extent_before(program, i + 1, reach).area() * program.layers[i].out_channels);
    return most;
}

Extent tile_extent(const LayerProgram &program, const Nines &nines, std::int64_t images, Extent all, bool masked,
                   int threads) {
    const std::int64_t wanted = std::max(kTilesPerThread * usable_threads(threads), masked ? kMaskedTiles : 0);
    const Extent patch = patch_extent(nines);
    Extent pieces{(all.height + kTile - 1) / kTile, (all.width + kTile - 1) / kTile};
    for (;;) {
        const Extent tile{tile_edge(all.height, pieces.height, patch.height),
                          tile_edge(all.width, pieces.width, patch.width)};
        const bool enough = images * pieces.area() >= wanted;
        const bool least = tile.height <= patch.height && tile.width <= patch.width;
        if (least || (enough && map_floats(program, nines, all, tile) <= kMostMapFloats)) return tile;
        ++(tile.height >= tile.width ? pieces.height : pieces.width);
    }
}

void make_room(Scratch &scratch, const Work &work, Extent tile) {
    const LayerProgram &program = work.program;
    const Nines &nines = work.nines;
    const std::int64_t map = map_floats(program, nines, work.all_windows, tile);
    std::int64_t block = 0, head = 0;
    for (std::int64_t i = 0; i < program.map_layers; ++i) block = std::max(block, work.prepared->packed[i].outputs);
    for (std::int64_t i = program.map_layers + 1; i < program.count; ++i)
        head = std::max(head, work.prepared->packed[i].outputs);
    for (int i = 0; i < 2; ++i) {
        scratch.maps[i].assign(map + kSlack, 0.0f);
        scratch.head[i].assign(head * kGroup + kSlack, 0.0f);
    }
    scratch.block.assign(block * kMostPositions + kSlack, 0.0f);
    const std::int64_t hidden = work.prepared->packed[program.map_layers].outputs;
    const std::int64_t rows = std::max(kGroup, 9 * kNines) + kGroup;
    scratch.hidden.assign(rows * hidden + kSlack, 0.0f);
    scratch.rows.resize(kGroup);
    scratch.answers.resize(rows);
    if (!nines.used()) return;
    const Transformed layout(nines, program.head().in_channels);
    scratch.transformed.assign(layout.floats() + kSlack, 0.0f);
    scratch.needed.resize(layout.cells_y * layout.cells_x * nines.step_y);
    scratch.patch.resize(kMinimalPoints * kMinimalPoints * nines.step_y * layout.run + kSlack);
    const std::int64_t panel = std::min<std::int64_t>(kPanel * kWidest, hidden);
    scratch.products.assign((kNines + kMostPositions) * kMinimalPoints * kMinimalPoints * panel + kSlack, 0.0f);
    scratch.zeros.assign(kPanel * kWidest, 0.0f);
    scratch.hidden_rows.resize(9 * kNines);
}

// Tiles that hold listed windows, those with most of them first: the last ones that threads take are then short.
std::vector<std::int64_t> fullest_first(const WindowList &windows, Extent all, Extent tile, Extent tiles,
                                        std::int64_t images) {
    std::vector<std::int64_t> held(images * tiles.area(), 0), order;
    std::int64_t row = -1, begin = 0, end = 0, first_tile = 0;
    for (std::int64_t i = 0; i < windows.count; ++i) {
        const std::int64_t index = windows.data[i];
        if (index >= end || row < 0) {
            row = index / all.width;
            begin = row * all.width;
            end = begin + all.width;
            first_tile = (row / all.height * tiles.height + row % all.height / tile.height) * tiles.width;
        }
        ++held[first_tile + (index - begin) / tile.width];
    }
    for (std::int64_t t = 0; t < static_cast<std::int64_t>(held.size()); ++t)
        if (held[t] > 0) order.push_back(t);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return held[a] > held[b]; });
    return order;
}

}  // namespace

void score_windows(ImageStack<const float> images, std::int64_t size, const PreparedProgram &prepared,
                   WindowList windows, Scores out, int threads) {
    const Extent all{valid_windows(images.height, size), valid_windows(images.width, size)};
    if (all.height <= 0 || all.width <= 0 || (!windows.dense() && windows.count == 0)) return;
    const LayerProgram program = prepared.program();
    const LeafFunction answer = leaf_function(prepared.level);
    const bool masked = !windows.dense() && 2 * windows.count < images.count * all.area();
    const Extent tile = tile_extent(program, prepared.nines, images.count, all, masked, threads);
    const Extent tiles{(all.height + tile.height - 1) / tile.height, (all.width + tile.width - 1) / tile.width};
    std::vector<std::int64_t> order;
    if (!windows.dense()) order = fullest_first(windows, all, tile, tiles, images.count);
    const std::int64_t tasks = windows.dense() ? images.count * tiles.area() : static_cast<std::int64_t>(order.size());
    parallel_tasks<Scratch>(tasks, threads, [&](Scratch &scratch, std::int64_t task) {
        const std::int64_t t = windows.dense() ? task : order[task];
        const WindowPosition at = window_position(t, tiles.height, tiles.width);
        const std::int64_t top = at.y * tile.height, left = at.x * tile.width;
        const Rectangle here{top, std::min(all.height, top + tile.height), left, std::min(all.width, left + tile.width)};
        const Work work{program, &prepared, prepared.nines, images.image(at.image), images.width, all, out};
        if (!find_places(windows, at.image, all, here, program.head(), work.nines, scratch.places)) return;
        if (scratch.rows.empty()) make_room(scratch, work, tile);
        divide_places(program, scratch.places);
        for (const Leaf &leaf : scratch.places.leaves) answer(work, leaf, scratch);
    });
}

void score_windows_blocks(const TileBatch &batch, int lanes, bool reversed) {
    const HostBlock block(lanes, reversed);
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
