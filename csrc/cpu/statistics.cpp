// Sliding statistics on the CPU. Three families (moments, extrema, order statistics), each over tiles of windows
// that are independent tasks: a tile's values follow from its own pixels, so threads and tiling change no bit.
// With a window list only tiles that hold a listed window are computed, cut to the rectangle the list touches.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "backend.h"
#include "core/moments.h"
#include "core/order.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;
using Images = ImageStack<const float>;

// ---------------------------------------------------------------------------------------------- tiling

// Tiles of height x width windows; the grid starts `lead` windows before the first one.
class TileGrid {
public:
    TileGrid(const Images &images, i64 size, const WindowList &windows, i64 height, i64 width, i64 lead)
        : windows_y_(valid_windows(images.height, size)),
          windows_x_(valid_windows(images.width, size)),
          height_(height),
          width_(width),
          lead_(lead),
          rows_((windows_y_ - 1 + lead) / height + 1),
          columns_((windows_x_ - 1 + lead) / width + 1),
          count_(images.count * rows_ * columns_),
          dense_(windows.dense()) {
        if (!dense_) collect(windows);
    }

    i64 count() const { return dense_ ? count_ : static_cast<i64>(touched_.size()); }

    Tile operator[](i64 i) const {
        if (!dense_) return touched_[i];
        const i64 row = i / columns_;
        const i64 y = (row % rows_) * height_ - lead_;
        const i64 x = (i % columns_) * width_ - lead_;
        return {row / rows_, std::max<i64>(y, 0), std::min(y + height_, windows_y_), std::max<i64>(x, 0),
                std::min(x + width_, windows_x_)};
    }

private:
    // The list is ascending, so tiles of one row of the grid are met together.
    void collect(const WindowList &windows) {
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
                slot[column] = static_cast<i64>(touched_.size());
                touched_.push_back({w.image, w.y, w.y + 1, w.x, w.x + 1});
            } else {
                Tile &tile = touched_[slot[column]];
                tile.y1 = w.y + 1;
                tile.x0 = std::min(tile.x0, w.x);
                tile.x1 = std::max(tile.x1, w.x + 1);
            }
        }
    }

    i64 windows_y_, windows_x_, height_, width_, lead_, rows_, columns_, count_;
    bool dense_;
    std::vector<Tile> touched_;
};

// Where the values of a tile's windows go: value of (y, x) at data[(y - y0) * stride + x - x0], planes apart by
// `plane`. Straight into the output where every window is wanted, else into a buffer that is gathered afterwards.
struct TileOutput {
    float *data;
    i64 stride, plane;
};

class Output {
public:
    Output(const Images &images, i64 size, const WindowList &windows, float *out)
        : windows_y_(valid_windows(images.height, size)),
          windows_x_(valid_windows(images.width, size)),
          total_(windows.dense() ? images.count * windows_y_ * windows_x_ : windows.count),
          windows_(windows),
          out_(out) {}

    // `planes` bounds the number of statistics the tile writes.
    TileOutput open(const Tile &tile, i64 planes, std::vector<float> &buffer) const {
        if (windows_.dense()) {
            return {out_ + (tile.image * windows_y_ + tile.y0) * windows_x_ + tile.x0, windows_x_, total_};
        }
        const i64 plane = tile.height() * tile.width();
        buffer.resize(static_cast<std::size_t>(planes * plane));
        return {buffer.data(), tile.width(), plane};
    }

    // Brings plane `slot` of the buffer home to the listed windows.
    void close(const Tile &tile, const TileOutput &from, i64 slot) const {
        if (windows_.dense()) return;
        for (i64 y = tile.y0; y < tile.y1; ++y) {
            const i64 row = (tile.image * windows_y_ + y) * windows_x_;
            const float *source = from.data + slot * from.plane + (y - tile.y0) * from.stride;
            float *target = out_ + slot * total_;
            for (i64 i = lower_bound(windows_, row + tile.x0);
                 i < windows_.count && windows_.data[i] < row + tile.x1; ++i) {
                target[i] = source[windows_.data[i] - row - tile.x0];
            }
        }
    }

private:
    i64 windows_y_, windows_x_, total_;
    WindowList windows_;
    float *out_;
};

// ---------------------------------------------------------------------------------------------- moments

