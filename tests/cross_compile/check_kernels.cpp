// The CPU kernels against slow sums in double precision, without Python: for processors that the tests of Python cannot
// run on, such as an aarch64 one under emulation. Prints a checksum of all results, and ends with 1 at a difference.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "backend.h"
#include "cpu/score_windows/packed_weights.h"
#include "cpu/simd.h"

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
    std::printf("statistics, windows and levels: %016llx\n", static_cast<unsigned long long>(checksum));
    std::printf("%d differences\n", failures);
    return failures != 0;
}
