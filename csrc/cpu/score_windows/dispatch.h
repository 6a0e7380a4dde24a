// Which windows of a tile are asked for, which of them are answered in nines, and which share their maps.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layers.h"
#include "core/view.h"

namespace t3ssfast::cpu {

// Windows in nines: 3 x 3 of them, a step of the head's taps apart, get their first hidden layer by minimal
// filtering (core/minimal.h). Nines lie at fixed places of the image, in cells of 3 x 3 steps, and cells in patches,
// so what a window is answered does not depend on the tiling; only on whether enough of its nine are asked for, and
// of its patch for the map's transform to pay.
struct Nines {
    std::int64_t step_y, step_x;    // of the head's first layer
    std::int64_t threes_y, threes_x;  // threes of taps along its kernel, the last one filled up with zeros
    std::int64_t beyond_y, beyond_x;  // windows past a cell whose maps the zeros reach
    std::int64_t least;             // asked for in a nine from which all of it is done; above 9: never

    std::int64_t cell_y() const { return 3 * step_y; }
    std::int64_t cell_x() const { return 3 * step_x; }
    bool used() const { return least <= 9; }
};

Nines nines_of(const Layer &head, std::int64_t least);

// Top-left corner of a window, and where its answer goes.
struct Position {
    std::int64_t row, y, x;
};

// First window of nine.
struct Nine {
    std::int64_t y, x;
};

// Windows [top, bottom) x [left, right) of an image.
struct Rectangle {
    std::int64_t top, bottom, left, right;

    Extent extent() const { return {bottom - top, right - left}; }
};

// A small square of windows, the unit in which a tile is divided: windows answered one by one, and nines.
struct Plot {
    std::int64_t y, x;  // in plots
    Rectangle reach;    // windows whose maps it needs
    std::int64_t first_position, last_position;
    std::int64_t first_nine, last_nine;
};

// Plots that share one set of maps.
struct Leaf {
    std::int64_t first, last;
    Rectangle reach;
};

// One tile's windows, sorted.
struct Places {
    Rectangle tile;
    std::vector<std::int64_t> asked;  // of each window of the tile, the row of its answer; -1 if not asked for
    std::vector<unsigned char> touched;  // of each plot
    std::vector<unsigned char> needed;   // of each row of a patch's cells, while nines are weighed
    std::vector<Plot> plots;
    std::vector<Position> positions;
    std::vector<Nine> nines;
    std::vector<Leaf> leaves;

    std::int64_t row_of(std::int64_t y, std::int64_t x) const {
        const bool inside = y < tile.bottom && x < tile.right;
        return inside ? asked[(y - tile.top) * (tile.right - tile.left) + x - tile.left] : -1;
    }
};

// Edges in windows: of a plot, in whole cells; of a patch, whose transformed map is held at once, in whole plots.
Extent plot_extent(const Nines &nines);
Extent patch_extent(const Nines &nines);

// What the maps of some windows, and the head at one, cost, in multiply-adds.
double map_cost(const LayerProgram &program, Extent windows);
double head_cost(const LayerProgram &program);

// Sorts the windows asked for in `tile`, whole patches, of image `image`; false if there are none.
bool find_places(const WindowList &windows, std::int64_t image, Extent all_windows, Rectangle tile, const Layer &head,
                 const Nines &nines, Places &places);

// Divides the plots into leaves so that the maps of all leaves together cost least.
void divide_places(const LayerProgram &program, Places &places);

}  // namespace t3ssfast::cpu
