#include "cpu/window_statistics/tiles.h"

#include <algorithm>

namespace t3ssfast::cpu {
namespace {

Tile around(const Tile &a, const Tile &b) {
    return {a.image, std::min(a.y0, b.y0), std::max(a.y1, b.y1), std::min(a.x0, b.x0), std::max(a.x1, b.x1)};
}

bool overlap(const Tile &a, const Tile &b) {
    return a.image == b.image && a.y0 < b.y1 && b.y0 < a.y1 && a.x0 < b.x1 && b.x0 < a.x1;
}

}  // namespace

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

void TileGrid::join(i64 most, const std::function<i64(const Tile &)> &cost) {
    const std::size_t count = touched_.size();
    std::vector<char> gone(count);
    // Tiles lie in rows of the grid; those from `near` on can reach down to the row of tile i.
    std::size_t near = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (gone[i]) continue;
        Tile &tile = touched_[i];
        while (near < i && (touched_[near].image < tile.image || touched_[near].y1 + height_ <= tile.y0)) ++near;
        std::size_t end = i + 1;
        const i64 below = tile.y0 + most + height_;
        while (end < count && touched_[end].image == tile.image && touched_[end].y0 < below) ++end;
        for (std::size_t j = i + 1; j < end; ++j) {
            const Tile both = around(tile, touched_[j]);
            if (gone[j] || both.height() > most || both.width() > most ||
                cost(both) > cost(tile) + cost(touched_[j])) {
                continue;
            }
            bool apart = true;
            for (std::size_t k = near; k < end && apart; ++k) {
                apart = k == i || k == j || gone[k] || !overlap(both, touched_[k]);
            }
            if (!apart) continue;
            tile = both;
            gone[j] = 1;
            // A tile that was too far away may not be so any more.
            j = i;
        }
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (!gone[i]) touched_[kept++] = touched_[i];
    }
    touched_.resize(kept);
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
