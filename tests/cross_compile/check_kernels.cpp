// The CPU kernels against slow sums in double precision, without Python: for processors that the tests of Python cannot
// run on, such as an aarch64 one under emulation. Prints a checksum of all results, and ends with 1 at a difference.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "backend.h"
#include "cpu/mask_edges.h"
#include "cpu/score_windows/packed_weights.h"
#include "cpu/simd.h"
#include "cpu/sparse_smoothing.h"
#include "cpu/sparse_voxels.h"

using namespace t3ssfast;
using i64 = std::int64_t;

namespace {

std::uint64_t state = 12345;
std::uint64_t checksum = 1469598103934665603ull;
int failures = 0;

// Uniform in [-1, 1), the same everywhere.
float random_value() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<float>(static_cast<std::int32_t>(state >> 40) - (1 << 23)) / (1 << 23);
}

std::vector<float> random_values(i64 count, float offset = 0) {
    std::vector<float> values(count);
    for (float &value : values) value = offset + random_value();
    return values;
}

void add_to_checksum(const std::vector<float> &values) {
    for (float value : values) {
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        checksum = (checksum ^ bits) * 1099511628211ull;
    }
}

void expect_close(const char *what, double actual, double expected, double tolerance) {
    if (std::abs(actual - expected) <= tolerance * std::max(1.0, std::abs(expected))) return;
    if (++failures < 20) std::printf("%s: %.9g instead of %.9g\n", what, actual, expected);
}

struct Image {
    i64 count, height, width;
    std::vector<float> values;

    ImageStack<const float> view() const { return {values.data(), count, height, width}; }
    // One window in double precision, row by row.
    std::vector<double> window(i64 index, i64 size) const {
        const i64 columns = width - size + 1, rows = height - size + 1;
        const i64 x = index % columns, y = index / columns % rows, n = index / columns / rows;
        std::vector<double> pixels;
        for (i64 r = 0; r < size; ++r)
            for (i64 c = 0; c < size; ++c) pixels.push_back(values[(n * height + y + r) * width + x + c]);
        return pixels;
    }
    i64 windows(i64 size) const { return count * (height - size + 1) * (width - size + 1); }
};

// The requested windows: all of them, or every third.
std::vector<i64> every_third(i64 count) {
    std::vector<i64> chosen;
    for (i64 k = 0; k < count; k += 3) chosen.push_back(k);
    return chosen;
}

void check_statistics(const Image &image, i64 size, bool dense) {
    const std::vector<StatisticRequest> requests = {
        {Statistic::mean, 0},     {Statistic::std, 0}, {Statistic::skewness, 0}, {Statistic::kurtosis, 0},
        {Statistic::min, 0},      {Statistic::max, 0}, {Statistic::median, 0.5}, {Statistic::quantile, 0.9},
    };
    std::vector<i64> chosen = every_third(image.windows(size));
    const i64 count = dense ? image.windows(size) : static_cast<i64>(chosen.size());
    std::vector<float> out(requests.size() * count);
    cpu::window_statistics(image.view(), size, requests, {dense ? nullptr : chosen.data(), count}, out.data(), false,
                           true, 2);
    add_to_checksum(out);
    for (i64 k = 0; k < count; k += 7) {
        std::vector<double> pixels = image.window(dense ? k : chosen[k], size);
        const double n = static_cast<double>(pixels.size());
        double mean = 0, m2 = 0, m3 = 0, m4 = 0;
        for (double p : pixels) mean += p / n;
        for (double p : pixels) {
            const double d = p - mean;
            m2 += d * d / n, m3 += d * d * d / n, m4 += d * d * d * d / n;
        }
        std::sort(pixels.begin(), pixels.end());
        const auto quantile = [&](double fraction) {
            const double at = fraction * (n - 1);
            const i64 low = static_cast<i64>(at);
            const double next = pixels[std::min(low + 1, static_cast<i64>(n) - 1)];
            return pixels[low] + (at - low) * (next - pixels[low]);
        };
        const double expected[] = {mean,           std::sqrt(m2), m3 / std::pow(m2, 1.5), m4 / (m2 * m2) - 3,
                                   pixels.front(), pixels.back(), quantile(0.5),          quantile(0.9)};
        for (std::size_t s = 0; s < requests.size(); ++s) expect_close("statistic", out[s * count + k], expected[s], 1e-5);
    }
}

void check_unfold(const Image &image, i64 size) {
    const std::vector<i64> chosen = every_third(image.windows(size));
    std::vector<float> out(chosen.size() * size * size);
    cpu::unfold(image.view(), {size, true, Element::float32}, {chosen.data(), static_cast<i64>(chosen.size())},
                out.data(), false, 2);
    add_to_checksum(out);
    for (std::size_t k = 0; k < chosen.size(); k += 5) {
        const std::vector<double> pixels = image.window(chosen[k], size);
        double mean = 0, square = 0;
        for (double p : pixels) mean += p / pixels.size();
        for (double p : pixels) square += (p - mean) * (p - mean) / pixels.size();
        for (std::size_t p = 0; p < pixels.size(); ++p)
            expect_close("unfold", out[k * pixels.size() + p], (pixels[p] - mean) / std::sqrt(square), 1e-5);
    }
}

