#include "cpu/window_statistics/tiles.h"

#include <algorithm>

namespace t3ssfast::cpu {
namespace {

Tile bounding_tile(const Tile &a, const Tile &b) {
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
    if (!dense_) collect_listed_tiles(windows);
}

Tile TileGrid::operator[](i64 i) const {
    if (!dense_) return listed_[i];
    const i64 row = i / columns_;
    const i64 y = (row % rows_) * height_ - lead_;
    const i64 x = (i % columns_) * width_ - lead_;
    return {row / rows_, std::max<i64>(y, 0), std::min(y + height_, windows_y_), std::max<i64>(x, 0),
            std::min(x + width_, windows_x_)};
}

// The list is ascending, so tiles of one row of the grid are found together.
void TileGrid::collect_listed_tiles(const WindowList &windows) {
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
            slot[column] = static_cast<i64>(listed_.size());
            listed_.push_back({w.image, w.y, w.y + 1, w.x, w.x + 1});
        } else {
            Tile &tile = listed_[slot[column]];
            tile.y1 = w.y + 1;
            tile.x0 = std::min(tile.x0, w.x);
            tile.x1 = std::max(tile.x1, w.x + 1);
        }
    }
}

void TileGrid::merge(i64 max_edge, const std::function<i64(const Tile &)> &cost) {
    const std::size_t count = listed_.size();
    std::vector<char> merged(count);
    // Tiles are ordered by rows of the grid; those from `near` on can reach the rows of tile i.
    std::size_t near = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (merged[i]) continue;
        Tile &tile = listed_[i];
        while (near < i && (listed_[near].image < tile.image || listed_[near].y1 + height_ <= tile.y0)) ++near;
        std::size_t end = i + 1;
        const i64 below = tile.y0 + max_edge + height_;
        while (end < count && listed_[end].image == tile.image && listed_[end].y0 < below) ++end;
        for (std::size_t j = i + 1; j < end; ++j) {
            const Tile combined = bounding_tile(tile, listed_[j]);
            if (merged[j] || combined.height() > max_edge || combined.width() > max_edge ||
                cost(combined) > cost(tile) + cost(listed_[j])) {
                continue;
            }
            bool separate = true;
            for (std::size_t k = near; k < end && separate; ++k) {
                separate = k == i || k == j || merged[k] || !overlap(combined, listed_[k]);
            }
            if (!separate) continue;
            tile = combined;
            merged[j] = 1;
            // Tiles that were too far away may now be close enough.
            j = i;
        }
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (!merged[i]) listed_[kept++] = listed_[i];
    }
    listed_.resize(kept);
}

Output::Output(const Images &images, i64 size, const WindowList &windows, float *out, bool stream)
    : windows_y_(valid_windows(images.height, size)),
      windows_x_(valid_windows(images.width, size)),
      total_(windows.dense() ? images.count * windows_y_ * windows_x_ : windows.count),
      windows_(windows),
      out_(out),
      stream_(stream) {}

TileOutput Output::begin_tile(const Tile &tile, i64 planes, std::vector<float> &buffer) const {
    if (windows_.dense()) {
        return {out_ + (tile.image * windows_y_ + tile.y0) * windows_x_ + tile.x0, windows_x_, total_, stream_};
    }
    const i64 plane = tile.height() * tile.width();
    buffer.resize(static_cast<std::size_t>(planes * plane));
    return {buffer.data(), tile.width(), plane, false};
}

void Output::finish_tile(const Tile &tile, const TileOutput &from, i64 slot) const {
    if (windows_.dense()) return;
    for (i64 y = tile.y0; y < tile.y1; ++y) {
        const i64 row = (tile.image * windows_y_ + y) * windows_x_;
        const float *source = from.data + slot * from.plane + (y - tile.y0) * from.stride;
        float *target = out_ + slot * total_;
        for (i64 i = lower_bound(windows_, row + tile.x0); i < windows_.count && windows_.data[i] < row + tile.x1;
             ++i) {
            target[i] = source[windows_.data[i] - row - tile.x0];
        }
    }
}

}  // namespace t3ssfast::cpu
