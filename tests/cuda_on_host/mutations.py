"""Faults put into the CUDA sources on purpose, to see that tests/cuda_on_host finds them.

    python tests/cuda_on_host/mutations.py BUILD_FOLDER [NAME ...]

BUILD_FOLDER is a CMake build of the project with T3SSFAST_CUDA_ON_HOST=ON; `nox -s cuda_mutations` makes
one and runs all. A mutation replaces one piece of text in a copy of csrc, and must make a test fail. Where it
cannot change what a device does, `equivalent` says why, and the tests must pass. Exits with 1 if one behaves
otherwise.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Processor time of one process: a compiler, or the tests of one mutation.
CPU_SECONDS = 300
STATISTICS, SCORES, LAUNCHES, LEVELS = (
    f"tests/cuda_on_host/test_{name}_on_host.py" for name in ("statistics", "scores", "launches", "levels")
)


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Parameters
    ----------
    name
        What is wrong.
    file
        File under csrc.
    before, after
        Text that is replaced; it occurs exactly once.
    tests
        Arguments for pytest that select the tests which should find it.
    equivalent
        Why no test can find it, where that is so.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    equivalent: str = ""


TENSOR_CORES = (SCORES, "-k", "tensor_cores")
FULLY_CONNECTED, FEATURE_MAPS = "core/tensor_core_fully_connected.h", "core/tensor_core_feature_maps.h"
WINDOW_STATISTICS = "core/window_statistics.h"
MOMENTS, ORDER = "core/moment_strip.h", "core/order_tile.h"

MUTATIONS = [
    Mutation(
        "no barrier after a phase of warps",
        "core/warp.h",
        "        work(warp);\n        __syncthreads();",
        "        work(warp);",
        TENSOR_CORES,
    ),
    Mutation(
        "no barrier after a phase of lanes",
        "core/block.h",
        "        lane(static_cast<int>(threadIdx.x));\n        __syncthreads();",
        "        lane(static_cast<int>(threadIdx.x));",
        (STATISTICS,),
    ),
    Mutation(
        "no barrier before the next tile's list of rows",
        WINDOW_STATISTICS,
        "    block.phase([](int) {});  // all lanes have read `ranges` before the next tile overwrites it\n",
        "",
        (STATISTICS, "-k", "empty_tile"),
    ),
    Mutation(
        "no barrier after rows of a cell that are skipped",
        MOMENTS,
        "            block.phase([](int) {});  // all lanes have looked before the next strip's list\n",
        "",
        (STATISTICS, "-k", "at_the_end_of_a_tile"),
    ),
    Mutation(
        "one group of copies too few is waited for, in the loop",
        FULLY_CONNECTED,
        "            warp.template wait<kPipelineSlots - 2>();\n",
        "            warp.template wait<kPipelineSlots - 1>();\n",
        TENSOR_CORES,
    ),
    Mutation(
        "one group of copies too few is waited for, before the loop",
        FULLY_CONNECTED,
        "        warp.template wait<kPipelineSlots - 2>();\n    });\n    for",
        "        warp.template wait<kPipelineSlots - 1>();\n    });\n    for",
        TENSOR_CORES,
    ),
    Mutation(
        "copies are not committed",
        FULLY_CONNECTED,
        "        warp.commit();\n",
        "",
        TENSOR_CORES,
    ),
    Mutation(
        "two pipeline slots are allocated for three",
        "core/tensor_core_program.h",
        "static_cast<std::int64_t>(kPipelineSlots) *",
        "static_cast<std::int64_t>(kPipelineSlots - 1) *",
        TENSOR_CORES,
    ),
    Mutation(
        "chunks take turns in two slots of three",
        FULLY_CONNECTED,
        "*from = chunks_at + chunk % kPipelineSlots * slot",
        "*from = chunks_at + chunk % (kPipelineSlots - 1) * slot",
        TENSOR_CORES,
    ),
    Mutation(
        "sums of a panel that was skipped are forgotten",
        MOMENTS,
        "    if (t0 + kPanelRows < cell.t_end) buffers.store(buffers.below",
        "    if (wanted && t0 + kPanelRows < cell.t_end) buffers.store(buffers.below",
        (STATISTICS, "-k", "within_a_tile"),
    ),
    Mutation(
        "the ring of pixel rows is one row short",
        MOMENTS,
        "ring_rows() const { return size + kPanelRows; }",
        "ring_rows() const { return size + kPanelRows - 1; }",
        (STATISTICS, "-k", "several_cells"),
    ),
    Mutation(
        "a band misses its last row",
        MOMENTS,
        "i = 1; i <= kPanelRows; ++i) {\n        if (t0 + i < cell.t_end) sums",
        "i = 1; i < kPanelRows; ++i) {\n        if (t0 + i < cell.t_end) sums",
        (STATISTICS, "-k", "several_cells"),
    ),
    Mutation(
        "the last staged row is missing",
        MOMENTS,
        "cell.lattice_y() + last + 1, lane, lanes);",
        "cell.lattice_y() + last, lane, lanes);",
        (STATISTICS, "-k", "statistics_equal"),
    ),
    Mutation(
        "the memory has no room for whole shares of the lanes",
        ORDER,
        "return share(pixel_rows() * pixel_columns(), lanes) * lanes;",
        "return pixel_rows() * pixel_columns();",
        (STATISTICS, "-k", "statistics_equal or several"),
    ),
    Mutation(
        "the first run of bins of a group is counted twice",
        ORDER,
        "i = lane / kDigits * kDigits; i < lane; ++i) sum = static_cast<Type>(sum + bins.runs[i]);",
        "i = lane / kDigits * kDigits; i <= lane; ++i) sum = static_cast<Type>(sum + bins.runs[i]);",
        (STATISTICS, "-k", "median"),
    ),
    Mutation(
        "bins are still in use when the next pass begins",
        ORDER,
        "    block.phase([](int) {});  // all lanes have read `varying_bits`\n",
        "",
        (STATISTICS, "-k", "median or statistics_equal"),
    ),
    Mutation(
        "one lane leaves a block before its barrier",
        "core/block.h",
        "        lane(static_cast<int>(threadIdx.x));\n        __syncthreads();",
        "        lane(static_cast<int>(threadIdx.x));\n        if (threadIdx.x != 7) __syncthreads();",
        (STATISTICS,),
    ),
    Mutation(
        "one lane of a warp does not take part in ldmatrix",
        "core/warp.h",
        "        device::ldmatrix_x4(",
        "        if (threadIdx.x % 32 != 5) device::ldmatrix_x4(",
        TENSOR_CORES,
    ),
    Mutation(
        "the memory of order statistics lacks the ranks",
        ORDER,
        "sizeof(std::uint32_t) + 2 * sizeof(Rank)",
        "sizeof(std::uint32_t) + sizeof(Rank)",
        (STATISTICS, "-k", "statistics_equal or median"),
    ),
    Mutation(
        "blocks share one workspace",
        "cuda/window_statistics.cu",
        "workspace + blockIdx.x * memory.bytes()",
        "workspace + 0 * memory.bytes()",
        (STATISTICS, "-k", "device_memory"),
    ),
    Mutation(
        "shared memory of the moments is one record short",
        MOMENTS,
        "return records() * columns() * static_cast",
        "return (records() - 1) * columns() * static_cast",
        (STATISTICS, "-k", "statistics_equal or masked"),
    ),
    Mutation(
        "ldmatrix reads the rows in another order",
        "core/fragment.h",
        "return lane % kFragmentRows; }",
        "return (lane ^ 1) % kFragmentRows; }",
        TENSOR_CORES,
    ),
    Mutation(
        "registers of the product of A are swapped",
        "core/warp.h",
        "device::mma_m16n8k8_tf32(d, a, b, c);",
        "device::mma_m16n8k8_tf32(d, {a[0], a[2], a[1], a[3]}, b, c);",
        TENSOR_CORES,
    ),
    Mutation(
        "the grid of the fully connected layers is one block short",
        "cuda/score_windows/tensor_core.cu",
        "const std::int64_t blocks = (work + share - 1) / share;",
        "const std::int64_t blocks = work / share;",
        TENSOR_CORES,
    ),
    Mutation(
        "the grid of the SIMT fully connected layers is one block too long",
        "cuda/score_windows/simt.cu",
        "(batch.window_count + block_windows - 1) / block_windows)",
        "batch.window_count / block_windows + 1)",
        (SCORES, "-k", "simt"),
        "A block without windows has count <= 0: every loop over windows is empty, so it writes nothing; the "
        "only difference is one block where the count is a multiple.",
    ),
    Mutation(
        "hidden values of two rows overlap",
        "core/tensor_core_program.h",
        "return round_up(widest, 32) + 4;",
        "return widest - 4;",
        TENSOR_CORES,
    ),
    Mutation(
        "rows of the feature map have the width of the image's windows",
        FEATURE_MAPS,
        "std::uint32_t *to = map + row * run.map.width * words;",
        "std::uint32_t *to = map + row * run.windows_x * words;",
        TENSOR_CORES,
    ),
    Mutation(
        "a tile of the feature map is not marked",
        FEATURE_MAPS,
        "y <= bottom; ++y",
        "y < bottom; ++y",
        (SCORES, "-k", "masked"),
    ),
    Mutation(
        "taps past the last one are copied instead of zeros",
        FULLY_CONNECTED,
        "(valid ? offset : 0), valid);",
        "(valid ? offset : 0), true);",
        TENSOR_CORES,
        "Past the last tap the packed weights are 0, and what is copied is a value of the map, finite for "
        "finite images: the product is the same. The zeros guard against values that overflowed.",
    ),
    Mutation(
        "a second group of requests overwrites the first",
        "cuda/window_statistics.cu",
        "            run.request_count = 0;\n        }\n    }\n}",
        "        }\n    }\n}",
        (STATISTICS, "-k", "more_requests"),
    ),
    Mutation(
        "a failed call leaves its error behind",
        "cuda/check.h",
        "    cudaGetLastError();\n",
        "",
        (LAUNCHES,),
    ),
    Mutation(
        "the error of a launch is ignored",
        "cuda/launch.h",
        "    check(cudaLaunchKernel(",
        "    (void)std::make_pair(cudaLaunchKernel(",
        (LAUNCHES,),
    ),
    Mutation(
        "the shared memory limit is not raised",
        "cuda/score_windows/tensor_core.cu",
        "    allow_shared(fully_connected_kernel<Shape>, target.device);\n",
        "",
        TENSOR_CORES,
    ),
    Mutation(
        "the lane of an order statistic starts one column late",
        ORDER,
        "for (int i = lane; i < width * parts; i += lanes) {",
        "for (int i = lane + 1; i < width * parts; i += lanes) {",
        (STATISTICS, "-k", "statistics_equal"),
    ),
    Mutation(
        "blocks of the levels take one group of pixels only",
        "cuda/probability_levels.cu",
        "group += gridDim.x * kGroup)",
        "group += run.count)",
        (LEVELS,),
    ),
    Mutation(
        "threads of the levels go past the last pixel",
        "cuda/probability_levels.cu",
        "            if (i >= run.count) continue;\n            below",
        "            below",
        (LEVELS,),
    ),
    Mutation(
        "threads write to one place which average is not finite",
        "cuda/probability_levels.cu",
        "atomicMin(first, static_cast<unsigned long long>(bad))",
        "*first = static_cast<unsigned long long>(bad)",
        (LEVELS,),
    ),
    Mutation(
        "16-byte copies start at a pixel that is not aligned",
        FULLY_CONNECTED,
        "tap % gathered.kernel_x * gathered.step_x;",
        "tap % gathered.kernel_x * gathered.step_x + 1;",
        TENSOR_CORES,
    ),
]


def run_tests(build: Path, mutation: Mutation) -> bool:
    """Return whether the tests pass."""
    (extension,) = (build / "tests" / "cuda_on_host").glob("_core_on_host*.so")
    environment = os.environ | {
        "T3SSFAST_CUDA_ON_HOST": str(extension),
        "PYTHONPATH": str(ROOT / "python"),
        "OMP_NUM_THREADS": "1",
    }
    # In one process, and without the time limit of each test, which a busy machine can exceed.
    options = ("-x", "-q", "-n", "0", "--timeout", "0", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, *mutation.tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode != 5, f"{mutation.name}: no test was selected"
    return done.returncode == 0


def main() -> int:
    build, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    for mutation in MUTATIONS:
        count = (ROOT / "csrc" / mutation.file).read_text().count(mutation.before)
        assert count == 1, f"{mutation.name}: the text occurs {count} times"
    # A mutation may run wild: a crash and an endless loop are found, too.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    sources = build / "mutated"
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", sources)
    subprocess.run(
        ["cmake", f"-DT3SSFAST_CUDA_ON_HOST_SOURCES={sources}", str(build)], check=True, capture_output=True
    )
    wrong = 0
    for mutation in MUTATIONS:
        if names and mutation.name not in names:
            continue
        begin = time.monotonic()
        path = sources / mutation.file
        original = path.read_text()
        path.write_text(original.replace(mutation.before, mutation.after))
        try:
            built = subprocess.run(["cmake", "--build", str(build)], capture_output=True, text=True)
            assert built.returncode == 0, f"{mutation.name}: not compiled\n{built.stdout[-3000:]}"
            passed = run_tests(build, mutation)
        finally:
            path.write_text(original)
        expected = bool(mutation.equivalent)
        wrong += passed != expected
        verdict = "passed" if passed else "found"
        note = "" if passed == expected else "  <- WRONG"
        print(f"{verdict:7} {time.monotonic() - begin:5.1f} s  {mutation.name}{note}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