void check_levels(i64 count) {
    std::vector<float> slices = random_values(3 * count);
    for (float &value : slices) value = std::abs(value);
    slices[0] = slices[count] = slices[2 * count] = 0.5f;  // a tie: level 127.5 is rounded to the even one
    std::vector<std::uint8_t> out(count);
    const LevelsRun run{slices.data(), slices.data() + count, slices.data() + 2 * count, {0.25f, 0.5f, 0.25f}, count,
                        out.data()};
    if (!cpu::probability_levels(run, 2)) expect_close("finite", 0, 1, 0);
    expect_close("tie", out[0], 128, 0);
    for (i64 i = 0; i < count; ++i) {
        const double average = 0.5 * slices[count + i] + 0.25 * (double(slices[i]) + slices[2 * count + i]);
        expect_close("level", out[i] - 255 * average, 0, 0.5001);
    }
    add_to_checksum({out.begin(), out.end()});
    slices[count - 1] = std::nanf("");
    if (cpu::probability_levels(run, 2)) expect_close("finite", 1, 0, 0);
}

// A tenth of the voxels of a small volume: smoothed, and their local maxima with centroids.
void check_sparse_voxels() {
    const i64 depth = 12, height = 40, width = 50, radius = 3;
    std::vector<float> volume(depth * height * width);
    std::vector<i64> index;
    std::vector<float> value;
    for (i64 i = 0; i < static_cast<i64>(volume.size()); ++i) {
        if (random_value() < 0.8f) continue;
        volume[i] = 0.5f + random_value() / 4;
        index.push_back(i), value.push_back(volume[i]);
    }
    const i64 count = static_cast<i64>(index.size());
    const cpu::SparseVoxels voxels{index.data(), value.data(), count, height, width};
    const double weights[] = {0.4, 0.2, 0.08, 0.02};
    const i64 lengths[] = {depth, height, width}, steps[] = {height * width, width, 1};
    for (int axis = 0; axis < 3; ++axis) {
        const i64 length = lengths[axis], step = steps[axis];
        std::vector<float> inside(length), out(count);
        for (i64 at = 0; at < length; ++at)
            for (i64 d = -radius; d <= radius; ++d)
                if (at + d >= 0 && at + d < length) inside[at] += static_cast<float>(weights[std::abs(d)]);
        cpu::smooth_along(voxels, axis, {weights, radius, inside.data()}, out.data(), 2);
        for (i64 k = 0; k < count; ++k) {
            const i64 at = index[k] / step % length;
            double sum = 0;
            for (i64 d = -radius; d <= radius; ++d)
                if (at + d >= 0 && at + d < length) sum += weights[std::abs(d)] * volume[index[k] + d * step];
            expect_close("smoothed", out[k], sum / inside[at], 1e-5);
        }
        add_to_checksum(out);
    }
    const std::vector<i64> maxima = cpu::local_maxima(voxels, 0.5f, 2);
    std::vector<double> centres(3 * maxima.size());
    cpu::centroids(voxels, maxima.data(), static_cast<i64>(maxima.size()), 4, centres.data(), 2);
    for (std::size_t k = 0; k < maxima.size(); ++k) {
        const i64 voxel = index[maxima[k]], z = voxel / (height * width), y = voxel / width % height, x = voxel % width;
        float highest = 0;
        for (i64 c = std::max<i64>(z - 1, 0); c <= std::min(z + 1, depth - 1); ++c)
            for (i64 b = std::max<i64>(y - 1, 0); b <= std::min(y + 1, height - 1); ++b)
                for (i64 a = std::max<i64>(x - 1, 0); a <= std::min(x + 1, width - 1); ++a)
                    highest = std::max(highest, volume[(c * height + b) * width + a]);
        expect_close("maximum", volume[voxel], highest, 0);
    }
    if (maxima.empty()) expect_close("maxima", 0, 1, 0);
    add_to_checksum({centres.begin(), centres.end()});
}

// The edges of a ball: on its surface, and along its radii.
void check_mask_edges() {
    const i64 side = 60, step = 2, cubes = side / step, radius = 4;
    const double middle = (side - 1) / 2.0, ball = 20;
    std::vector<std::uint8_t> mask(side * side * side);
    for (i64 i = 0; i < static_cast<i64>(mask.size()); ++i) {
        const double z = i / (side * side) - middle, y = i / side % side - middle, x = i % side - middle;
        mask[i] = z * z + y * y + x * x < ball * ball;
    }
    const double weights[] = {0.3, 0.2, 0.1, 0.04, 0.01};
    std::vector<float> position(cubes);
    std::vector<i64> box(cubes);
    for (i64 k = 0; k < cubes; ++k) position[k] = k * step + (step - 1) / 2.0f, box[k] = k / 10;
    const cpu::EdgeAxis axis{side, step, double(step), weights, radius, position.data(), box.data(), 3};
    const cpu::MaskEdges edges({mask.data(), {axis, axis, axis}, 0.01f}, 2);
    const i64 count = edges.count();
    if (count == 0) expect_close("edges", 0, 1, 0);
    std::vector<i64> boxes(count);
    std::vector<float> rows(7 * count);
    edges.write(boxes.data(), rows.data(), 2);
    for (i64 k = 0; k < count; ++k) {
        double distance = 0, along = 0;
        for (i64 d = 0; d < 3; ++d) {
            const double offset = rows[d * count + k] - middle;
            distance += offset * offset, along += offset * rows[(3 + d) * count + k];
        }
        distance = std::sqrt(distance);
        expect_close("edge", distance, ball, 0.25);
        expect_close("direction", std::abs(along) / distance, 1, 0.05);
    }
    add_to_checksum(rows);
}