// Eight lattice cells (see core/moments.h) are worked on at once, one in each SIMD lane: the sums run along
// rows and columns inside a lane, so that no step depends on a neighbour in the same vector.
constexpr int kLanes = 8;
// Columns of windows held at a time; bounds the workspace for large windows (size * 64 * 256 bytes).
constexpr i64 kPanel = 64;
constexpr int kMomentKinds = 6;

// The alignment is given because gcc's own depends on the instruction set of the function that asks.
typedef double Vector __attribute__((vector_size(kLanes * sizeof(double)), aligned(64)));

struct VectorSums {
    Vector s1, s2, s3, s4;

    T3_ALWAYS_INLINE void clear() { s1 = s2 = s3 = s4 = Vector{}; }
    T3_ALWAYS_INLINE void add(const Vector &d) {
        const Vector d2 = d * d;
        s1 += d;
        s2 += d2;
        s3 += d2 * d;
        s4 += d2 * d2;
    }
    T3_ALWAYS_INLINE void add(const VectorSums &other) {
        s1 += other.s1;
        s2 += other.s2;
        s3 += other.s3;
        s4 += other.s4;
    }
};

// One lattice cell: its lattice pixel, and the part of its size x size windows that is wanted.
struct Cell {
    const float *image;
    i64 height, width, y, x;
    i64 t0, t1, u0, u1;
    TileOutput out;
};

struct MomentPlane {
    i64 slot;
    int kind;  // 0 .. kMomentKinds - 1, the order of Statistic
};

struct MomentScratch {
    std::vector<float> gathered[kLanes];
    std::vector<float> values;
    std::vector<unsigned char> memory;

    // Vectors of unknown content, aligned to their size.
    Vector *vectors(i64 count) {
        memory.resize(static_cast<std::size_t>(count + 1) * sizeof(Vector));
        void *start = memory.data();
        std::size_t space = memory.size();
        return static_cast<Vector *>(std::align(sizeof(Vector), sizeof(Vector) * count, start, space));
    }
};

// Row `offset` from the lattice row, columns -(size - 1) .. size - 1, less the origin. Pixels outside the image
// count as the origin: only windows that do not exist hold them.
T3_ALWAYS_INLINE void load_row(const Cell *cells, int used, const double *origin, i64 size, i64 offset,
                               double *row) {
    for (int lane = 0; lane < used; ++lane) {
        const Cell &cell = cells[lane];
        const i64 y = cell.y + offset;
        double *target = row + lane;
        if (y < 0 || y >= cell.height) {
            for (i64 c = 0; c < 2 * size - 1; ++c) target[c * kLanes] = 0.0;
            continue;
        }
        const i64 left = cell.x - (size - 1);
        const i64 begin = std::max<i64>(0, -left);
        const i64 end = std::min(2 * size - 1, cell.width - left);
        const float *source = cell.image + y * cell.width + left;
        for (i64 c = begin; c < end; ++c) target[c * kLanes] = source[c] - origin[lane];
    }
}

// Adds the sums of one row over each window column p0 <= u < p1 to `columns`.
T3_ALWAYS_INLINE void add_row(const Vector *row, i64 size, i64 p0, i64 p1, VectorSums *suffix,
                              VectorSums *columns) {
    VectorSums sums;
    sums.clear();
    i64 u = size - 1;
    if (u < p1) suffix[u - p0] = sums;
    for (--u; u >= p1; --u) sums.add(row[u]);
    for (; u >= p0; --u) {
        sums.add(row[u]);
        suffix[u - p0] = sums;
    }
    sums.clear();
    const Vector *right = row + size - 1;
    for (u = 0; u < p0; ++u) sums.add(right[u]);
    for (; u < p1; ++u) {
        sums.add(right[u]);
        VectorSums whole = suffix[u - p0];
        whole.add(sums);
        columns[u - p0].add(whole);
    }
}

