// Which requested windows of a tile use the Winograd path, which are computed directly, and which share feature maps.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layers.h"
#include "core/view.h"

namespace t3ssfast::cpu {

// The Winograd path computes the first fully connected layer of a block of 3 x 3 windows at once (core/winograd.h). The
// windows of a block are one step of the layer's taps apart. Blocks have fixed positions in the image: cells of 3 x 3
// steps hold one block per phase, and patches are made of cells. A window's score therefore does not depend on the
// tiling, only on whether enough windows of its block are requested, and on whether the Winograd path pays in its
// patch.
struct WinogradLayout {
    // Distance between the taps of the first fully connected layer.
    std::int64_t step_y, step_x;
    // Blocks of three taps along its kernel; the last one is padded with zeros.
    std::int64_t filter_blocks_y, filter_blocks_x;
    // Windows past a cell whose feature maps the padding reads.
    std::int64_t overhang_y, overhang_x;
    // Minimum number of requested windows per block for the Winograd path; above 9 it is never used.
    std::int64_t min_windows;

    std::int64_t cell_y() const { return 3 * step_y; }
    std::int64_t cell_x() const { return 3 * step_x; }
    bool used() const { return min_windows <= 9; }
};

WinogradLayout winograd_layout(const Layer &fully_connected, std::int64_t min_windows);

// Top-left corner of a requested window, and the output row of its scores.
struct RequestedWindow {
    std::int64_t row, y, x;
};

// First window of a Winograd block.
struct WinogradBlock {
    std::int64_t y, x;
};

// Windows [top, bottom) x [left, right) of an image.
struct Rectangle {
    std::int64_t top, bottom, left, right;

    Extent extent() const { return {bottom - top, right - left}; }
};

// A small square of windows, the unit into which a tile is divided.
struct Subtile {
    std::int64_t y, x;    // in subtiles
    Rectangle footprint;  // windows whose feature maps it needs
    std::int64_t first_direct, last_direct;
    std::int64_t first_block, last_block;
};

// Subtiles that share feature maps.
struct MapRegion {
    std::int64_t first, last;
    Rectangle footprint;
};

// The requested windows of one tile, by path.
struct TileDispatch {
    Rectangle tile;
    std::vector<std::int64_t> requested;  // by window of the tile: output row, or -1 if not requested
    std::vector<unsigned char> occupied;  // by subtile: whether it has a requested window
    std::vector<unsigned char> needed;    // scratch: rows of a patch's cells that the Winograd path reads
    std::vector<Subtile> subtiles;
    std::vector<RequestedWindow> direct_windows;
    std::vector<WinogradBlock> blocks;
    std::vector<MapRegion> regions;

    std::int64_t output_row(std::int64_t y, std::int64_t x) const {
        const bool inside = y < tile.bottom && x < tile.right;
        return inside ? requested[(y - tile.top) * (tile.right - tile.left) + x - tile.left] : -1;
    }
};

// Edges in windows of a subtile, which is made of whole cells, and of a patch, whose transformed map is in memory at
// once and which is made of whole subtiles.
Extent subtile_extent(const WinogradLayout &winograd);
Extent patch_extent(const WinogradLayout &winograd);

// Cost in multiply-adds of the feature maps of some windows, and of the fully connected layers of one window.
double feature_map_cost(const LayerProgram &program, Extent windows);
double fully_connected_cost(const LayerProgram &program);

// Assigns the requested windows of `tile`, which is made of whole patches, to the two paths; false if there are none.
bool dispatch_tile(const WindowList &windows, std::int64_t image, Extent all_windows, Rectangle tile,
                   const Layer &fully_connected, const WinogradLayout &winograd, TileDispatch &dispatch);

// Divides the subtiles into regions so that the total cost of their feature maps is minimal.
void divide_into_regions(const LayerProgram &program, TileDispatch &dispatch);

}  // namespace t3ssfast::cpu
