#include "cpu/sliding/places.h"

#include <algorithm>

#include "core/minimal.h"

namespace t3ssfast::cpu {
namespace {

// Windows along a plot at least: fine enough for a membrane of some ten voxels, coarse enough to divide quickly.
constexpr std::int64_t kPlot = 12;
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
void sort_plot(const Nines &nines, Extent all, const Rectangle &area, Places &places, Plot &plot) {
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

bool find_places(const WindowList &windows, std::int64_t image, Extent all, Rectangle tile, const Nines &nines,
                 Places &places) {
    places.tile = tile;
    const Extent plot = plot_extent(nines);
    if (!note_asked(windows, image, all, places, plot)) return false;
    places.plots.clear();
    places.positions.clear();
    places.nines.clear();
    std::size_t index = 0;
    for (std::int64_t y = tile.top; y < tile.bottom; y += plot.height) {
        for (std::int64_t x = tile.left; x < tile.right; x += plot.width) {
            if (!places.touched[index++]) continue;
            const Rectangle area{y, std::min(tile.bottom, y + plot.height), x, std::min(tile.right, x + plot.width)};
            Plot here{y / plot.height, x / plot.width, {}, 0, 0, 0, 0};
            sort_plot(nines, all, area, places, here);
            places.plots.push_back(here);
        }
    }
    return true;
}

void divide_places(const LayerProgram &program, Places &places) {
    places.leaves.clear();
    divide(program, head_cost(program), places, 0, static_cast<std::int64_t>(places.plots.size()));
}

}  // namespace t3ssfast::cpu