T3_SIMD_CLONES void moments_of_cells(const Cell *cells, int used, i64 size, const MomentPlane *planes,
                                     int plane_count, MomentScratch &scratch) {
    alignas(64) double origin[kLanes] = {};
    i64 t_begin = size, t_end = 0, u_begin = size, u_end = 0;
    for (int lane = 0; lane < used; ++lane) {
        const Cell &cell = cells[lane];
        origin[lane] = cell.image[cell.y * cell.width + cell.x];
        t_begin = std::min(t_begin, cell.t0);
        t_end = std::max(t_end, cell.t1);
        u_begin = std::min(u_begin, cell.u0);
        u_end = std::max(u_end, cell.u1);
    }
    const double inverse_count = 1.0 / (static_cast<double>(size) * static_cast<double>(size));
    const i64 panel = std::min(kPanel, u_end - u_begin);
    Vector *memory = scratch.vectors(2 * size - 1 + 4 * panel * (size + 2));
    Vector *row = memory;
    std::fill(row, row + 2 * size - 1, Vector{});
    VectorSums *columns = reinterpret_cast<VectorSums *>(row + 2 * size - 1);
    VectorSums *suffix = columns + panel;
    VectorSums *above = suffix + panel;
    scratch.values.resize(static_cast<std::size_t>(kMomentKinds * panel * kLanes));
    float *values[kMomentKinds];
    for (int k = 0; k < kMomentKinds; ++k) values[k] = scratch.values.data() + k * panel * kLanes;

    for (i64 p0 = u_begin; p0 < u_end; p0 += panel) {
        const i64 p1 = std::min(p0 + panel, u_end), width = p1 - p0;
        for (i64 i = 0; i < width; ++i) columns[i].clear();
        for (i64 t = size - 1; t >= t_begin; --t) {
            if (t < size - 1) {
                load_row(cells, used, origin, size, t - (size - 1), reinterpret_cast<double *>(row));
                add_row(row, size, p0, p1, suffix, columns);
            }
            std::copy(columns, columns + width, above + t * panel);
        }
        for (i64 i = 0; i < width; ++i) columns[i].clear();
        for (i64 t = 0; t < t_end; ++t) {
            load_row(cells, used, origin, size, t, reinterpret_cast<double *>(row));
            add_row(row, size, p0, p1, suffix, columns);
            if (t < t_begin) continue;
            for (i64 i = 0; i < width; ++i) {
                VectorSums whole = above[t * panel + i];
                whole.add(columns[i]);
                const double *sums = reinterpret_cast<const double *>(&whole);
                const i64 at = i * kLanes;
                for (int lane = 0; lane < kLanes; ++lane) {
                    const Moments m =
                        moments_of({sums[lane], sums[kLanes + lane], sums[2 * kLanes + lane], sums[3 * kLanes + lane]},
                                   origin[lane], inverse_count);
                    values[0][at + lane] = static_cast<float>(m.mean);
                    values[1][at + lane] = static_cast<float>(m.std);
                    values[2][at + lane] = static_cast<float>(m.variance);
                    values[3][at + lane] = static_cast<float>(m.skewness);
                    values[4][at + lane] = static_cast<float>(m.kurtosis);
                    values[5][at + lane] = static_cast<float>(m.energy);
                }
            }
            for (int lane = 0; lane < used; ++lane) {
                const Cell &cell = cells[lane];
                if (t < cell.t0 || t >= cell.t1) continue;
                const i64 begin = std::max(p0, cell.u0), end = std::min(p1, cell.u1);
                for (int k = 0; k < plane_count; ++k) {
                    const float *source = values[planes[k].kind] + lane - p0 * kLanes;
                    float *target =
                        cell.out.data + planes[k].slot * cell.out.plane + (t - cell.t0) * cell.out.stride - cell.u0;
                    for (i64 u = begin; u < end; ++u) target[u] = source[u * kLanes];
                }
            }
        }
    }
}

void moments(const Images &images, i64 size, const std::vector<MomentPlane> &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const TileGrid grid(images, size, windows, size, size, size - 1);
    const i64 batches = (grid.count() + kLanes - 1) / kLanes;
    parallel_tasks<MomentScratch>(batches, threads, [&](MomentScratch &scratch, i64 batch) {
        Cell cells[kLanes];
        Tile tiles[kLanes];
        const int used = static_cast<int>(std::min<i64>(kLanes, grid.count() - batch * kLanes));
        for (int lane = 0; lane < used; ++lane) {
            const Tile tile = grid[batch * kLanes + lane];
            const i64 row = lattice_cell(tile.y0, size), column = lattice_cell(tile.x0, size);
            const i64 y = cell_begin(row, size), x = cell_begin(column, size);
            tiles[lane] = tile;
            cells[lane] = {images.image(tile.image), images.height, images.width, row * size, column * size,
                           tile.y0 - y, tile.y1 - y, tile.x0 - x, tile.x1 - x,
                           output.open(tile, plane_count, scratch.gathered[lane])};
        }
        moments_of_cells(cells, used, size, planes.data(), static_cast<int>(planes.size()), scratch);
        for (int lane = 0; lane < used; ++lane) {
            for (const MomentPlane &plane : planes) output.close(tiles[lane], cells[lane].out, plane.slot);
        }
    });
}

