// One register_* function per kernel, called by module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace t3ssfast {

void register_build(pybind11::module_ &module);
void register_unfold(pybind11::module_ &module);
void register_window_statistics(pybind11::module_ &module);
void register_score_windows(pybind11::module_ &module);
void register_probability_levels(pybind11::module_ &module);
void register_masks(pybind11::module_ &module);
void register_sparse_voxels(pybind11::module_ &module);

}  // namespace t3ssfast
