// Views from the tuples of integers (addresses, shapes, handles) that Python passes.
#pragma once

#include <cstdint>
#include <tuple>

#include "core/layers.h"
#include "core/view.h"

namespace t3ssfast {

// (address, count, height, width)
using ImagesArgument = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;
// (address, count); address 0 means every valid window
using WindowsArgument = std::tuple<std::uintptr_t, std::int64_t>;
// (address, stride of windows, stride of classes)
using ScoresArgument = std::tuple<std::uintptr_t, std::int64_t, std::int64_t>;
// (device index, stream handle)
using LaunchArgument = std::tuple<int, std::uintptr_t>;

template <typename T>
T *pointer(std::uintptr_t address) {
    return reinterpret_cast<T *>(address);
}

inline ImageStack<const float> image_stack(const ImagesArgument &images) {
    const auto &[address, count, height, width] = images;
    return {pointer<const float>(address), count, height, width};
}

inline WindowList window_list(const WindowsArgument &windows) {
    return {pointer<const std::int64_t>(std::get<0>(windows)), std::get<1>(windows)};
}

inline Scores scores(const ScoresArgument &out) {
    return {pointer<float>(std::get<0>(out)), std::get<1>(out), std::get<2>(out)};
}

inline Launch launch(const LaunchArgument &argument) { return {std::get<0>(argument), std::get<1>(argument)}; }

}  // namespace t3ssfast
