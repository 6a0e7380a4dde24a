// Non-owning views; the caller owns every buffer.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace t3ssfast {

// A C-contiguous stack of images, (count, height, width).
template <typename T>
struct ImageStack {
    T *data;
    std::int64_t count;
    std::int64_t height;
    std::int64_t width;

    T3_HD T *image(std::int64_t n) const { return data + n * height * width; }
};

// Flat indices of the requested windows: index = (n * windows_y + y) * windows_x + x, ascending. data == nullptr means
// every valid window, in C order.
struct WindowList {
    const std::int64_t *data;
    std::int64_t count;

    T3_HD bool dense() const { return data == nullptr; }
};

// Device and stream of a CUDA launch. The stream is PyTorch's current one, passed as an integer handle.
struct Launch {
    int device;
    std::uintptr_t stream;
};

}  // namespace t3ssfast
