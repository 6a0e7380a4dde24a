// Pixels of the moments kernel, transposed to one lattice cell per lane. Part of a kernel of cpu/simd_dispatch.h.
namespace t3ssfast::cpu {
namespace T3_SIMD_NAMESPACE {
namespace {

#if T3_AVX512
typedef float Wide __attribute__((vector_size(64), aligned(64)));
typedef int WidePick __attribute__((vector_size(64), aligned(64)));

// Transposes eight rows of eight columns; each vector holds two rows.
T3_ALWAYS_INLINE void transpose(Wide &a, Wide &b, Wide &c, Wide &d) {
    // Columns 0 .. 3 of four rows, column by column; then columns 4 .. 7.
    const WidePick first = {0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27};
    const WidePick last = first + 4;
    const Wide ab_first = __builtin_shuffle(a, b, first), ab_last = __builtin_shuffle(a, b, last);
    const Wide cd_first = __builtin_shuffle(c, d, first), cd_last = __builtin_shuffle(c, d, last);
    const WidePick low = {0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23};
    const WidePick high = low + 8;
    a = __builtin_shuffle(ab_first, cd_first, low);
    b = __builtin_shuffle(ab_first, cd_first, high);
    c = __builtin_shuffle(ab_last, cd_last, low);
    d = __builtin_shuffle(ab_last, cd_last, high);
}
#elif T3_AVX2
typedef float Pack __attribute__((vector_size(16)));
typedef int Pick __attribute__((vector_size(16)));

T3_ALWAYS_INLINE void transpose(Pack &a, Pack &b, Pack &c, Pack &d) {
    const Pick low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
    const Pack low_ac = __builtin_shuffle(a, c, low), high_ac = __builtin_shuffle(a, c, high);
    const Pack low_bd = __builtin_shuffle(b, d, low), high_bd = __builtin_shuffle(b, d, high);
    a = __builtin_shuffle(low_ac, low_bd, low);
    b = __builtin_shuffle(low_ac, low_bd, high);
    c = __builtin_shuffle(high_ac, high_bd, low);
    d = __builtin_shuffle(high_ac, high_bd, high);
}
#endif

// Relative positions of the cells of a vector.
struct CellBatch {
    const MomentCell *cells;  // kLanes cells; those beyond the used ones are copies
    i64 size;
    i64 columns[kLanes];  // columns of a cell's right half inside the image
    i64 common_columns;   // columns inside the image for all lanes
    // Lanes whose left half is not the right half of the previous lane, and a mask for each.
    int starts[kLanes], start_count;
    LaneMask marks[kLanes];
};

// Prefetch distance in rows of pixels: rows of an image are too far apart for the hardware prefetcher.
constexpr i64 kPrefetchRows = 2;

// One row of pixels of all lanes, (columns, lanes): `right` starts at the lattice pixel, `left` one window before it;
// the first column of `left` is unused. Columns outside the image hold any finite value: only windows that do not exist
// contain them.
struct LaneRow {
    Floats *left, *right;
};

// Loads half a row of all lanes, (size, lanes); `common_columns` columns are inside the image for all lanes, `columns`
// for each. `prefetch_offset` is the distance to the row to prefetch.
T3_ALWAYS_INLINE void load_half(const float *const *sources, i64 size, [[maybe_unused]] i64 common_columns,
                                const i64 *columns, [[maybe_unused]] i64 prefetch_offset, Floats *to) {
    i64 c = 0;
#if T3_AVX512
    // If the number of columns is not a multiple of eight, the last ones are loaded twice.
    for (; c < common_columns && common_columns >= 8; c += 8) {
        c = c < common_columns - 8 ? c : common_columns - 8;
        Wide pairs[4];
        for (int k = 0; k < kLanes; ++k) __builtin_prefetch(sources[k] + c + prefetch_offset);
        for (int k = 0; k < 4; ++k) {
            const __m256 one = _mm256_loadu_ps(sources[2 * k] + c), other = _mm256_loadu_ps(sources[2 * k + 1] + c);
            pairs[k] = reinterpret_cast<Wide>(_mm512_insertf32x8(_mm512_castps256_ps512(one), other, 1));
        }
        transpose(pairs[0], pairs[1], pairs[2], pairs[3]);
        for (int k = 0; k < 4; ++k) std::memcpy(to + c + 2 * k, pairs + k, sizeof(Wide));
    }
#elif T3_AVX2
    for (; c < common_columns && common_columns >= 4; c += 4) {
        c = c < common_columns - 4 ? c : common_columns - 4;
        Pack packs[4];
        for (int k = 0; k < 4; ++k) std::memcpy(packs + k, sources[k] + c, sizeof(Pack));
        transpose(packs[0], packs[1], packs[2], packs[3]);
        for (int k = 0; k < 4; ++k) std::memcpy(to + c + k, packs + k, sizeof(Pack));
    }
#endif
    for (; c < size; ++c) {
        Floats column;
        for (int lane = 0; lane < kLanes; ++lane) column[lane] = sources[lane][c < columns[lane] ? c : 0];
        to[c] = column;
    }
}

// The value of the previous lane; undefined for the first lane.
T3_ALWAYS_INLINE Floats previous_lane(Floats values) {
#if T3_AVX2
    LaneMask from;
    for (int lane = 0; lane < kLanes; ++lane) from[lane] = lane > 0 ? lane - 1 : 0;
    return __builtin_shuffle(values, from);
#else
    for (int lane = kLanes - 1; lane > 0; --lane) values[lane] = values[lane - 1];
    return values;
#endif
}

// Left halves: the right half of the previous lane, except for lanes that start a run.
template <int kStarts>
T3_ALWAYS_INLINE void load_left(const CellBatch &batch, const float *const *sources, LaneRow row) {
    LaneMask marks[kStarts];
    const float *starts[kStarts];
    for (int i = 0; i < kStarts; ++i) {
        marks[i] = batch.marks[i];
        starts[i] = sources[batch.starts[i]] - (batch.cells[batch.starts[i]].x > 0 ? batch.size : 0);
    }
    for (i64 c = 1; c < batch.size; ++c) {
        Floats column = previous_lane(row.right[c]);
        for (int i = 0; i < kStarts; ++i) column = marks[i] ? Floats{} + starts[i][c] : column;
        row.left[c] = column;
    }
}

// Loads row `offset` relative to the lattice row.
T3_ALWAYS_INLINE void load_row(const CellBatch &batch, i64 offset, i64 prefetch_offset, LaneRow row) {
    const float *sources[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        const MomentCell &cell = batch.cells[lane];
        const i64 y = cell.y + offset;
        // Rows outside the image belong to windows that do not exist.
        sources[lane] = cell.image + (y >= 0 && y < cell.height ? y : cell.y) * cell.width + cell.x;
    }
    for (int i = 0; i < batch.start_count && i < 2; ++i) {
        const float *const left = sources[batch.starts[i]] - batch.size;
        for (i64 c = 0; c < batch.size; c += 16) __builtin_prefetch(left + c + prefetch_offset);
    }
    load_half(sources, batch.size, batch.common_columns, batch.columns, prefetch_offset, row.right);
    switch (batch.start_count) {
        case 1: return load_left<1>(batch, sources, row);
        case 2: return load_left<2>(batch, sources, row);
        default: break;
    }
    // Cells that are not adjacent.
    i64 columns[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        columns[lane] = batch.size;
        sources[lane] -= batch.cells[lane].x > 0 ? batch.size : 0;
    }
    load_half(sources, batch.size, batch.size, columns, prefetch_offset, row.left);
}

T3_ALWAYS_INLINE Vector to_double(Floats value) {
#if T3_AVX512
    // gcc would convert the halves separately.
    return _mm512_cvtps_pd(value);
#else
    return __builtin_convertvector(value, Vector);
#endif
}

}  // namespace
}  // namespace T3_SIMD_NAMESPACE
}  // namespace t3ssfast::cpu
