// Block algorithm of window_statistics: moments and extrema of a strip of lattice cells (core/moments.h).
//
// A strip is one lattice cell wide. The block marches down it, a panel of kPanelRows rows of windows at a time:
//
// 1. Pixels that the panel adds are copied to a ring of rows in shared memory, once each, and checked for NaN and Inf.
// 2. Every lane takes one pixel column. It sums the rows above the lattice row upwards, which it keeps in registers,
//    and goes on with the sum of the rows below, downwards. Each row of windows gets the total of both. The same
//    pixels below are also summed for the next cell, about that cell's origin, as the total of a band of rows.
// 3. A lane takes one sum of one row of windows, left or right of the lattice column, and sums it over the columns.
// 4. A lane takes one window: sum of its left and right part, moments, output.
//
// All sums of a band below the current panel are known from the cell before, so that no row is summed again for each
// panel. The order of additions does not depend on the strips, on the windows that are requested, or on the lanes.
#pragma once

#include "core/fragment.h"
#include "core/moments.h"
#include "core/window_statistics.h"

namespace t3ssfast {

// Rows of windows per panel, and rows of pixels per band.
constexpr int kPanelRows = 10;

struct Extrema {
    float low, high;

    T3_HD void clear() {
        low = std::numeric_limits<float>::infinity();
        high = -std::numeric_limits<float>::infinity();
    }
    T3_HD void add(const Extrema &other) {
        low = other.low < low ? other.low : low;
        high = other.high > high ? other.high : high;
    }
};

// Sums and extrema of some pixels of one column.
struct ColumnSums {
    PowerSums powers;
    Extrema extrema;

    T3_HD void clear() {
        powers.clear();
        extrema.clear();
    }
    T3_HD void take(float value, double origin) {
        powers.add(difference(value, origin));
        extrema.add({value, value});
    }
    T3_HD void add(const ColumnSums &other) {
        powers.add(other.powers);
        extrema.add(other.extrema);
    }
};

constexpr int kPowers = 4;

// Bands of pixel rows above a lattice row; fewer and higher ones for large windows. Their height decides the order of
// additions, so it depends on the size alone.
constexpr std::int64_t kMaxBands = 5;
T3_HD std::int64_t band_panels(std::int64_t size) { return size > 1 ? (size - 2) / (kMaxBands * kPanelRows) + 1 : 1; }

// The memory of a block, in shared memory or in its part of the workspace. It holds records of a whole row of columns:
// one per row of the panel, the sums below the lattice row so far, those of the next cell's band so far where a band
// is more than a panel, and the sums of all bands below each band. The ring holds the rows of pixels that a panel
// needs; without it, pixels are read from the image.
struct MomentMemory {
    std::int64_t size;
    bool ring;

    T3_HD std::int64_t columns() const { return 2 * size - 1; }
    T3_HD std::int64_t panel() const { return size < kPanelRows ? size : kPanelRows; }
    T3_HD std::int64_t band_rows() const { return band_panels(size) * kPanelRows; }
    T3_HD std::int64_t first_band() const { return panel() + (band_panels(size) > 1 ? 2 : 1); }
    T3_HD std::int64_t records() const { return first_band() + (size - 2 + band_rows()) / band_rows(); }
    T3_HD std::int64_t ring_rows() const { return size + kPanelRows; }

    T3_HD std::int64_t bytes() const {
        return records() * columns() * static_cast<std::int64_t>(sizeof(double) * kPowers + sizeof(Extrema)) +
               (size + 1) * static_cast<std::int64_t>(sizeof(RowRange)) +
               (ring ? ring_rows() * columns() * static_cast<std::int64_t>(sizeof(float)) : 0);
    }
};

struct MomentBuffers {
    double *powers;    // (records, kPowers, columns)
    Extrema *extrema;  // (records, columns)
    RowRange *ranges;  // (size + 1)
    float *ring;       // (ring_rows, columns), or null
    int columns, band_rows, below, next_band, first_band;
    // Where pixels are read: row y of the image is row y % pixel_rows.
    const float *pixels;
    std::int64_t pixel_stride;
    int pixel_rows;