// ---------------------------------------------------------------------------------------------- extrema

// Rows and columns of windows in a tile.
constexpr i64 kExtremaTile = 256;

struct ExtremaScratch {
    std::vector<float> gathered, memory;
};

struct ExtremaPlanes {
    std::vector<i64> low, high, range;
};

T3_ALWAYS_INLINE float smaller(float a, float b) { return b < a ? b : a; }
T3_ALWAYS_INLINE float larger(float a, float b) { return b > a ? b : a; }

// From the extrema of single columns to those of `size` columns side by side: spans double until two of them
// cover the window. Exact, as an extremum does not mind counting a pixel twice.
T3_ALWAYS_INLINE void widen(float *low, float *high, i64 columns, i64 size) {
    i64 span = 1, left = columns;
    while (2 * span <= size) {
        left -= span;
        for (i64 x = 0; x < left; ++x) {
            low[x] = smaller(low[x], low[x + span]);
            high[x] = larger(high[x], high[x + span]);
        }
        span *= 2;
    }
    const i64 rest = size - span;
    if (rest == 0) return;
    left -= rest;
    for (i64 x = 0; x < left; ++x) {
        low[x] = smaller(low[x], low[x + rest]);
        high[x] = larger(high[x], high[x + rest]);
    }
}

// Extrema of the windows of one tile, at most `size` rows of them (van Herk: down from row y1 - 1 upwards, and
// from there on downwards), handed to `row_done(y)` row by row in low and high.
T3_SIMD_CLONES void extrema_of_rows(const float *image, i64 stride, i64 size, i64 rows, i64 columns, float *memory,
                                    float *const *low_out, float *const *high_out, float *const *range_out,
                                    int low_count, int high_count, int range_count, i64 out_stride) {
    const i64 pixels = columns + size - 1;
    float *low = memory, *high = low + pixels, *low_row = high + pixels, *high_row = low_row + pixels;
    float *low_above = high_row + pixels, *high_above = low_above + size * pixels;
    // Window t covers rows t .. size - 1 of the upper block, then size .. t + size - 1.
    for (i64 t = size - 1; t >= 0; --t) {
        const float *__restrict source = image + t * stride;
        float *__restrict low_target = low_above + t * pixels;
        float *__restrict high_target = high_above + t * pixels;
        const float *__restrict low_next = t == size - 1 ? source : low_target + pixels;
        const float *__restrict high_next = t == size - 1 ? source : high_target + pixels;
        for (i64 x = 0; x < pixels; ++x) {
            low_target[x] = smaller(source[x], low_next[x]);
            high_target[x] = larger(source[x], high_next[x]);
        }
    }
    for (i64 t = 0; t < rows; ++t) {
        const float *__restrict low_upper = low_above + t * pixels;
        const float *__restrict high_upper = high_above + t * pixels;
        if (t == 0) {
            std::copy(low_upper, low_upper + pixels, low_row);
            std::copy(high_upper, high_upper + pixels, high_row);
        } else {
            const float *__restrict source = image + (t + size - 1) * stride;
            if (t == 1) {
                std::copy(source, source + pixels, low);
                std::copy(source, source + pixels, high);
            }
            for (i64 x = 0; x < pixels; ++x) {
                low[x] = smaller(low[x], source[x]);
                high[x] = larger(high[x], source[x]);
                low_row[x] = smaller(low[x], low_upper[x]);
                high_row[x] = larger(high[x], high_upper[x]);
            }
        }
        widen(low_row, high_row, pixels, size);
        // Adding +0 turns -0.0 into 0.0: which of the two equal zeros was met first must not show.
        for (int k = 0; k < low_count; ++k) {
            for (i64 x = 0; x < columns; ++x) low_out[k][t * out_stride + x] = low_row[x] + 0.0f;
        }
        for (int k = 0; k < high_count; ++k) {
            for (i64 x = 0; x < columns; ++x) high_out[k][t * out_stride + x] = high_row[x] + 0.0f;
        }
        for (int k = 0; k < range_count; ++k) {
            for (i64 x = 0; x < columns; ++x) range_out[k][t * out_stride + x] = high_row[x] - low_row[x];
        }
    }
}

