// The extension module _core.
#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_core, module) {
    module.doc() = "Native kernels of t3ssfast. Import them through t3ssfast.kernels._native only.";
    t3ssfast::register_build(module);
    t3ssfast::register_unfold(module);
    t3ssfast::register_window_statistics(module);
    t3ssfast::register_score_windows(module);
    t3ssfast::register_probability_levels(module);
    t3ssfast::register_masks(module);
    t3ssfast::register_sparse_voxels(module);
}
