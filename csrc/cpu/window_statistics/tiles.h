// Tiles of windows, the tasks of every statistic's schedule: a tile's values follow from its own pixels, so threads
// and tiling change no bit. With a window list only tiles that hold a listed window are computed, cut to the
// rectangle the list touches.
#pragma once

#include <functional>
#include <vector>

#include "core/window.h"

namespace t3ssfast::cpu {

using i64 = std::int64_t;
using Images = ImageStack<const float>;

// Cuts a length into parts of at most `most`, all but the last of one size: a narrow rest would cost its whole rim.
inline i64 even_share(i64 length, i64 most) {
    const i64 parts = (length + most - 1) / most;
    return (length + parts - 1) / parts;
}

// Tiles of height x width windows; the grid starts `lead` windows before the first one.
class TileGrid {
public:
    TileGrid(const Images &images, i64 size, const WindowList &windows, i64 height, i64 width, i64 lead);

    i64 count() const { return dense_ ? count_ : static_cast<i64>(touched_.size()); }
    Tile operator[](i64 i) const;

    // Joins listed tiles that lie near each other where that is not dearer by `cost`; the joined ones have at most `most`
    // rows and columns of windows, and no two share a window.
    void join(i64 most, const std::function<i64(const Tile &)> &cost);

private:
    void collect(const WindowList &windows);

    i64 windows_y_, windows_x_, height_, width_, lead_, rows_, columns_, count_;
    bool dense_;
    std::vector<Tile> touched_;
};

// Where the values of a tile's windows go: value of (y, x) at data[(y - y0) * stride + x - x0], planes apart by
// `plane`. Straight into the output where every window is wanted, else into a buffer that is gathered afterwards.
// `stream`: it is worth it to write whole lines past the caches.
struct TileOutput {
    float *data;
    i64 stride, plane;
    bool stream;
};

class Output {
public:
    Output(const Images &images, i64 size, const WindowList &windows, float *out, bool stream);

    // `planes` bounds the number of statistics the tile writes.
    TileOutput open(const Tile &tile, i64 planes, std::vector<float> &buffer) const;

    // Brings plane `slot` of the buffer home to the listed windows.
    void close(const Tile &tile, const TileOutput &from, i64 slot) const;

private:
    i64 windows_y_, windows_x_, total_;
    WindowList windows_;
    float *out_;
    bool stream_;
};

}  // namespace t3ssfast::cpu
