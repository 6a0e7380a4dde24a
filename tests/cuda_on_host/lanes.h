// Running the blocks of a launch.
#pragma once

#include <cuda_runtime.h>

#include <string>

namespace cuda_on_host {

// Runs every block of a launch; `name` stands before the faults that it reports.
void run_grid(Call &kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::string &name);

}  // namespace cuda_on_host
