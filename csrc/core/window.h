// Geometry of stride-1 windows.
#pragma once

#include "core/macros.h"
#include "core/view.h"

namespace t3ssfast {

// Number of valid window positions along an axis.
T3_HD std::int64_t valid_windows(std::int64_t length, std::int64_t size) { return length - size + 1; }

// Image and top-left corner of a window.
struct WindowPosition {
    std::int64_t image, y, x;
};

T3_HD WindowPosition window_position(std::int64_t index, std::int64_t windows_y, std::int64_t windows_x) {
    const std::int64_t row = index / windows_x;
    return {row / windows_y, row % windows_y, index % windows_x};
}

// A rectangle of windows of one image: top-left corners in [y0, y1) x [x0, x1).
struct Tile {
    std::int64_t image, y0, y1, x0, x1;

    T3_HD std::int64_t height() const { return y1 - y0; }
    T3_HD std::int64_t width() const { return x1 - x0; }
};

// Index of the first entry of the window list that is >= index.
T3_HD std::int64_t lower_bound(const WindowList &windows, std::int64_t index) {
    std::int64_t begin = 0, length = windows.count;
    while (length > 0) {
        const std::int64_t half = length / 2;
        if (windows.data[begin + half] < index) {
            begin += half + 1;
            length -= half + 1;
        } else {
            length = half;
        }
    }
    return begin;
}

}  // namespace t3ssfast
