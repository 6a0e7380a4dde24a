// The extension module: each family registers itself; what was built is read from `build_info`.
#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_core, module) {
    module.doc() = "Native kernels of t3ssfast. Import them through t3ssfast._native only.";
    t3ssfast::register_build(module);
    t3ssfast::register_unfold(module);
    t3ssfast::register_statistics(module);
    t3ssfast::register_sliding(module);
}
