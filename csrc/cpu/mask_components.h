// Connected components (26-connectivity) of a mask whose slices come in order, and the voxel faces that each exposes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace t3ssfast::cpu {

// The mask is seen as runs along x. Each run has a label, and labels of runs that touch are joined (union-find). A
// slice costs one pass over its voxels, in which each thread finds the runs of another slice. Only the runs of the last
// slices are held, one for each thread; of the others, their labels.
class MaskComponents {
  public:
    // Values over `above` are inside of the mask.
    MaskComponents(std::int64_t height, std::int64_t width, std::uint8_t above);

    // Adds `count` slices. If memory runs out, nothing can be added any more.
    void add(const std::uint8_t *slices, std::int64_t count, int threads);

    // Exposed faces of the voxels of each component, in the order of their first voxels. Outside of the slices nothing
    // covers a face.
    std::vector<std::int64_t> faces();

    // Lowers the voxels of components that are not `kept` to `above`, in the slices from number `first` on. Before it,
    // faces() must have been called for all slices. Needs no memory, so that it never stops halfway.
    void lower(std::uint8_t *slices, std::int64_t first, std::int64_t count, const std::uint8_t *kept,
               int threads) const;

    std::int64_t depth() const { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t pixels() const { return height_ * width_; }
    // After faces().
    std::size_t count() const { return count_; }

  private:
    using Label = std::uint32_t;

    // Columns [begin, end) of a row.
    struct Run {
        std::int64_t begin, end;
        Label label;
    };
    // The runs of a slice, row by row; those of row y begin at rows[y].
    struct Slice {
        std::vector<Run> runs;
        std::vector<std::size_t> rows;
    };

    template <typename Found>
    void each_run(const std::uint8_t *row, Found found) const;
    Slice find_runs(const std::uint8_t *slice) const;
    void add_slice(Slice here);
    // Joins the runs of row y of `here` with those of row `other_y` of `other` that they touch.
    void join_rows(Slice &here, std::int64_t y, const Slice &other, std::int64_t other_y, bool share_a_face);
    Label root(Label label);

    static constexpr Label kNone = 0xFFFFFFFFu;

    const std::int64_t height_, width_;
    const std::uint8_t above_;
    Slice below_;
    // By slice, of its runs in order.
    std::vector<std::vector<Label>> labels_;
    // By label: a lower label of the same component, or itself if it is the lowest; and the faces of its runs.
    std::vector<Label> parent_;
    std::vector<std::int64_t> faces_;
    // By label: the number of its component. Set by faces().
    std::vector<Label> component_;
    std::size_t count_ = 0;
};

}  // namespace t3ssfast::cpu
