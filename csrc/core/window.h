// Geometry of stride-1 windows: which windows an image has, and where one lies.
#pragma once

#include "core/macros.h"
#include "core/view.h"

namespace t3ssfast {

// Number of valid positions of a window along an axis.
T3_HD std::int64_t valid_windows(std::int64_t length, std::int64_t size) { return length - size + 1; }

// Image and top-left corner of a window.
struct WindowPosition {
    std::int64_t image, y, x;
};

T3_HD WindowPosition window_position(std::int64_t index, std::int64_t windows_y, std::int64_t windows_x) {
    const std::int64_t row = index / windows_x;
    return {row / windows_y, row % windows_y, index % windows_x};
}

}  // namespace t3ssfast