void extrema(const Images &images, i64 size, const ExtremaPlanes &planes, i64 plane_count,
             const WindowList &windows, const Output &output, int threads) {
    const i64 rows = std::min(size, kExtremaTile);
    const TileGrid grid(images, size, windows, rows, kExtremaTile, 0);
    parallel_tasks<ExtremaScratch>(grid.count(), threads, [&](ExtremaScratch &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        const i64 pixels = tile.width() + size - 1;
        scratch.memory.resize(static_cast<std::size_t>((2 * size + 4) * pixels));
        std::vector<float *> low, high, range;
        for (i64 slot : planes.low) low.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.high) high.push_back(out.data + slot * out.plane);
        for (i64 slot : planes.range) range.push_back(out.data + slot * out.plane);
        extrema_of_rows(images.image(tile.image) + tile.y0 * images.width + tile.x0, images.width, size,
                        tile.height(), tile.width(), scratch.memory.data(), low.data(), high.data(), range.data(),
                        static_cast<int>(low.size()), static_cast<int>(high.size()),
                        static_cast<int>(range.size()), out.stride);
        for (const std::vector<i64> *slots : {&planes.low, &planes.high, &planes.range}) {
            for (i64 slot : *slots) output.close(tile, out, slot);
        }
    });
}

// ------------------------------------------------------------------------------------- order statistics
//
// The pixels under a tile are sorted once, which gives every pixel a rank of its own. Then every column of
// windows slides down with a pivot, the rank of its last answer, and the number of ranks below it in the window:
// the row that enters and the row that leaves are compared with the pivots of many columns at once. The answer is
// found by walking from the pivot through the ranks in order, counting those whose pixel lies in the window.

constexpr i64 kOrderTile = 128;
constexpr i64 kMaskedOrderTile = 64;
// Up to this size, ranks fit 16 bits and coordinates 8.
constexpr i64 kNarrowSize = 192;
constexpr int kChunk = 64;

struct Narrow {
    using Rank = std::int16_t;
    using Coordinate = std::uint8_t;
    typedef Rank RankVector __attribute__((vector_size(64)));
    static constexpr i64 kBias = 32768;
    static constexpr i64 kColumns = 32;
};

struct Wide {
    using Rank = std::int32_t;
    using Coordinate = std::uint16_t;
    typedef Rank RankVector __attribute__((vector_size(64)));
    static constexpr i64 kBias = 0;
    static constexpr i64 kColumns = 16;
};

template <typename Kind>
struct OrderScratch {
    std::vector<float> gathered;
    std::vector<std::uint64_t> pairs, spare;
    std::vector<typename Kind::Rank> ranks;      // (rows, stride), biased
    std::vector<typename Kind::Coordinate> y, x;  // by rank, kChunk entries that are in no window at either end
    std::vector<float> values;                    // by rank
};

