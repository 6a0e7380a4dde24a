// Tiles of windows. The values of a tile depend only on its own pixels, so threads and tiling do not change results.
// With a window list only tiles with listed windows are computed, cropped to the bounding rectangle of those windows.
#pragma once

#include <functional>
#include <vector>

#include "core/window.h"

namespace t3ssfast::cpu {

using i64 = std::int64_t;
using Images = ImageStack<const float>;

// Divides a length into parts of at most `max_part`, all but the last of the same size: a narrow remainder would cost
// as much overlap as a full part.
inline i64 even_split(i64 length, i64 max_part) {
    const i64 parts = (length + max_part - 1) / max_part;
    return (length + parts - 1) / parts;
}

// Grid of tiles of height x width windows; it starts `lead` windows before the first window.
class TileGrid {
public:
    TileGrid(const Images &images, i64 size, const WindowList &windows, i64 height, i64 width, i64 lead);

    i64 count() const { return dense_ ? count_ : static_cast<i64>(listed_.size()); }
    Tile operator[](i64 i) const;

    // Merges listed tiles that are close to each other where that does not increase `cost`. Merged tiles have at most
    // `max_edge` rows and columns of windows, and no two tiles share a window.
    void merge(i64 max_edge, const std::function<i64(const Tile &)> &cost);

private:
    void collect_listed_tiles(const WindowList &windows);

    i64 windows_y_, windows_x_, height_, width_, lead_, rows_, columns_, count_;
    bool dense_;
    std::vector<Tile> listed_;
};

// Destination of a tile's values: the value of (y, x) is at data[(y - y0) * stride + x - x0], planes are `plane` apart.
// It is the output itself if every window is requested, otherwise a buffer that is gathered afterwards. `stream`: use
// non-temporal stores.
struct TileOutput {
    float *data;
    i64 stride, plane;
    bool stream;
};

class Output {
public:
    Output(const Images &images, i64 size, const WindowList &windows, float *out, bool stream);

    // `planes` is the maximum number of statistics the tile writes.
    TileOutput begin_tile(const Tile &tile, i64 planes, std::vector<float> &buffer) const;

    // Copies plane `slot` of the buffer to the listed windows of the output.
    void finish_tile(const Tile &tile, const TileOutput &from, i64 slot) const;

private:
    i64 windows_y_, windows_x_, total_;
    WindowList windows_;
    float *out_;
    bool stream_;
};

}  // namespace t3ssfast::cpu
