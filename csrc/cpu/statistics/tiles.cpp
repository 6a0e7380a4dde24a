#include "cpu/statistics/tiles.h"

#include <algorithm>

namespace t3ssfast::cpu {

TileGrid::TileGrid(const Images &images, i64 size, const WindowList &windows, i64 height, i64 width, i64 lead)
    : windows_y_(valid_windows(images.height, size)),
      windows_x_(valid_windows(images.width, size)),
      height_(height),
      width_(width),
      lead_(lead),
      rows_((windows_y_ - 1 + lead) / height + 1),
      columns_((windows_x_ - 1 + lead) / width + 1),
      count_(images.count * rows_ * columns_),
      dense_(windows.dense()) {
    if (!dense_) collect(windows);
}

Tile TileGrid::operator[](i64 i) const {
    if (!dense_) return touched_[i];
    const i64 row = i / columns_;
    const i64 y = (row % rows_) * height_ - lead_;
    const i64 x = (i % columns_) * width_ - lead_;
    return {row / rows_, std::max<i64>(y, 0), std::min(y + height_, windows_y_), std::max<i64>(x, 0),
            std::min(x + width_, windows_x_)};
}

// The list is ascending, so tiles of one row of the grid are met together.
void TileGrid::collect(const WindowList &windows) {
    std::vector<i64> slot(columns_, -1);
    i64 current = -1;
    for (i64 i = 0; i < windows.count; ++i) {
        const WindowPosition w = window_position(windows.data[i], windows_y_, windows_x_);
        const i64 row = w.image * rows_ + (w.y + lead_) / height_;
        const i64 column = (w.x + lead_) / width_;
        if (row != current) {
            std::fill(slot.begin(), slot.end(), -1);
            current = row;
        }
        if (slot[column] < 0) {
            slot[column] = static_cast<i64>(touched_.size());
            touched_.push_back({w.image, w.y, w.y + 1, w.x, w.x + 1});
        } else {
            Tile &tile = touched_[slot[column]];
            tile.y1 = w.y + 1;
            tile.x0 = std::min(tile.x0, w.x);
            tile.x1 = std::max(tile.x1, w.x + 1);
        }
    }
}

Output::Output(const Images &images, i64 size, const WindowList &windows, float *out, bool stream)
    : windows_y_(valid_windows(images.height, size)),
      windows_x_(valid_windows(images.width, size)),
      total_(windows.dense() ? images.count * windows_y_ * windows_x_ : windows.count),
      windows_(windows),
      out_(out),
      stream_(stream) {}

TileOutput Output::open(const Tile &tile, i64 planes, std::vector<float> &buffer) const {
    if (windows_.dense()) {
        return {out_ + (tile.image * windows_y_ + tile.y0) * windows_x_ + tile.x0, windows_x_, total_, stream_};
    }
    const i64 plane = tile.height() * tile.width();
    buffer.resize(static_cast<std::size_t>(planes * plane));
    return {buffer.data(), tile.width(), plane, false};
}

void Output::close(const Tile &tile, const TileOutput &from, i64 slot) const {
    if (windows_.dense()) return;
    for (i64 y = tile.y0; y < tile.y1; ++y) {
        const i64 row = (tile.image * windows_y_ + y) * windows_x_;
        const float *source = from.data + slot * from.plane + (y - tile.y0) * from.stride;
        float *target = out_ + slot * total_;
        for (i64 i = lower_bound(windows_, row + tile.x0);
             i < windows_.count && windows_.data[i] < row + tile.x1; ++i) {
            target[i] = source[windows_.data[i] - row - tile.x0];
        }
    }
}

}  // namespace t3ssfast::cpu