// Stable radix sort by the upper 32 bits; digits in which all entries agree are skipped.
T3_ALWAYS_INLINE std::uint64_t *sort_pairs(std::uint64_t *pairs, std::uint64_t *spare, i64 count) {
    constexpr int kBits = 11, kPasses = 3, kBins = 1 << kBits;
    std::uint32_t bins[kPasses][kBins] = {};
    for (i64 i = 0; i < count; ++i) {
        for (int pass = 0; pass < kPasses; ++pass) ++bins[pass][(pairs[i] >> (32 + pass * kBits)) & (kBins - 1)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
        const int shift = 32 + pass * kBits;
        std::uint32_t *bin = bins[pass];
        if (bin[(pairs[0] >> shift) & (kBins - 1)] == static_cast<std::uint32_t>(count)) continue;
        std::uint32_t start = 0;
        for (int b = 0; b < kBins; ++b) {
            const std::uint32_t length = bin[b];
            bin[b] = start;
            start += length;
        }
        for (i64 i = 0; i < count; ++i) spare[bin[(pairs[i] >> shift) & (kBins - 1)]++] = pairs[i];
        std::swap(pairs, spare);
    }
    return pairs;
}

template <typename Kind>
T3_ALWAYS_INLINE void rank_pixels(const float *image, i64 stride, i64 rows, i64 columns, i64 rank_stride,
                                  OrderScratch<Kind> &scratch) {
    const i64 count = rows * columns;
    scratch.pairs.resize(count);
    scratch.spare.resize(count);
    scratch.values.resize(count);
    scratch.y.assign(count + 2 * kChunk, static_cast<typename Kind::Coordinate>(-1));
    scratch.x.assign(count + 2 * kChunk, static_cast<typename Kind::Coordinate>(-1));
    scratch.ranks.assign(rows * rank_stride, std::numeric_limits<typename Kind::Rank>::max());
    for (i64 y = 0; y < rows; ++y) {
        for (i64 x = 0; x < columns; ++x) {
            scratch.pairs[y * columns + x] =
                static_cast<std::uint64_t>(float_to_key(image[y * stride + x])) << 32 | (y << 16 | x);
        }
    }
    const std::uint64_t *sorted = sort_pairs(scratch.pairs.data(), scratch.spare.data(), count);
    for (i64 rank = 0; rank < count; ++rank) {
        const i64 y = sorted[rank] >> 16 & 0xFFFF, x = sorted[rank] & 0xFFFF;
        scratch.values[rank] = key_to_float(static_cast<std::uint32_t>(sorted[rank] >> 32));
        scratch.y[kChunk + rank] = static_cast<typename Kind::Coordinate>(y);
        scratch.x[kChunk + rank] = static_cast<typename Kind::Coordinate>(x);
        scratch.ranks[y * rank_stride + x] = static_cast<typename Kind::Rank>(rank - Kind::kBias);
    }
}

// Bit i: whether the pixel of rank `first + i` lies in the window at (top, left).
template <typename Coordinate>
T3_ALWAYS_INLINE std::uint64_t members(const Coordinate *y, const Coordinate *x, i64 top, i64 left, i64 size) {
    alignas(64) std::uint8_t inside[kChunk];
    for (int i = 0; i < kChunk; ++i) {
        inside[i] = static_cast<std::uint8_t>((static_cast<Coordinate>(y[i] - top) < static_cast<Coordinate>(size)) &
                                              (static_cast<Coordinate>(x[i] - left) < static_cast<Coordinate>(size)));
    }
    std::uint64_t mask = 0;
    for (int i = 0; i < kChunk; i += 8) {
        std::uint64_t word = 0;
        // Eight bytes of 0 or 1 to eight bits, first byte lowest, whatever the byte order.
        for (int b = 0; b < 8; ++b) word |= static_cast<std::uint64_t>(inside[i + b]) << (8 * b);
        mask |= (word * 0x0102040810204080u >> 56) << i;
    }
    return mask;
}

T3_ALWAYS_INLINE int set_bits(std::uint64_t mask) { return __builtin_popcountll(mask); }

// Place of the k-th (0-based) bit that is set.
T3_ALWAYS_INLINE int place_of_bit(std::uint64_t mask, i64 k) {
    for (; k > 0; --k) mask &= mask - 1;
    return __builtin_ctzll(mask);
}

// Walks from rank `from`, below which the window has `below` ranks, to the window's rank number `wanted`
// (0-based); with `upper`, also to the next one.
template <typename Kind>
T3_ALWAYS_INLINE void walk(const OrderScratch<Kind> &scratch, i64 top, i64 left, i64 size, i64 from, i64 below,
                           i64 wanted, i64 *found, i64 *upper) {
    const typename Kind::Coordinate *y = scratch.y.data() + kChunk, *x = scratch.x.data() + kChunk;
    std::uint64_t mask;
    i64 at = from;
    if (below > wanted) {
        do {
            at -= kChunk;
            mask = members(y + at, x + at, top, left, size);
            below -= set_bits(mask);
        } while (below > wanted);
    } else {
        mask = members(y + at, x + at, top, left, size);
        for (int inside = set_bits(mask); below + inside <= wanted; inside = set_bits(mask)) {
            below += inside;
            at += kChunk;
            mask = members(y + at, x + at, top, left, size);
        }
    }
    const int bit = place_of_bit(mask, wanted - below);
    *found = at + bit;
    if (upper == nullptr) return;
    mask &= ~std::uint64_t{1} << bit;
    while (mask == 0) {
        at += kChunk;
        mask = members(y + at, x + at, top, left, size);
    }
    *upper = at + __builtin_ctzll(mask);
}

// below[i] += sign * #(ranks of this row in window i that are lower than pivot[i]).
template <typename Kind, int kSign>
T3_ALWAYS_INLINE void count_row(const typename Kind::Rank *row, const typename Kind::Rank *pivot, i64 size,
                                typename Kind::Rank *below) {
    using RankVector = typename Kind::RankVector;
    RankVector p, sum = {};
    std::memcpy(&p, pivot, sizeof(p));
    for (i64 j = 0; j < size; ++j) {
        RankVector r;
        std::memcpy(&r, row + j, sizeof(r));
        sum -= r < p;
    }
    for (i64 i = 0; i < Kind::kColumns; ++i) {
        below[i] = static_cast<typename Kind::Rank>(below[i] + kSign * sum[i]);
    }
}

template <typename Kind>
T3_ALWAYS_INLINE void slide(const OrderScratch<Kind> &scratch, i64 pixels, i64 size, i64 rows, i64 columns,
                            i64 rank_stride, double fraction, bool median, float *out, i64 out_stride) {
    using Rank = typename Kind::Rank;
    const QuantilePlace place = quantile_place(size * size, fraction, median);
    const i64 guess = std::min(pixels - 1, static_cast<i64>(fraction * static_cast<double>(pixels)));
    for (i64 left = 0; left < columns; left += Kind::kColumns) {
        const i64 width = std::min(Kind::kColumns, columns - left);
        alignas(64) Rank pivot[Kind::kColumns], change[Kind::kColumns];
        i64 below[Kind::kColumns] = {};
        std::fill(pivot, pivot + Kind::kColumns, static_cast<Rank>(guess - Kind::kBias));
        const Rank *ranks = scratch.ranks.data() + left;
        for (i64 top = 0; top < rows; ++top) {
            if (top == 0) {
                for (i64 j = 0; j < size; ++j) {
                    std::fill(change, change + Kind::kColumns, Rank{0});
                    count_row<Kind, 1>(ranks + j * rank_stride, pivot, size, change);
                    for (i64 i = 0; i < width; ++i) below[i] += change[i];
                }
            } else {
                std::fill(change, change + Kind::kColumns, Rank{0});
                count_row<Kind, 1>(ranks + (top + size - 1) * rank_stride, pivot, size, change);
                count_row<Kind, -1>(ranks + (top - 1) * rank_stride, pivot, size, change);
                for (i64 i = 0; i < width; ++i) below[i] = place.lower + change[i];
            }
            for (i64 i = 0; i < width; ++i) {
                i64 found, upper;
                walk(scratch, top, left + i, size, pivot[i] + Kind::kBias, below[i], place.lower, &found,
                     place.needs_upper ? &upper : nullptr);
                pivot[i] = static_cast<Rank>(found - Kind::kBias);
                const float low = scratch.values[found];
                out[top * out_stride + left + i] =
                    quantile_value(place, low, place.needs_upper ? scratch.values[upper] : low);
            }
        }
    }
}

struct OrderPlane {
    i64 slot;
    double fraction;
    bool median;
};

template <typename Kind>
T3_ALWAYS_INLINE void order_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                 const std::vector<OrderPlane> &planes, const TileOutput &out,
                                 OrderScratch<Kind> &scratch) {
    const i64 high = rows + size - 1, wide = columns + size - 1;
    const i64 rank_stride = wide + Kind::kColumns;
    rank_pixels<Kind>(image, stride, high, wide, rank_stride, scratch);
    for (const OrderPlane &plane : planes) {
        slide<Kind>(scratch, high * wide, size, rows, columns, rank_stride, plane.fraction, plane.median,
                    out.data + plane.slot * out.plane, out.stride);
    }
}