// A LeNet of a 5 x 5 convolution, ReLU, pooling, and two fully connected layers.
void check_scores(const Image &image, i64 size, bool dense) {
    const i64 maps = 5, side = (size - 4) / 2, hidden = 19, classes = 3;
    std::vector<Layer> layers;
    i64 parameters = 0;
    const auto add = [&](LayerKind kind, i64 in, i64 out, i64 kernel, i64 step, i64 count) {
        layers.push_back({kind, in, out, kernel, kernel, step, step, parameters, count});
        parameters += count;
    };
    add(LayerKind::convolution, 1, maps, 5, 1, 25 * maps + maps);
    add(LayerKind::relu, maps, maps, 1, 1, 0);
    add(LayerKind::max_pool, maps, maps, 2, 1, 0);
    add(LayerKind::linear, maps, hidden, side, 2, side * side * maps * hidden + hidden);
    add(LayerKind::tanh, hidden, hidden, 1, 1, 0);
    add(LayerKind::linear, hidden, classes, 1, 1, hidden * classes + classes);
    std::vector<float> weights = random_values(parameters);
    for (float &w : weights) w *= 0.1f;
    const LayerProgram program{layers.data(), static_cast<i64>(layers.size()), 3, weights.data()};
    check_program(program, parameters, size);
    const std::vector<i64> chosen = every_third(image.windows(size));
    const i64 count = dense ? image.windows(size) : static_cast<i64>(chosen.size());
    std::vector<float> out(count * classes);
    const auto prepared = cpu::prepare_program(program, parameters, 4, cpu::simd_level());
    cpu::score_windows(image.view(), size, *prepared, {dense ? nullptr : chosen.data(), count},
                       {out.data(), classes, 1}, 2);
    for (i64 k = 0; k < count; k += 11) {
        const std::vector<double> pixels = image.window(dense ? k : chosen[k], size);
        const float *w = weights.data();
        const auto convolution = [&](i64 y, i64 x, i64 m) {
            double sum = w[25 * maps + m];
            for (i64 r = 0; r < 5; ++r)
                for (i64 c = 0; c < 5; ++c) sum += pixels[(y + r) * size + x + c] * w[(r * 5 + c) * maps + m];
            return std::max(sum, 0.0);
        };
        std::vector<double> pooled;
        for (i64 y = 0; y < side; ++y)
            for (i64 x = 0; x < side; ++x)
                for (i64 m = 0; m < maps; ++m)
                    pooled.push_back(std::max({convolution(2 * y, 2 * x, m), convolution(2 * y, 2 * x + 1, m),
                                               convolution(2 * y + 1, 2 * x, m), convolution(2 * y + 1, 2 * x + 1, m)}));
        const float *first = w + layers[3].parameters, *second = w + layers[5].parameters;
        std::vector<double> units(hidden);
        for (i64 h = 0; h < hidden; ++h) {
            double sum = first[side * side * maps * hidden + h];
            for (std::size_t p = 0; p < pooled.size(); ++p) sum += pooled[p] * first[p * hidden + h];
            units[h] = std::tanh(sum);
        }
        for (i64 c = 0; c < classes; ++c) {
            double sum = second[hidden * classes + c];
            for (i64 h = 0; h < hidden; ++h) sum += units[h] * second[h * classes + c];
            expect_close("score", out[k * classes + c], sum, 1e-4);
        }
    }
}

}  // namespace

int main() {
    std::printf("%s\n", cpu::simd_name());
    for (float offset : {0.0f, 100.0f}) {
        const Image image{2, 61, 83, random_values(2 * 61 * 83, offset)};
        for (i64 size : {7, 24, 50}) {
            for (bool dense : {true, false}) check_statistics(image, size, dense);
            check_unfold(image, size);
        }
    }
    const Image image{2, 61, 83, random_values(2 * 61 * 83)};
    for (i64 size : {16, 26})
        for (bool dense : {true, false}) check_scores(image, size, dense);
    check_levels(100000);
    check_sparse_voxels();
    check_mask_edges();
    std::printf("statistics, windows, levels, sparse voxels and edges: %016llx\n", static_cast<unsigned long long>(checksum));
    std::printf("%d differences\n", failures);
    return failures != 0;
}
