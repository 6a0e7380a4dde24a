// unfold: copies every valid window, or the listed ones, to consecutive memory.
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend.h"
#include "bindings/register.h"
#include "bindings/views.h"
#include "core/unfold.h"

namespace t3ssfast {
namespace {

using i64 = std::int64_t;

void unfold_cpu(const ImagesArgument &images, i64 size, bool zscore, int element, const WindowsArgument &windows,
                std::uintptr_t out, bool stream, int threads) {
    cpu::unfold(image_stack(images), {size, zscore, static_cast<Element>(element)}, window_list(windows),
                pointer<void>(out), stream, threads);
}

void unfold_cuda(const ImagesArgument &images, i64 size, bool zscore, int element, const WindowsArgument &windows,
                 std::uintptr_t out, const LaunchArgument &target) {
    cuda::unfold(image_stack(images), {size, zscore, static_cast<Element>(element)}, window_list(windows),
                 pointer<void>(out), launch(target));
}

// The algorithm of cuda::unfold, run on the host by a block of `lanes` lanes. For tests.
void emulate_unfold(const ImagesArgument &images, i64 size, bool zscore, int element, const WindowsArgument &windows,
                    std::uintptr_t out, int lanes, bool reversed) {
    const HostBlock block(lanes, reversed);
    const UnfoldRun run = unfold_run(image_stack(images), size, zscore, window_list(windows), pointer<void>(out));
    std::vector<double> shared(unfold_shared_bytes(lanes) / sizeof(double));
    unsigned char *const memory = reinterpret_cast<unsigned char *>(shared.data());
    for (i64 i = 0; i < run.count; ++i) {
        switch (static_cast<Element>(element)) {
            case Element::float32: unfold_window<Float32>(block, run, i, memory); break;
            case Element::float16: unfold_window<Float16>(block, run, i, memory); break;
            case Element::bfloat16: unfold_window<BFloat16>(block, run, i, memory); break;
        }
    }
}

}  // namespace

void register_unfold(pybind11::module_ &module) {
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    module.def("unfold_cpu", &unfold_cpu, release());
    module.def("unfold_cuda", &unfold_cuda, release());
    module.def("emulate_unfold", &emulate_unfold, release());
}

}  // namespace t3ssfast
