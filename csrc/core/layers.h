// A chain of layers that maps one window to class scores, as a program over dilated feature maps.
//
// Pooling with stride s evaluated at every window equals pooling at stride 1 followed by layers whose taps are s times
// further apart ("a trous"; Giusti et al. 2013, Sermanet et al. 2014). Therefore every layer here runs at stride 1 and
// stores the distance between its taps. The value of the window at (y, x) is at (y, x) of every map. The first fully
// connected layer is a convolution over the last map, evaluated only at the requested windows. Floor pooling needs no
// special case: maps are computed only as far as the next layer reads them.
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/macros.h"

namespace t3ssfast {

// The numbers are those of LayerKind in python/t3ssfast/kernels/plan/layers.py.
enum class LayerKind : std::int64_t {
    convolution = 0,  // on a feature map: parameters weight[ky][kx][in][out], bias[out]
    linear = 1,       // fully connected, at the requested windows: the same parameters
    max_pool = 2,
    average_pool = 3,
    affine = 4,  // scale[channels], shift[channels]
    relu = 5,
    leaky_relu = 6,  // slope[1]
    tanh = 7,
    sigmoid = 8,
    gelu = 9,
    gelu_tanh = 10,
    softmax = 11,
    log_softmax = 12
};

// One row of the program: nine int64 values, written by Python, and a stride that the CPU path chooses.
struct Layer {
    LayerKind kind;
    std::int64_t in_channels, out_channels;
    std::int64_t kernel_y, kernel_x;  // taps
    std::int64_t step_y, step_x;      // distance between taps on the stride-1 map
    std::int64_t parameters;          // index of this layer's first parameter
    std::int64_t parameter_count;
    // Every `stride`-th output along y and x is computed, where no later layer reads the others (with_stride).
    std::int64_t stride = 1;

    T3_HD std::int64_t reach_y() const { return (kernel_y - 1) * step_y; }
    T3_HD std::int64_t reach_x() const { return (kernel_x - 1) * step_x; }
    T3_HD std::int64_t fan_in() const { return kernel_y * kernel_x * in_channels; }
    T3_HD bool weighted() const { return kind == LayerKind::convolution || kind == LayerKind::linear; }
    T3_HD bool pools() const { return kind == LayerKind::max_pool || kind == LayerKind::average_pool; }
};
// `map_layers` layers on feature maps, followed by the fully connected layers and what follows them.
struct LayerProgram {
    const Layer *layers;
    std::int64_t count;
    std::int64_t map_layers;
    const float *parameters;

    T3_HD const Layer &first_fully_connected() const { return layers[map_layers]; }
    T3_HD std::int64_t classes() const { return layers[count - 1].out_channels; }
    // Distance in pixels between the windows that are scored.
    T3_HD std::int64_t window_stride() const {
        std::int64_t stride = 1;
        for (std::int64_t i = 0; i < map_layers; ++i) stride *= layers[i].stride;
        return stride;
    }
};

// Output array: the score of (window, class) is data[window * window_stride + class * class_stride].
struct Scores {
    float *data;
    std::int64_t window_stride, class_stride;
};

// Height and width of a map, or of a rectangle of windows.
struct Extent {
    std::int64_t height, width;

    T3_HD std::int64_t area() const { return height * width; }
};

// Extent that the input of layer `index` (the image for 0) must have to score `windows` windows at stride 1.
T3_HD Extent input_extent(const LayerProgram &program, std::int64_t index, Extent windows) {
    for (std::int64_t i = program.map_layers; i >= index; --i) {
        windows.height += program.layers[i].reach_y();
        windows.width += program.layers[i].reach_x();
    }
    return windows;
}

// The same for windows that are program.window_stride() pixels apart. The CUDA kernels know no strides, and have no
// registers left for them.
inline Extent strided_input_extent(const LayerProgram &program, std::int64_t index, Extent windows) {
    for (std::int64_t i = program.map_layers; i >= index; --i) {
        const Layer &layer = program.layers[i];
        windows.height = (windows.height - 1) * layer.stride + 1 + layer.reach_y();
        windows.width = (windows.width - 1) * layer.stride + 1 + layer.reach_x();
    }
    return windows;
}

T3_HD float activate(LayerKind kind, float x, float slope) {
    switch (kind) {
        case LayerKind::relu: return x < 0.0f ? 0.0f : x;
        case LayerKind::leaky_relu: return x < 0.0f ? slope * x : x;
        case LayerKind::tanh: return std::tanh(x);
        case LayerKind::sigmoid: return 1.0f / (1.0f + std::exp(-x));
        case LayerKind::gelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752440f));
        case LayerKind::gelu_tanh: {
            // torch's approximate="tanh" (Hendrycks & Gimpel 2016, section 2).
            const float inner = 0.79788456080286535588f * (x + 0.044715f * x * x * x);
            return 0.5f * x * (1.0f + std::tanh(inner));
        }
        default: return x;
    }
}

