#include "cpu/mask_components.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/macros.h"
#include "cpu/parallel.h"

namespace t3ssfast::cpu {
namespace {

using i64 = std::int64_t;

constexpr i64 kWordBytes = sizeof(std::uint64_t);
// Voxels of a row that are compared at a time; a multiple of the word.
constexpr i64 kBlockBytes = 256;

struct NoWorkspace {};

T3_SIMD_CLONES void find_inside(const std::uint8_t *values, i64 count, std::uint8_t above, std::uint8_t *inside) {
    for (i64 x = 0; x < count; ++x) inside[x] = values[x] > above ? 1 : 0;
}

}  // namespace

MaskComponents::MaskComponents(i64 height, i64 width, std::uint8_t above)
    : height_(height), width_(width), above_(above) {
    below_.rows.assign(static_cast<std::size_t>(height + 1), 0);
}

// Calls found(begin, end) for each run of a row.
template <typename Found>
void MaskComponents::each_run(const std::uint8_t *row, Found found) const {
    constexpr std::uint64_t kAll = 0x0101010101010101u;
    std::uint8_t inside[kBlockBytes];
    i64 begin = 0;
    bool in_run = false;
    for (i64 first = 0; first < width_; first += kBlockBytes) {
        const i64 count = std::min(kBlockBytes, width_ - first);
        find_inside(row + first, count, above_, inside);
        std::memset(inside + count, 0, static_cast<std::size_t>(kBlockBytes - count));
        for (i64 x = 0; x < count; x += kWordBytes) {
            std::uint64_t word;
            std::memcpy(&word, inside + x, sizeof(word));
            if (word == (in_run ? kAll : 0)) continue;
            for (i64 i = x; i < x + kWordBytes; ++i) {
                if ((inside[i] != 0) == in_run) continue;
                if (in_run)
                    found(begin, first + i);
                else
                    begin = first + i;
                in_run = !in_run;
            }
        }
    }
    if (in_run) found(begin, width_);
}

MaskComponents::Label MaskComponents::root(Label label) {
    while (parent_[label] != label) {
        parent_[label] = parent_[parent_[label]];
        label = parent_[label];
    }
    return label;
}

void MaskComponents::join_rows(Slice &here, i64 y, const Slice &other, i64 other_y, bool share_a_face) {
    if (other_y < 0 || other_y >= height_) return;
    std::size_t near = other.rows[static_cast<std::size_t>(other_y)];
    const std::size_t end = other.rows[static_cast<std::size_t>(other_y + 1)];
    const std::size_t first = here.rows[static_cast<std::size_t>(y)], last = here.rows[static_cast<std::size_t>(y + 1)];
    for (std::size_t k = first; k < last; ++k) {
        Run &run = here.runs[k];
        // A run that ends before the column left of this one touches no later one either.
        while (near < end && other.runs[near].end < run.begin) ++near;
        for (std::size_t j = near; j < end && other.runs[j].begin <= run.end; ++j) {
            const Run &beside = other.runs[j];
            const Label theirs = root(beside.label);
            if (run.label == kNone) {
                run.label = theirs;
            } else {
                const Label own = root(run.label);
                parent_[std::max(own, theirs)] = std::min(own, theirs);
            }
            const i64 both = std::min(run.end, beside.end) - std::max(run.begin, beside.begin);
            // Each covers a face of the other.
            if (share_a_face && both > 0) faces_[run.label] -= 2 * both;
        }
    }
}

MaskComponents::Slice MaskComponents::find_runs(const std::uint8_t *slice) const {
    Slice here;
    here.rows.reserve(static_cast<std::size_t>(height_ + 1));
    here.rows.push_back(0);
    for (i64 y = 0; y < height_; ++y) {
        each_run(slice + y * width_, [&](i64 begin, i64 end) { here.runs.push_back({begin, end, kNone}); });
        here.rows.push_back(here.runs.size());
    }
    return here;
}

void MaskComponents::add_slice(Slice here) {
    for (i64 y = 0; y < height_; ++y) {
        const std::size_t first = here.rows[static_cast<std::size_t>(y)];
        const std::size_t last = here.rows[static_cast<std::size_t>(y + 1)];
        if (first == last) continue;
        join_rows(here, y, here, y - 1, true);
        join_rows(here, y, below_, y - 1, false);
        join_rows(here, y, below_, y, true);
        join_rows(here, y, below_, y + 1, false);
        for (std::size_t k = first; k < last; ++k) {
            Run &run = here.runs[k];
            if (run.label == kNone) {
                if (parent_.size() >= kNone) throw std::length_error("the mask has too many components");
                run.label = static_cast<Label>(parent_.size());
                parent_.push_back(run.label);
                faces_.push_back(0);
            }
            // Both ends, and four sides of each voxel.
            faces_[run.label] += 2 + 4 * (run.end - run.begin);
        }
    }
    std::vector<Label> labels(here.runs.size());
    for (std::size_t k = 0; k < labels.size(); ++k) labels[k] = here.runs[k].label;
    labels_.push_back(std::move(labels));
    below_ = std::move(here);
}

void MaskComponents::add(const std::uint8_t *slices, i64 count, int threads) {
    const i64 at_a_time = usable_threads(threads);
    std::vector<Slice> found;
    for (i64 first = 0; first < count; first += at_a_time) {
        found.resize(static_cast<std::size_t>(std::min(at_a_time, count - first)));
        parallel_tasks<NoWorkspace>(static_cast<i64>(found.size()), threads, [&](NoWorkspace &, i64 k) {
            found[static_cast<std::size_t>(k)] = find_runs(slices + (first + k) * pixels());
        });
        for (Slice &slice : found) add_slice(std::move(slice));
    }
}

std::vector<i64> MaskComponents::faces() {
    component_.resize(parent_.size());
    std::vector<i64> faces;
    for (std::size_t label = 0; label < parent_.size(); ++label) {
        const Label lowest = root(static_cast<Label>(label));
        if (lowest == label) {
            component_[label] = static_cast<Label>(faces.size());
            faces.push_back(0);
        } else {
            component_[label] = component_[lowest];
        }
        faces[component_[label]] += faces_[label];
    }
    count_ = faces.size();
    return faces;
}

void MaskComponents::lower(std::uint8_t *slices, i64 first, i64 count, const std::uint8_t *kept, int threads) const {
    parallel_tasks<NoWorkspace>(count, threads, [&](NoWorkspace &, i64 z) {
        const std::vector<Label> &labels = labels_[static_cast<std::size_t>(first + z)];
        std::size_t run = 0;
        for (i64 y = 0; y < height_ && run < labels.size(); ++y) {
            std::uint8_t *const row = slices + z * pixels() + y * width_;
            each_run(row, [&](i64 begin, i64 end) {
                const Label component = component_[labels[run++]];
                if (kept[component] == 0) std::memset(row + begin, above_, static_cast<std::size_t>(end - begin));
            });
        }
    });
}

}  // namespace t3ssfast::cpu
