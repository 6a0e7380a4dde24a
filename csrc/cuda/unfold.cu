// unfold on the device: one block per window; neighbouring threads copy neighbouring pixels.
#include <algorithm>

#include "backend.h"
#include "core/device_instructions.h"
#include "core/unfold.h"
#include "cuda/launch.h"

namespace t3ssfast::cuda {
namespace {

constexpr int kThreads = 256;
// Above this number blocks take several windows each; far below the limit of a grid, far above what is resident at
// once.
constexpr std::int64_t kMaxBlocks = 1 << 20;

template <typename Type>
__global__ void __launch_bounds__(kThreads) unfold_kernel(UnfoldRun run) {
    const DeviceBlock block;
    for (std::int64_t i = blockIdx.x; i < run.count; i += gridDim.x) {
        unfold_window<Type>(block, run, i, device::shared_memory<unsigned char>());
    }
}

template <typename Type>
void launch_unfold(const UnfoldRun &run, cudaStream_t stream) {
    const unsigned blocks = static_cast<unsigned>(std::min(run.count, kMaxBlocks));
    const LaunchShape shape{dim3(blocks), kThreads, run.zscore ? unfold_shared_bytes(kThreads) : 0};
    launch_kernel("unfold", unfold_kernel<Type>, shape, stream, run);
}

}  // namespace

void unfold(ImageStack<const float> images, const UnfoldRequest &request, WindowList windows, void *out,
            Launch launch) {
    const UnfoldRun run = unfold_run(images, request.size, request.zscore, windows, out);
    if (run.count == 0) return;
    const DeviceGuard guard(launch.device);
    switch (request.element) {
        case Element::float32: return launch_unfold<Float32>(run, stream_of(launch));
        case Element::float16: return launch_unfold<Float16>(run, stream_of(launch));
        case Element::bfloat16: return launch_unfold<BFloat16>(run, stream_of(launch));
    }
}

}  // namespace t3ssfast::cuda
