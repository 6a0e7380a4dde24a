#include "cpu/score_windows/dispatch.h"

#include <algorithm>

#include "core/minimal.h"

namespace t3ssfast::cpu {
namespace {

// Windows along a plot at least: fine enough for a membrane of some ten voxels, coarse enough to divide quickly.
constexpr std::int64_t kPlot = 12;
// Windows along a patch at most, or one plot: its transformed map then stays in a 2 MiB L2 cache for a LeNet.
constexpr std::int64_t kPatch = 48;
// What one value of the transformed map costs, in multiply-adds of the head's first layer; it is made once and read
// from beyond the L1 cache. Measured: 7% of the time where every window is asked for.
constexpr double kTransformedValue = 60.0;
// The products of a nine, with those of its outputs' transform.
constexpr double kOutputs = 1.1;
// Below this share of the work, better maps are not worth the search.
constexpr double kWorthwhile = 0.05;

std::int64_t cells_in_plot(std::int64_t cell) { return std::max<std::int64_t>(1, kPlot / cell); }

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Notes rows of answers in places.asked; false if there are none.
bool note_asked(const WindowList &windows, std::int64_t image, Extent all, Places &places, Extent plot) {
    const Rectangle &tile = places.tile;
    const std::int64_t width = tile.right - tile.left, plots_x = (width + plot.width - 1) / plot.width;
    const std::int64_t begin = (image * all.height + tile.top) * all.width + tile.left;
    const std::int64_t *low = nullptr, *high = nullptr;
    if (!windows.dense()) {
        const std::int64_t *end = windows.data + windows.count;
        low = std::lower_bound(windows.data, end, begin);
        high = std::lower_bound(low, end, begin + (tile.bottom - tile.top - 1) * all.width + width);
        if (low == high) return false;
    }
    places.asked.assign(tile.extent().area(), -1);
    places.touched.assign((tile.bottom - tile.top + plot.height - 1) / plot.height * plots_x, windows.dense());
    bool any = windows.dense();
    for (std::int64_t y = 0; y < tile.bottom - tile.top; ++y) {
        const std::int64_t row = begin + y * all.width;
        std::int64_t *asked = places.asked.data() + y * width;
        if (windows.dense()) {
            for (std::int64_t x = 0; x < width; ++x) asked[x] = row + x;
            continue;
        }
        low = std::lower_bound(low, high, row);
        for (; low != high && *low < row + width; ++low) {
            asked[*low - row] = low - windows.data;
            places.touched[y / plot.height * plots_x + (*low - row) / plot.width] = 1;
            any = true;
        }
    }
    return any;
}

void widen(Rectangle &reach, const Rectangle &by) {
    if (reach.top == reach.bottom) {
        reach = by;
        return;
    }
    reach.top = std::min(reach.top, by.top);
    reach.bottom = std::max(reach.bottom, by.bottom);
    reach.left = std::min(reach.left, by.left);
    reach.right = std::max(reach.right, by.right);
}

// The windows of a plot: those of nines with enough of them go to `nines`, the others to `positions`.
void sort_plot(const Nines &nines, Extent all, Rectangle area, Places &places, Plot &plot) {
    plot.reach = {0, 0, 0, 0};
    plot.first_position = static_cast<std::int64_t>(places.positions.size());
    plot.first_nine = static_cast<std::int64_t>(places.nines.size());
    const std::int64_t step_y = nines.step_y, step_x = nines.step_x;
    for (std::int64_t cell_y = area.top; cell_y < area.bottom; cell_y += nines.cell_y()) {
        for (std::int64_t cell_x = area.left; cell_x < area.right; cell_x += nines.cell_x()) {
            bool in_nines = false;
            for (std::int64_t phase = 0; phase < step_y * step_x; ++phase) {
                const std::int64_t y = cell_y + phase / step_x, x = cell_x + phase % step_x;
                std::int64_t rows[9], count = 0;
                for (int k = 0; k < 9; ++k) {
                    rows[k] = places.row_of(y + k / 3 * step_y, x + k % 3 * step_x);
                    count += rows[k] >= 0;
                }
                if (count == 0) continue;
                if (count >= nines.least) {
                    places.nines.push_back({y, x});
                    in_nines = true;
                    continue;
                }
                for (int k = 0; k < 9; ++k) {
                    if (rows[k] < 0) continue;
                    const Position at{rows[k], y + k / 3 * step_y, x + k % 3 * step_x};
                    places.positions.push_back(at);
                    widen(plot.reach, {at.y, at.y + 1, at.x, at.x + 1});
                }
            }
            if (in_nines)
                widen(plot.reach, {cell_y, std::min(all.height, cell_y + nines.cell_y() + nines.beyond_y), cell_x,
                                   std::min(all.width, cell_x + nines.cell_x() + nines.beyond_x)});
        }
    }
    plot.last_position = static_cast<std::int64_t>(places.positions.size());
    plot.last_nine = static_cast<std::int64_t>(places.nines.size());
}

// Whether the nines of a patch save more than the transform of its map costs, in multiply-adds.
bool nines_pay(const Layer &head, const Nines &nines, const Rectangle &patch, const Places &places,
               std::size_t first_nine, std::vector<unsigned char> &needed) {
    if (nines.least <= 1) return true;  // asked to do all windows so
    const double window = static_cast<double>(head.fan_in() * head.out_channels);
    const double together = kOutputs * kMinimalPoints * kMinimalPoints *
                            static_cast<double>(nines.threes_y * nines.threes_x * head.in_channels * head.out_channels);
    const double row_of_cell = kTransformedValue * kMinimalPoints * kMinimalPoints *
                               static_cast<double>(nines.step_x * head.in_channels);
    const Extent cells{(patch.bottom - patch.top) / nines.cell_y() + nines.threes_y,
                       (patch.right - patch.left) / nines.cell_x() + nines.threes_x};
    needed.assign(cells.area() * nines.step_y, 0);
    double saved = 0.0;
    for (std::size_t n = first_nine; n < places.nines.size(); ++n) {
        const Nine &nine = places.nines[n];
        for (int k = 0; k < 9; ++k)
            if (places.row_of(nine.y + k / 3 * nines.step_y, nine.x + k % 3 * nines.step_x) >= 0) saved += window;
        saved -= together;
        const std::int64_t y = nine.y - patch.top, x = nine.x - patch.left;
        for (std::int64_t i = 0; i < nines.threes_y; ++i) {
            for (std::int64_t j = 0; j < nines.threes_x; ++j) {
                const std::int64_t cell = (y / nines.cell_y() + i) * cells.width + x / nines.cell_x() + j;
                unsigned char &row = needed[cell * nines.step_y + y % nines.cell_y()];
                if (!row) saved -= row_of_cell;
                row = 1;
            }
        }
    }
    return saved > 0.0;
}

// The plots of one patch; its nines are dissolved where they do not pay.
void sort_patch(const Layer &head, const Nines &nines, Extent all, const Rectangle &patch, Places &places) {
    const Extent plot = plot_extent(nines);
    const std::int64_t across = (places.tile.right - places.tile.left + plot.width - 1) / plot.width;
    const std::size_t plots = places.plots.size(), positions = places.positions.size(), first = places.nines.size();
    const auto sort_plots = [&](const Nines &rule) {
        for (std::int64_t y = patch.top; y < patch.bottom; y += plot.height) {
            for (std::int64_t x = patch.left; x < patch.right; x += plot.width) {
                const std::int64_t down = (y - places.tile.top) / plot.height;
                if (!places.touched[down * across + (x - places.tile.left) / plot.width]) continue;
                Plot here{y / plot.height, x / plot.width, {}, 0, 0, 0, 0};
                sort_plot(rule, all, {y, std::min(patch.bottom, y + plot.height), x, std::min(patch.right, x + plot.width)},
                          places, here);
                places.plots.push_back(here);
            }
        }
    };
    sort_plots(nines);
    if (places.nines.size() == first || nines_pay(head, nines, patch, places, first, places.needed)) return;
    places.plots.resize(plots);
    places.positions.resize(positions);
    places.nines.resize(first);
    Nines never = nines;
    never.least = 10;
    sort_plots(never);
}

// Divides plots; returns what the maps then cost. A ring through a tile touches little of it, two windows in its
// corners almost nothing.
double divide(const LayerProgram &program, double head, Places &places, std::int64_t begin, std::int64_t end) {
    const auto first = places.plots.begin() + begin, last = places.plots.begin() + end;
    Leaf all{begin, end, first->reach};
    std::int64_t top = first->y, bottom = top, left = first->x, right = left, windows = 0;
    for (auto plot = first; plot != last; ++plot) {
        widen(all.reach, plot->reach);
        top = std::min(top, plot->y);
        bottom = std::max(bottom, plot->y);
        left = std::min(left, plot->x);
        right = std::max(right, plot->x);
        windows += plot->last_position - plot->first_position + 9 * (plot->last_nine - plot->first_nine);
    }
    const double whole = map_cost(program, all.reach.extent());
    const std::size_t mark = places.leaves.size();
    places.leaves.push_back(all);
    if (end - begin == 1 || whole < kWorthwhile * head * static_cast<double>(windows)) return whole;
    const bool across = right - left >= bottom - top;
    const std::int64_t middle = across ? (left + right + 1) / 2 : (top + bottom + 1) / 2;
    const auto cut =
        std::partition(first, last, [=](const Plot &plot) { return across ? plot.x < middle : plot.y < middle; });
    const std::int64_t split = cut - places.plots.begin();
    places.leaves.pop_back();
    const double parts =
        divide(program, head, places, begin, split) + divide(program, head, places, split, end);
    if (parts < whole) return parts;
    places.leaves.resize(mark);
    places.leaves.push_back(all);
    return whole;
}

}  // namespace

Nines nines_of(const Layer &head, std::int64_t least) {
    Nines nines{std::max<std::int64_t>(1, head.step_y),
                std::max<std::int64_t>(1, head.step_x),
                (head.kernel_y + kMinimalEdge - 1) / kMinimalEdge,
                (head.kernel_x + kMinimalEdge - 1) / kMinimalEdge,
                0,
                0,
                least};
    nines.beyond_y = (nines.threes_y * kMinimalEdge - head.kernel_y) * nines.step_y;
    nines.beyond_x = (nines.threes_x * kMinimalEdge - head.kernel_x) * nines.step_x;
    return nines;
}

Extent plot_extent(const Nines &nines) {
    return {nines.cell_y() * cells_in_plot(nines.cell_y()), nines.cell_x() * cells_in_plot(nines.cell_x())};
}

Extent patch_extent(const Nines &nines) {
    const Extent plot = plot_extent(nines);
    return {plot.height * std::max<std::int64_t>(1, kPatch / plot.height),
            plot.width * std::max<std::int64_t>(1, kPatch / plot.width)};
}

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

bool find_places(const WindowList &windows, std::int64_t image, Extent all, Rectangle tile, const Layer &head,
                 const Nines &nines, Places &places) {
    places.tile = tile;
    if (!note_asked(windows, image, all, places, plot_extent(nines))) return false;
    places.plots.clear();
    places.positions.clear();
    places.nines.clear();
    const Extent patch = patch_extent(nines);
    for (std::int64_t y = tile.top; y < tile.bottom; y += patch.height)
        for (std::int64_t x = tile.left; x < tile.right; x += patch.width)
            sort_patch(head, nines, all,
                       {y, std::min(tile.bottom, y + patch.height), x, std::min(tile.right, x + patch.width)}, places);
    return true;
}

void divide_places(const LayerProgram &program, Places &places) {
    places.leaves.clear();
    divide(program, head_cost(program), places, 0, static_cast<std::int64_t>(places.plots.size()));
}

}  // namespace t3ssfast::cpu
