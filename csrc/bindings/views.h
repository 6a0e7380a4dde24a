// Views from the integers that Python passes (addresses, shapes, handles).
#pragma once

#include <cstdint>

#include "core/view.h"

namespace t3ssfast {

inline ImageStack<const float> image_stack(std::uintptr_t address, std::int64_t count, std::int64_t height,
                                           std::int64_t width) {
    return {reinterpret_cast<const float *>(address), count, height, width};
}

// Address 0 means every valid window.
inline WindowList window_list(std::uintptr_t address, std::int64_t count) {
    return {reinterpret_cast<const std::int64_t *>(address), count};
}

}  // namespace t3ssfast
