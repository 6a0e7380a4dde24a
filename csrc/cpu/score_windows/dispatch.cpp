#include "cpu/score_windows/dispatch.h"

#include <algorithm>

#include "core/winograd.h"

namespace t3ssfast::cpu {
namespace {

// Minimum edge of a subtile in windows: fine enough for a membrane about ten voxels thick, coarse enough to divide
// quickly.
constexpr std::int64_t kSubtileWindows = 12;
// Maximum edge of a patch in windows, or one subtile. A LeNet's transformed map of a patch then fits a 2 MiB L2 cache.
constexpr std::int64_t kPatchWindows = 48;
// Cost of one transformed map value, in multiply-adds of the first fully connected layer: it is computed once and read
// from beyond the L1 cache. Measured: 7% of the time where every window is requested.
constexpr double kInputTransformCost = 60.0;
// Cost of a block's products, including the output transform, relative to the products alone.
constexpr double kOutputTransformCost = 1.1;
// Regions are not divided further where feature maps cost less than this share of the fully connected layers.
constexpr double kMinMapShare = 0.05;

std::int64_t cells_in_subtile(std::int64_t cell) { return std::max<std::int64_t>(1, kSubtileWindows / cell); }

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Fills dispatch.requested and dispatch.occupied; false if no window is requested.
bool find_requested(const WindowList &windows, std::int64_t image, Extent all, TileDispatch &dispatch, Extent subtile) {
    const Rectangle &tile = dispatch.tile;
    const std::int64_t width = tile.right - tile.left, subtiles_x = (width + subtile.width - 1) / subtile.width;
    const std::int64_t begin = (image * all.height + tile.top) * all.width + tile.left;
    const std::int64_t *low = nullptr, *high = nullptr;
    if (!windows.dense()) {
        const std::int64_t *end = windows.data + windows.count;
        low = std::lower_bound(windows.data, end, begin);
        high = std::lower_bound(low, end, begin + (tile.bottom - tile.top - 1) * all.width + width);
        if (low == high) return false;
    }
    dispatch.requested.assign(tile.extent().area(), -1);
    dispatch.occupied.assign((tile.bottom - tile.top + subtile.height - 1) / subtile.height * subtiles_x,
                             windows.dense());
    bool any = windows.dense();
    for (std::int64_t y = 0; y < tile.bottom - tile.top; ++y) {
        const std::int64_t row = begin + y * all.width;
        std::int64_t *requested = dispatch.requested.data() + y * width;
        if (windows.dense()) {
            for (std::int64_t x = 0; x < width; ++x) requested[x] = row + x;
            continue;
        }
        low = std::lower_bound(low, high, row);
        for (; low != high && *low < row + width; ++low) {
            requested[*low - row] = low - windows.data;
            dispatch.occupied[y / subtile.height * subtiles_x + (*low - row) / subtile.width] = 1;
            any = true;
        }
    }
    return any;
}

void extend(Rectangle &footprint, const Rectangle &by) {
    if (footprint.top == footprint.bottom) {
        footprint = by;
        return;
    }
    footprint.top = std::min(footprint.top, by.top);
    footprint.bottom = std::max(footprint.bottom, by.bottom);
    footprint.left = std::min(footprint.left, by.left);
    footprint.right = std::max(footprint.right, by.right);
}

// Assigns the windows of a subtile to Winograd blocks where enough are requested, otherwise to `direct_windows`.
void dispatch_subtile(const WinogradLayout &winograd, Extent all, Rectangle area, TileDispatch &dispatch,
                      Subtile &subtile) {
    subtile.footprint = {0, 0, 0, 0};
    subtile.first_direct = static_cast<std::int64_t>(dispatch.direct_windows.size());
    subtile.first_block = static_cast<std::int64_t>(dispatch.blocks.size());
    const std::int64_t step_y = winograd.step_y, step_x = winograd.step_x;
    for (std::int64_t cell_y = area.top; cell_y < area.bottom; cell_y += winograd.cell_y()) {
        for (std::int64_t cell_x = area.left; cell_x < area.right; cell_x += winograd.cell_x()) {
            bool in_block = false;
            for (std::int64_t phase = 0; phase < step_y * step_x; ++phase) {
                const std::int64_t y = cell_y + phase / step_x, x = cell_x + phase % step_x;
                std::int64_t rows[9], count = 0;
                for (int k = 0; k < 9; ++k) {
                    rows[k] = dispatch.output_row(y + k / 3 * step_y, x + k % 3 * step_x);
                    count += rows[k] >= 0;
                }
                if (count == 0) continue;
                if (count >= winograd.min_windows) {
                    dispatch.blocks.push_back({y, x});
                    in_block = true;
                    continue;
                }
                for (int k = 0; k < 9; ++k) {
                    if (rows[k] < 0) continue;
                    const RequestedWindow at{rows[k], y + k / 3 * step_y, x + k % 3 * step_x};
                    dispatch.direct_windows.push_back(at);
                    extend(subtile.footprint, {at.y, at.y + 1, at.x, at.x + 1});
                }
            }
            if (in_block)
                extend(subtile.footprint,
                       {cell_y, std::min(all.height, cell_y + winograd.cell_y() + winograd.overhang_y), cell_x,
                        std::min(all.width, cell_x + winograd.cell_x() + winograd.overhang_x)});
        }
    }
    subtile.last_direct = static_cast<std::int64_t>(dispatch.direct_windows.size());
    subtile.last_block = static_cast<std::int64_t>(dispatch.blocks.size());
}

// Whether the Winograd blocks of a patch save more multiply-adds than the transform of its map costs.
bool winograd_pays(const Layer &fully_connected, const WinogradLayout &winograd, const Rectangle &patch,
                   const TileDispatch &dispatch, std::size_t first_block, std::vector<unsigned char> &needed) {
    if (winograd.min_windows <= 1) return true;  // every window must use the Winograd path
    const double window = static_cast<double>(fully_connected.fan_in() * fully_connected.out_channels);
    const double together = kOutputTransformCost * kWinogradPoints * kWinogradPoints *
                            static_cast<double>(winograd.filter_blocks_y * winograd.filter_blocks_x *
                                                fully_connected.in_channels * fully_connected.out_channels);
    const double row_of_cell = kInputTransformCost * kWinogradPoints * kWinogradPoints *
                               static_cast<double>(winograd.step_x * fully_connected.in_channels);
    const Extent cells{(patch.bottom - patch.top) / winograd.cell_y() + winograd.filter_blocks_y,
                       (patch.right - patch.left) / winograd.cell_x() + winograd.filter_blocks_x};
    needed.assign(cells.area() * winograd.step_y, 0);
    double saved = 0.0;
    for (std::size_t n = first_block; n < dispatch.blocks.size(); ++n) {
        const WinogradBlock &block = dispatch.blocks[n];
        for (int k = 0; k < 9; ++k)
            if (dispatch.output_row(block.y + k / 3 * winograd.step_y, block.x + k % 3 * winograd.step_x) >= 0)
                saved += window;
        saved -= together;
        const std::int64_t y = block.y - patch.top, x = block.x - patch.left;
        for (std::int64_t i = 0; i < winograd.filter_blocks_y; ++i) {
            for (std::int64_t j = 0; j < winograd.filter_blocks_x; ++j) {
                const std::int64_t cell = (y / winograd.cell_y() + i) * cells.width + x / winograd.cell_x() + j;
                unsigned char &row = needed[cell * winograd.step_y + y % winograd.cell_y()];
                if (!row) saved -= row_of_cell;
                row = 1;
            }
        }
    }
    return saved > 0.0;
}

// Assigns the subtiles of one patch; falls back to direct windows where the Winograd path does not pay.
void dispatch_patch(const Layer &fully_connected, const WinogradLayout &winograd, Extent all, const Rectangle &patch,
                    TileDispatch &dispatch) {
    const Extent subtile = subtile_extent(winograd);
    const std::int64_t across = (dispatch.tile.right - dispatch.tile.left + subtile.width - 1) / subtile.width;
    const std::size_t subtiles = dispatch.subtiles.size(), direct_windows = dispatch.direct_windows.size(),
                      first = dispatch.blocks.size();
    const auto dispatch_subtiles = [&](const WinogradLayout &layout) {
        for (std::int64_t y = patch.top; y < patch.bottom; y += subtile.height) {
            for (std::int64_t x = patch.left; x < patch.right; x += subtile.width) {
                const std::int64_t down = (y - dispatch.tile.top) / subtile.height;
                if (!dispatch.occupied[down * across + (x - dispatch.tile.left) / subtile.width]) continue;
                Subtile here{y / subtile.height, x / subtile.width, {}, 0, 0, 0, 0};
                dispatch_subtile(
                    layout, all,
                    {y, std::min(patch.bottom, y + subtile.height), x, std::min(patch.right, x + subtile.width)},
                    dispatch, here);
                dispatch.subtiles.push_back(here);
            }
        }
    };
    dispatch_subtiles(winograd);
    if (dispatch.blocks.size() == first ||
        winograd_pays(fully_connected, winograd, patch, dispatch, first, dispatch.needed))
        return;
    dispatch.subtiles.resize(subtiles);
    dispatch.direct_windows.resize(direct_windows);
    dispatch.blocks.resize(first);
    WinogradLayout direct_only = winograd;
    direct_only.min_windows = 10;
    dispatch_subtiles(direct_only);
}

// Bisects the subtiles recursively and returns the cost of their feature maps. A ring touches little of its tile, two
// windows in opposite corners almost nothing.
double divide_subtiles(const LayerProgram &program, double fully_connected, TileDispatch &dispatch, std::int64_t begin,
                       std::int64_t end) {
    const auto first = dispatch.subtiles.begin() + begin, last = dispatch.subtiles.begin() + end;
    MapRegion all{begin, end, first->footprint};
    std::int64_t top = first->y, bottom = top, left = first->x, right = left, windows = 0;
    for (auto subtile = first; subtile != last; ++subtile) {
        extend(all.footprint, subtile->footprint);
        top = std::min(top, subtile->y);
        bottom = std::max(bottom, subtile->y);
        left = std::min(left, subtile->x);
        right = std::max(right, subtile->x);
        windows += subtile->last_direct - subtile->first_direct + 9 * (subtile->last_block - subtile->first_block);
    }
    const double whole = feature_map_cost(program, all.footprint.extent());
    const std::size_t mark = dispatch.regions.size();
    dispatch.regions.push_back(all);
    if (end - begin == 1 || whole < kMinMapShare * fully_connected * static_cast<double>(windows)) return whole;
    const bool across = right - left >= bottom - top;
    const std::int64_t middle = across ? (left + right + 1) / 2 : (top + bottom + 1) / 2;
    const auto cut = std::partition(
        first, last, [=](const Subtile &subtile) { return across ? subtile.x < middle : subtile.y < middle; });
    const std::int64_t split = cut - dispatch.subtiles.begin();
    dispatch.regions.pop_back();
    const double parts = divide_subtiles(program, fully_connected, dispatch, begin, split) +
                         divide_subtiles(program, fully_connected, dispatch, split, end);
    if (parts < whole) return parts;
    dispatch.regions.resize(mark);
    dispatch.regions.push_back(all);
    return whole;
}

}  // namespace

WinogradLayout winograd_layout(const Layer &fully_connected, std::int64_t min_windows) {
    WinogradLayout winograd{std::max<std::int64_t>(1, fully_connected.step_y),
                            std::max<std::int64_t>(1, fully_connected.step_x),
                            (fully_connected.kernel_y + kWinogradEdge - 1) / kWinogradEdge,
                            (fully_connected.kernel_x + kWinogradEdge - 1) / kWinogradEdge,
                            0,
                            0,
                            min_windows};
    winograd.overhang_y = (winograd.filter_blocks_y * kWinogradEdge - fully_connected.kernel_y) * winograd.step_y;
    winograd.overhang_x = (winograd.filter_blocks_x * kWinogradEdge - fully_connected.kernel_x) * winograd.step_x;
    return winograd;
}

Extent subtile_extent(const WinogradLayout &winograd) {
    return {winograd.cell_y() * cells_in_subtile(winograd.cell_y()),
            winograd.cell_x() * cells_in_subtile(winograd.cell_x())};
}

Extent patch_extent(const WinogradLayout &winograd) {
    const Extent subtile = subtile_extent(winograd);
    return {subtile.height * std::max<std::int64_t>(1, kPatchWindows / subtile.height),
            subtile.width * std::max<std::int64_t>(1, kPatchWindows / subtile.width)};
}

double feature_map_cost(const LayerProgram &program, Extent windows) {
    double cost = 0.0;
    for (std::int64_t i = 0; i < program.map_layers; ++i) {
        const Layer &layer = program.layers[i];
        const double area = static_cast<double>(strided_input_extent(program, i + 1, windows).area());
        if (layer.kind == LayerKind::convolution)
            cost += area * layer.fan_in() * round_up(layer.out_channels, 16);
        else
            cost += area * layer.kernel_y * layer.kernel_x * layer.out_channels;
    }
    return cost;
}

double fully_connected_cost(const LayerProgram &program) {
    double cost = 0.0;
    for (std::int64_t i = program.map_layers; i < program.count; ++i)
        if (program.layers[i].weighted())
            cost += static_cast<double>(program.layers[i].fan_in()) * program.layers[i].out_channels;
    return cost;
}

bool dispatch_tile(const WindowList &windows, std::int64_t image, Extent all, Rectangle tile,
                   const Layer &fully_connected, const WinogradLayout &winograd, TileDispatch &dispatch) {
    dispatch.tile = tile;
    if (!find_requested(windows, image, all, dispatch, subtile_extent(winograd))) return false;
    dispatch.subtiles.clear();
    dispatch.direct_windows.clear();
    dispatch.blocks.clear();
    const Extent patch = patch_extent(winograd);
    for (std::int64_t y = tile.top; y < tile.bottom; y += patch.height)
        for (std::int64_t x = tile.left; x < tile.right; x += patch.width)
            dispatch_patch(fully_connected, winograd, all,
                           {y, std::min(tile.bottom, y + patch.height), x, std::min(tile.right, x + patch.width)},
                           dispatch);
    return true;
}

void divide_into_regions(const LayerProgram &program, TileDispatch &dispatch) {
    dispatch.regions.clear();
    divide_subtiles(program, fully_connected_cost(program), dispatch, 0,
                    static_cast<std::int64_t>(dispatch.subtiles.size()));
}

}  // namespace t3ssfast::cpu