T3_HD bool is_activation(LayerKind kind) { return kind >= LayerKind::relu && kind <= LayerKind::gelu_tanh; }

// Replaces `count` values by their softmax, or by its logarithm.
T3_HD void softmax_in_place(float *values, std::int64_t count, bool logarithm) {
    float top = values[0];
    for (std::int64_t c = 1; c < count; ++c) top = values[c] > top ? values[c] : top;
    float sum = 0.0f;
    for (std::int64_t c = 0; c < count; ++c) sum += std::exp(values[c] - top);
    const float log_sum = std::log(sum);
    for (std::int64_t c = 0; c < count; ++c)
        values[c] = logarithm ? values[c] - top - log_sum : std::exp(values[c] - top) / sum;
}

// Gives the pooling layers strides for windows that are `stride` pixels apart; the product of the strides divides it.
//
// A pooled map is read at the positions of the windows plus multiples of the steps of later layers. If all of them are
// multiples of r, the values between are never read, and later layers read the rest as a map of its own.
inline void with_stride(std::vector<Layer> &layers, std::int64_t map_layers, std::int64_t stride) {
    for (std::int64_t i = 0; i < map_layers; ++i) {
        if (!layers[i].pools()) continue;
        std::int64_t common = stride;
        for (std::int64_t j = i + 1; j <= map_layers; ++j) {
            if (layers[j].kernel_y > 1) common = std::gcd(common, layers[j].step_y);
            if (layers[j].kernel_x > 1) common = std::gcd(common, layers[j].step_x);
        }
        if (common < 2) continue;
        layers[i].stride = common;
        stride /= common;
        for (std::int64_t j = i + 1; j <= map_layers; ++j) {
            layers[j].step_y = layers[j].kernel_y > 1 ? layers[j].step_y / common : layers[j].step_y;
            layers[j].step_x = layers[j].kernel_x > 1 ? layers[j].step_x / common : layers[j].step_x;
        }
    }
}

[[noreturn]] inline void reject_program(const char *problem) {
    throw std::invalid_argument(std::string("score_windows: ") + problem + ".");
}

// Throws std::invalid_argument unless the program is complete and reads nothing outside its parameters and its window.
inline void check_program(const LayerProgram &program, std::int64_t parameter_count, std::int64_t size) {
    if (program.count < 1 || program.map_layers < 0 || program.map_layers >= program.count)
        reject_program("the program has no fully connected layer");
    if (program.first_fully_connected().kind != LayerKind::linear)
        reject_program("the layer after the feature maps is not fully connected");
    std::int64_t channels = 1;
    for (std::int64_t i = 0; i < program.count; ++i) {
        const Layer &layer = program.layers[i];
        if (layer.in_channels != channels || layer.out_channels < 1)
            reject_program("a layer's input channels differ from the previous layer's output channels");
        if (layer.kernel_y < 1 || layer.kernel_x < 1 || layer.step_y < 0 || layer.step_x < 0)
            reject_program("a layer has an empty kernel or a negative step");
        std::int64_t expected = 0;
        if (layer.weighted()) expected = (layer.fan_in() + 1) * layer.out_channels;
        if (layer.kind == LayerKind::affine) expected = 2 * channels;
        if (layer.kind == LayerKind::leaky_relu) expected = 1;
        if (layer.parameter_count != expected || layer.parameters < 0 || layer.parameters + expected > parameter_count)
            reject_program("the number of parameters does not match the layers");
        if (!layer.weighted() && layer.out_channels != channels)
            reject_program("a layer without weights changes the number of channels");
        if (!layer.weighted() && !layer.pools() && (layer.reach_y() || layer.reach_x()))
            reject_program("an element-wise layer has a kernel larger than 1 x 1");
        if (i < program.map_layers && layer.kind >= LayerKind::softmax)
            reject_program("a softmax precedes the fully connected layers");
        if (i < program.map_layers && layer.kind == LayerKind::linear)
            reject_program("map_layers counts a fully connected layer");
        if (i > program.map_layers &&
            (layer.reach_y() || layer.reach_x() || layer.pools() || layer.kind == LayerKind::convolution))
            reject_program("a layer after the first fully connected one reads more than one position");
        channels = layer.out_channels;
    }
    const Extent image = input_extent(program, 0, {1, 1});
    if (image.height > size || image.width > size) reject_program("the layers read beyond the window");
}

}  // namespace t3ssfast