T3_SIMD_CLONES void order_of_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                  const std::vector<OrderPlane> &planes, const TileOutput &out,
                                  OrderScratch<Narrow> &scratch) {
    order_tile<Narrow>(image, stride, size, rows, columns, planes, out, scratch);
}

T3_SIMD_CLONES void order_of_wide_tile(const float *image, i64 stride, i64 size, i64 rows, i64 columns,
                                       const std::vector<OrderPlane> &planes, const TileOutput &out,
                                       OrderScratch<Wide> &scratch) {
    order_tile<Wide>(image, stride, size, rows, columns, planes, out, scratch);
}

template <typename Kind>
void order_statistics(const Images &images, i64 size, const std::vector<OrderPlane> &planes, i64 plane_count,
                      const WindowList &windows, const Output &output, int threads) {
    // A narrow tile keeps coordinate 255 free for the entries that are in no window.
    const i64 tile_size = std::min(windows.dense() ? kOrderTile : kMaskedOrderTile,
                                   std::is_same<Kind, Narrow>::value ? 256 - size : kOrderTile);
    const TileGrid grid(images, size, windows, tile_size, tile_size, 0);
    parallel_tasks<OrderScratch<Kind>>(grid.count(), threads, [&](OrderScratch<Kind> &scratch, i64 i) {
        const Tile tile = grid[i];
        const TileOutput out = output.open(tile, plane_count, scratch.gathered);
        const float *corner = images.image(tile.image) + tile.y0 * images.width + tile.x0;
        if constexpr (std::is_same<Kind, Narrow>::value) {
            order_of_tile(corner, images.width, size, tile.height(), tile.width(), planes, out, scratch);
        } else {
            order_of_wide_tile(corner, images.width, size, tile.height(), tile.width(), planes, out, scratch);
        }
        for (const OrderPlane &plane : planes) output.close(tile, out, plane.slot);
    });
}