    T3_HD MomentBuffers(const MomentMemory &memory, unsigned char *start)
        : powers(reinterpret_cast<double *>(start)),
          extrema(reinterpret_cast<Extrema *>(powers + memory.records() * kPowers * memory.columns())),
          ranges(reinterpret_cast<RowRange *>(extrema + memory.records() * memory.columns())),
          ring(memory.ring ? reinterpret_cast<float *>(ranges + memory.size + 1) : nullptr),
          columns(static_cast<int>(memory.columns())),
          band_rows(static_cast<int>(memory.band_rows())),
          below(static_cast<int>(memory.panel())),
          next_band(below + 1),
          first_band(static_cast<int>(memory.first_band())),
          pixels(ring),
          pixel_stride(columns),
          pixel_rows(static_cast<int>(memory.ring_rows())) {}

    T3_HD int slot(std::int64_t image_row) const {
        return static_cast<int>(static_cast<std::uint32_t>(image_row) % static_cast<std::uint32_t>(pixel_rows));
    }
    // The pixel `rows` rows below a slot.
    T3_HD float pixel(int slot, int rows, int column) const {
        const int row = slot + rows;
        return pixels[(row < pixel_rows ? row : row - pixel_rows) * pixel_stride + column];
    }
    T3_HD ColumnSums load(int record, int column) const {
        const double *const from = powers + record * kPowers * columns + column;
        return {{from[0], from[columns], from[2 * columns], from[3 * columns]}, extrema[record * columns + column]};
    }
    T3_HD void store(int record, int column, const ColumnSums &sums) const {
        double *const to = powers + record * kPowers * columns + column;
        to[0] = sums.powers.s1;
        to[columns] = sums.powers.s2;
        to[2 * columns] = sums.powers.s3;
        to[3 * columns] = sums.powers.s4;
        extrema[record * columns + column] = sums.extrema;
    }
};

// Grid of strips: each is one column of cells of an image, or `rows` of its cells.
struct StripGrid {
    BlockGrid cells;
    std::int64_t rows, per_column, count;
};

inline StripGrid strip_grid(const StatisticsRun &run, std::int64_t rows) {
    const BlockGrid cells = block_grid(run, run.size, run.size, run.size - 1);
    const std::int64_t per_column = (cells.rows + rows - 1) / rows;
    return {cells, rows, per_column, run.images.count * cells.columns * per_column};
}

// One lattice cell. Windows t, u have their upper left pixel at (top + t, left + u); the lattice pixel is at
// (top + size - 1, left + size - 1).
struct MomentCell {
    Tile tile;
    std::int64_t top, left;
    int size, t_begin, t_end, u_begin, u_end;  // the windows that exist
    double origin;
    bool above;     // whether rows above the lattice row belong to windows
    bool march_on;  // whether the next cell follows
    double next_origin;

