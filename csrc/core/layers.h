// A chain of layers that answers on one window, read as a program over dilated feature maps.
//
// Pooling with stride s at every window position is pooling at stride 1 whose successors step s times as
// far ("a trous"; Giusti et al. 2013, Sermanet et al. 2014): every layer here works at stride 1, and the
// steps are written in the layer. The value of a window at (y, x) is then read at (y, x) of every map, and
// the first fully connected layer is a convolution over the last map, done only where it is asked for.
// Floor pooling needs nothing special: maps are only computed as far as the next layer reaches.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/macros.h"

namespace t3ssfast {

// Values are those of python/t3ssfast/plan/layers.py.
enum class LayerKind : std::int64_t {
    convolution = 0,  // on a map: parameters weight[ky][kx][in][out], bias[out]
    linear = 1,       // at the windows asked for: the same parameters
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

// One row of the program, nine int64, as Python writes it.
struct Layer {
    LayerKind kind;
    std::int64_t in_channels, out_channels;
    std::int64_t kernel_y, kernel_x;  // taps
    std::int64_t step_y, step_x;      // distance between taps on the stride-1 map
    std::int64_t parameters;          // first of this layer's parameters
    std::int64_t parameter_count;

    T3_HD std::int64_t reach_y() const { return (kernel_y - 1) * step_y; }
    T3_HD std::int64_t reach_x() const { return (kernel_x - 1) * step_x; }
    T3_HD std::int64_t fan_in() const { return kernel_y * kernel_x * in_channels; }
    T3_HD bool weighted() const { return kind == LayerKind::convolution || kind == LayerKind::linear; }
    T3_HD bool pools() const { return kind == LayerKind::max_pool || kind == LayerKind::average_pool; }
};
static_assert(sizeof(Layer) == 9 * sizeof(std::int64_t), "Layer is read from an int64 table");

// `map_layers` layers on feature maps, then the head, whose first layer is linear.
struct LayerProgram {
    const Layer *layers;
    std::int64_t count;
    std::int64_t map_layers;
    const float *parameters;

    T3_HD const Layer &head() const { return layers[map_layers]; }
    T3_HD std::int64_t classes() const { return layers[count - 1].out_channels; }
};

// Where the answers go: element (window, class) at data[window * window_stride + c * class_stride].
struct Scores {
    float *data;
    std::int64_t window_stride, class_stride;
};

// Height and width of a map, or of a rectangle of windows.
struct Extent {
    std::int64_t height, width;

    T3_HD std::int64_t area() const { return height * width; }
};

// What the output of layer `index - 1` (the image, for 0) must cover so that `windows` can be answered.
T3_HD Extent extent_before(const LayerProgram &program, std::int64_t index, Extent windows) {
    for (std::int64_t i = program.map_layers; i >= index; --i) {
        windows.height += program.layers[i].reach_y();
        windows.width += program.layers[i].reach_x();
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

// Softmax, or its logarithm, of `count` values in place.
T3_HD void normalise_exponentials(float *values, std::int64_t count, bool logarithm) {
    float top = values[0];
    for (std::int64_t c = 1; c < count; ++c) top = values[c] > top ? values[c] : top;
    float sum = 0.0f;
    for (std::int64_t c = 0; c < count; ++c) sum += std::exp(values[c] - top);
    const float log_sum = std::log(sum);
    for (std::int64_t c = 0; c < count; ++c)
        values[c] = logarithm ? values[c] - top - log_sum : std::exp(values[c] - top) / sum;
}

// Whether a program is whole and touches nothing outside its parameters and its window; the sentence that
// says what is wrong, or nullptr.
inline const char *program_problem(const LayerProgram &program, std::int64_t parameter_count,
                                   std::int64_t size) {
    if (program.count < 1 || program.map_layers < 0 || program.map_layers >= program.count)
        return "the program has no fully connected layer";
    if (program.head().kind != LayerKind::linear) return "the head does not begin with a fully connected layer";
    std::int64_t channels = 1;
    for (std::int64_t i = 0; i < program.count; ++i) {
        const Layer &layer = program.layers[i];
        if (layer.in_channels != channels || layer.out_channels < 1) return "the channels do not follow";
        if (layer.kernel_y < 1 || layer.kernel_x < 1 || layer.step_y < 0 || layer.step_x < 0)
            return "a kernel has no taps";
        std::int64_t wanted = 0;
        if (layer.weighted()) wanted = (layer.fan_in() + 1) * layer.out_channels;
        if (layer.kind == LayerKind::affine) wanted = 2 * channels;
        if (layer.kind == LayerKind::leaky_relu) wanted = 1;
        if (layer.parameter_count != wanted || layer.parameters < 0 ||
            layer.parameters + wanted > parameter_count)
            return "the parameters do not fit the layers";
        if (!layer.weighted() && layer.out_channels != channels) return "the channels do not follow";
        if (!layer.weighted() && !layer.pools() && (layer.reach_y() || layer.reach_x()))
            return "an element-wise layer has a kernel";
        if (i < program.map_layers && layer.kind >= LayerKind::softmax) return "a softmax stands before the head";
        if (i < program.map_layers && layer.kind == LayerKind::linear) return "map_layers is wrong";
        if (i > program.map_layers && (layer.reach_y() || layer.reach_x() || layer.pools() ||
                                       layer.kind == LayerKind::convolution))
            return "the head reaches beyond its window";
        channels = layer.out_channels;
    }
    const Extent image = extent_before(program, 0, {1, 1});
    if (image.height > size || image.width > size) return "the layers reach beyond the window";
    return nullptr;
}

}  // namespace t3ssfast
