// unfold: every window, or those of a list, one after the other in memory.
#include <pybind11/pybind11.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;

void unfold_cpu(std::uintptr_t images, i64 count, i64 height, i64 width, i64 size, bool zscore, int element,
                std::uintptr_t windows, i64 window_count, std::uintptr_t out, bool stream, int threads) {
    cpu::unfold(image_stack(images, count, height, width), {size, zscore, static_cast<Element>(element)},
                window_list(windows, window_count), reinterpret_cast<void *>(out), stream, threads);
}

void unfold_cuda(std::uintptr_t images, i64 count, i64 height, i64 width, i64 size, bool zscore, int element,
                 std::uintptr_t windows, i64 window_count, std::uintptr_t out, int device, std::uintptr_t stream) {
    cuda::unfold(image_stack(images, count, height, width), {size, zscore, static_cast<Element>(element)},
                 window_list(windows, window_count), reinterpret_cast<void *>(out), {device, stream});
}

}  // namespace

void register_unfold(pybind11::module_ &module) {
    module.def("unfold_cpu", &unfold_cpu, pybind11::call_guard<pybind11::gil_scoped_release>());
    module.def("unfold_cuda", &unfold_cuda, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace t3ssfast