    T3_HD std::int64_t lattice_y() const { return top + size - 1; }
    // Pixel columns that belong to windows.
    T3_HD int column_end() const { return size - 1 + u_end; }
};

T3_HD MomentCell moment_cell(const StatisticsRun &run, const Tile &tile, bool march_on) {
    const std::int64_t size = run.size;
    const std::int64_t y = lattice_cell(tile.y0, size) * size, x = lattice_cell(tile.x0, size) * size;
    const float *const pixel = run.images.image(tile.image) + y * run.images.width + x;
    MomentCell cell;
    cell.tile = tile;
    cell.top = y - (size - 1);
    cell.left = x - (size - 1);
    cell.size = static_cast<int>(size);
    cell.t_begin = static_cast<int>(tile.y0 - cell.top);
    cell.t_end = static_cast<int>(tile.y1 - cell.top);
    cell.u_begin = static_cast<int>(tile.x0 - cell.left);
    cell.u_end = static_cast<int>(tile.x1 - cell.left);
    cell.origin = *pixel;
    cell.above = cell.t_begin < size - 1;
    cell.march_on = march_on;
    cell.next_origin = march_on ? pixel[size * run.images.width] : 0.0;
    return cell;
}

// Copies rows [begin, end) of the cell's columns to the ring. NaN and Inf lower `run.first_nonfinite`.
T3_HD void stage_rows(const StatisticsRun &run, const MomentCell &cell, const MomentBuffers &buffers,
                      std::int64_t begin, std::int64_t end, int lane, int lanes) {
    constexpr std::uint32_t kExponent = 0x7F800000u;
    const std::int64_t width = run.images.width;
    const std::int64_t first = cell.tile.image * run.images.height * width + cell.left;
    for (std::int64_t y = begin; y < end; ++y) {
        float *const row = buffers.ring + buffers.slot(y) * buffers.columns;
        for (int c = cell.u_begin + lane; c < cell.column_end(); c += lanes) {
            const std::int64_t index = first + y * width + c;
            const float value = run.images.data[index];
            row[c] = value;
            if (run.first_nonfinite != nullptr && (bits_of(value) & kExponent) == kExponent) {
                lower_to(run.first_nonfinite, index);
            }
        }
    }
}

// The rows of pixels that are staged before the panel of rows of windows from t0 on: those below the lattice row, and
// one more for the next cell's band.
T3_HD void stage_panel(const StatisticsRun &run, const MomentCell &cell, const MomentBuffers &buffers, int t0, int lane,
                       int lanes) {
    const int last = t0 + kPanelRows < cell.t_end - 1 ? t0 + kPanelRows : cell.t_end - 1;
    stage_rows(run, cell, buffers, cell.lattice_y() + t0 + (t0 > 0), cell.lattice_y() + last + 1, lane, lanes);
}

// Sums each band above the lattice row of the first cell of a strip, in the order of a block that comes from above.
T3_HD void sum_bands(const MomentCell &cell, const MomentBuffers &buffers, int column) {
    for (int t0 = 0, band = buffers.first_band; t0 < cell.size - 1; t0 += buffers.band_rows, ++band) {
        ColumnSums sums;
        sums.clear();
        const int slot = buffers.slot(cell.top + t0);
        for (int i = 0; i < buffers.band_rows && t0 + i < cell.size - 1; ++i) {
            sums.take(buffers.pixel(slot, i, column), cell.origin);
        }
        buffers.store(band, column, sums);
    }
}

// Replaces the total of each band by that of all bands below it, down to the lattice row.
T3_HD void sum_lower_bands(const MomentCell &cell, const MomentBuffers &buffers, int column) {
    ColumnSums lower;
    lower.clear();
    for (int band = buffers.first_band + (cell.size - 2) / buffers.band_rows; band >= buffers.first_band; --band) {
        const ColumnSums total = buffers.load(band, column);
        buffers.store(band, column, lower);
        lower.add(total);
    }
}

// Where a lane keeps the sums above the lattice row of a panel's rows: in registers, or in the panel's records where
// the memory of the block is device memory, whose addresses take registers.
class UpperInRegisters {
public:
    T3_HD UpperInRegisters(const MomentBuffers &, int) {}
    T3_HD void set(int i, const ColumnSums &sums) { rows_[i] = sums; }
    T3_HD ColumnSums get(int i) const { return rows_[i]; }

private:
    ColumnSums rows_[kPanelRows];
};

class UpperInMemory {
public:
    T3_HD UpperInMemory(const MomentBuffers &buffers, int column) : buffers_(buffers), column_(column) {}
    T3_HD void set(int i, const ColumnSums &sums) {
        if (i < buffers_.below) buffers_.store(i, column_, sums);
    }
    T3_HD ColumnSums get(int i) const { return buffers_.load(i, column_); }

private:
    const MomentBuffers &buffers_;
    int column_;
};

// Step 2 for one pixel column and the panel of rows of windows from t0 on. If it is not `wanted`, only the sums of the
// rows below the lattice row go on.
template <typename Upper>
T3_HD void sum_column(const MomentCell &cell, const MomentBuffers &buffers, int t0, bool wanted, int column) {
    const int above = cell.size - 1;  // pixel rows above the lattice row
    const int band_begin = t0 / buffers.band_rows * buffers.band_rows,
              record = buffers.first_band + t0 / buffers.band_rows;
    const int band_end = band_begin + buffers.band_rows < above ? band_begin + buffers.band_rows : above;
    Upper upper(buffers, column);
    ColumnSums sums;
    sums.clear();
    if (wanted && cell.above) {
        const int slot = buffers.slot(cell.top + t0);
        if (t0 < above) sums = buffers.load(record, column);
        for (int t = band_end - 1; t >= t0 + kPanelRows; --t) {
            sums.take(buffers.pixel(slot, t - t0, column), cell.origin);
        }
        T3_UNROLL for (int i = kPanelRows - 1; i >= 0; --i) {
            if (t0 + i < above) sums.take(buffers.pixel(slot, i, column), cell.origin);
            upper.set(i, sums);
        }
    } else {
        T3_UNROLL for (int i = 0; i < kPanelRows; ++i) upper.set(i, sums);
    }
    sums.clear();
    if (t0 > 0) sums = buffers.load(buffers.below, column);
    const int slot = buffers.slot(cell.lattice_y() + t0);
    float values[kPanelRows + 1];
    T3_UNROLL for (int i = 0; i <= kPanelRows; ++i) {
        values[i] = t0 + i < cell.t_end ? buffers.pixel(slot, i, column) : 0.0f;
    }
    T3_UNROLL for (int i = 0; i < kPanelRows; ++i) {
        if (t0 + i < cell.t_end) {
            sums.take(values[i], cell.origin);
            if (wanted && t0 + i >= cell.t_begin) {
                ColumnSums whole = upper.get(i);
                whole.add(sums);
                buffers.store(i, column, whole);
            }
        }
    }
    if (t0 + kPanelRows < cell.t_end) buffers.store(buffers.below, column, sums);
    if (!cell.march_on || t0 >= above) return;
    sums.clear();
    if (t0 > band_begin) sums = buffers.load(buffers.next_band, column);
    T3_UNROLL for (int i = 1; i <= kPanelRows; ++i) {
        if (t0 + i < cell.t_end) sums.take(values[i], cell.next_origin);
    }
    buffers.store(t0 + kPanelRows < band_end ? buffers.next_band : record, column, sums);
}

T3_HD void accumulate(double &total, double value) { total = sum(total, value); }
T3_HD void accumulate(Extrema &total, const Extrema &value) { total.add(value); }

// Step 3 for one row of values: sums from column `begin` to column `end`, which may lie to the left. Several values are
// loaded before the first of them is replaced, so that a sum does not wait for each load.
template <typename Value>
T3_HD void sum_columns(Value *row, int begin, int end) {
    constexpr int kLoads = 8;
    const int step = begin < end ? 1 : -1;
    Value total = row[begin], *at = row + begin + step;
    int left = (end - begin) * step;
    for (; left >= kLoads; left -= kLoads, at += kLoads * step) {
        Value values[kLoads];
        T3_UNROLL for (int i = 0; i < kLoads; ++i) values[i] = at[i * step];
        T3_UNROLL for (int i = 0; i < kLoads; ++i) {
            accumulate(total, values[i]);
            at[i * step] = total;
        }
    }
    for (; left > 0; --left, at += step) {
        accumulate(total, *at);
        *at = total;
    }
}

T3_HD void sum_row(const MomentCell &cell, const MomentBuffers &buffers, int record, int kind, bool left) {
    const int lattice_column = cell.size - 1;
    if (left && cell.u_begin >= lattice_column) return;
    const int begin = left ? lattice_column - 1 : lattice_column;
    const int end = left ? cell.u_begin : cell.column_end() - 1;
    if (kind < kPowers) {
        sum_columns(buffers.powers + (record * kPowers + kind) * buffers.columns, begin, end);
    } else {
        sum_columns(buffers.extrema + record * buffers.columns, begin, end);
    }
}

T3_HD float moment_value(Statistic kind, const Moments &moments, const Extrema &extrema) {
    switch (kind) {
        case Statistic::mean: return static_cast<float>(moments.mean);
        case Statistic::std: return static_cast<float>(moments.std);
        case Statistic::variance: return static_cast<float>(moments.variance);
        case Statistic::skewness: return static_cast<float>(moments.skewness);
        case Statistic::kurtosis: return static_cast<float>(moments.kurtosis);
        case Statistic::energy: return static_cast<float>(moments.energy);
        case Statistic::min: return extrema.low + 0.0f;
        case Statistic::max: return extrema.high + 0.0f;
        default: return extrema.high - extrema.low;
    }
}

// Step 4 for one window.
T3_HD void write_window(const StatisticsRun &run, const MomentCell &cell, const MomentBuffers &buffers, int record,
                        std::int64_t index, int u) {
    ColumnSums whole = buffers.load(record, u + cell.size - 1);
    if (u < cell.size - 1) {
        ColumnSums left = buffers.load(record, u);
        left.add(whole);
        whole = left;
    }
    const PowerSums &s = whole.powers;
    const Moments moments = moments_of(s.s1, s.s2, s.s3, s.s4, cell.origin, run.inverse_count);
    for (int k = 0; k < run.request_count; ++k) {
        run.out[run.requests[k].slot * run.plane + index] = moment_value(run.requests[k].kind, moments, whole.extrema);
    }
}

// Moments and extrema of the windows of one cell. Type: UpperInRegisters or UpperInMemory. `first`: the strip starts
// here.
T3_TYPED_BLOCK_FUNCTION void moments_of_cell(const Block &block, const StatisticsRun &run, const MomentCell &cell,
                                             bool first, const MomentBuffers &buffers) {
    const int lanes = block.lanes(), column_end = cell.column_end();
    const auto for_columns = [&](int lane, auto work) {
        for (int c = cell.u_begin + lane; c < column_end; c += lanes) work(c);
    };
    block.phase([&](int lane) {
        if (buffers.ring == nullptr) return;
        if (first && cell.above) stage_rows(run, cell, buffers, cell.top, cell.lattice_y(), lane, lanes);
        stage_panel(run, cell, buffers, 0, lane, lanes);
    });
    if (cell.above) {
        block.phase([&](int lane) {
            for_columns(lane, [&](int c) {
                if (first) sum_bands(cell, buffers, c);
                sum_lower_bands(cell, buffers, c);
            });
        });
    }
    for (int t0 = 0; t0 < cell.t_end; t0 += kPanelRows) {
        // Rows of windows, counted from the first one of the tile or of the panel.
        const int begin = cell.t_begin > t0 ? cell.t_begin : t0;
        const int end = cell.t_end < t0 + kPanelRows ? cell.t_end : t0 + kPanelRows;
        if (!cell.march_on && !any_listed(run, buffers.ranges, begin - cell.t_begin, cell.t_end - cell.t_begin)) {
            block.phase([](int) {});  // all lanes have looked before the next strip's list
            break;
        }
        const bool wanted = begin < end && any_listed(run, buffers.ranges, begin - cell.t_begin, end - cell.t_begin);
        block.phase(
            [&](int lane) { for_columns(lane, [&](int c) { sum_column<Type>(cell, buffers, t0, wanted, c); }); });
        if (wanted) {
            const int rows = end - begin, kinds = kPowers + 1;
            block.phase([&](int lane) {
                for (int i = lane; i < 2 * kinds * rows; i += lanes) {
                    sum_row(cell, buffers, begin - t0 + i % rows, i / rows % kinds, i >= kinds * rows);
                }
            });
        }
        block.phase([&](int lane) {
            if (buffers.ring != nullptr && t0 + kPanelRows < cell.t_end) {
                stage_panel(run, cell, buffers, t0 + kPanelRows, lane, lanes);
            }
            if (!wanted) return;
            const int width = cell.u_end - cell.u_begin;
            for (int i = lane; i < (end - begin) * width; i += lanes) {
                const int t = begin + i / width, u = cell.u_begin + i % width;
                const std::int64_t index = output_index(run, cell.tile, buffers.ranges, cell.top + t, cell.left + u);
                if (index >= 0) write_window(run, cell, buffers, t - t0, index, u);
            }
        });
    }
}

// Moments and extrema of the windows of strip `i`. With a window list a strip is one cell.
T3_TYPED_BLOCK_FUNCTION void moment_strip(const Block &block, const StatisticsRun &run, const StripGrid &grid,
                                          std::int64_t i, const MomentMemory &memory, unsigned char *start) {
    MomentBuffers buffers(memory, start);
    const std::int64_t segment = i / grid.cells.columns % grid.per_column;
    const std::int64_t image = i / grid.cells.columns / grid.per_column;
    const std::int64_t begin = segment * grid.rows;
    const std::int64_t end = begin + grid.rows < grid.cells.rows ? begin + grid.rows : grid.cells.rows;
    for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t number = (image * grid.cells.rows + row) * grid.cells.columns + i % grid.cells.columns;
        const Tile tile = grid.cells.tile(number, run.windows_y, run.windows_x);
        if (!find_rows(block, run, tile, buffers.ranges)) continue;
        const MomentCell cell = moment_cell(run, tile, row + 1 < end);
        if (!memory.ring) {
            buffers.pixels = run.images.image(image) + cell.left;
            buffers.pixel_stride = run.images.width;
            buffers.pixel_rows = static_cast<int>(run.images.height);
        }
        moments_of_cell<Type>(block, run, cell, row == begin, buffers);
    }
}

}  // namespace t3ssfast