T3_SIMD_CLONES bool all_finite(const float *values, i64 count) {
    std::uint32_t bad = 0;
    for (i64 i = 0; i < count; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, values + i, sizeof(bits));
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return bad == 0;
}

struct NoScratch {};

}  // namespace

void window_statistics(ImageStack<const float> images, i64 size, const std::vector<StatisticRequest> &statistics,
                       WindowList windows, float *out, int threads) {
    if (images.count == 0 || (!windows.dense() && windows.count == 0)) return;
    std::vector<MomentPlane> moment_planes;
    ExtremaPlanes extrema_planes;
    std::vector<OrderPlane> order_planes;
    const i64 planes = static_cast<i64>(statistics.size());
    for (i64 slot = 0; slot < planes; ++slot) {
        const StatisticRequest &request = statistics[slot];
        switch (request.kind) {
            case Statistic::min: extrema_planes.low.push_back(slot); break;
            case Statistic::max: extrema_planes.high.push_back(slot); break;
            case Statistic::range: extrema_planes.range.push_back(slot); break;
            case Statistic::median: order_planes.push_back({slot, 0.5, true}); break;
            case Statistic::quantile: order_planes.push_back({slot, request.fraction, false}); break;
            default: moment_planes.push_back({slot, static_cast<int>(request.kind)});
        }
    }
    const Output output(images, size, windows, out);
    if (!moment_planes.empty()) moments(images, size, moment_planes, planes, windows, output, threads);
    if (!(extrema_planes.low.empty() && extrema_planes.high.empty() && extrema_planes.range.empty())) {
        extrema(images, size, extrema_planes, planes, windows, output, threads);
    }
    if (order_planes.empty()) return;
    if (size <= kNarrowSize) {
        order_statistics<Narrow>(images, size, order_planes, planes, windows, output, threads);
    } else {
        order_statistics<Wide>(images, size, order_planes, planes, windows, output, threads);
    }
}

i64 first_nonfinite(const float *values, i64 count, int threads) {
    constexpr i64 kBlock = 1 << 16;
    const i64 blocks = (count + kBlock - 1) / kBlock;
    std::atomic<i64> first{blocks};
    parallel_tasks<NoScratch>(blocks, threads, [&](NoScratch &, i64 block) {
        if (block >= first.load() || all_finite(values + block * kBlock, std::min(kBlock, count - block * kBlock))) {
            return;
        }
        for (i64 seen = first.load(); block < seen && !first.compare_exchange_weak(seen, block);) {
        }
    });
    for (i64 i = first.load() * kBlock; i < count; ++i) {
        if (!all_finite(values + i, 1)) return i;
    }
    return -1;
}

}  // namespace t3ssfast::cpu
