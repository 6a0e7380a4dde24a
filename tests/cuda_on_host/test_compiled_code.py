"""What nvcc makes of the CUDA sources, for every architecture: registers, spills, fused products."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = sorted((CSRC / "cuda").rglob("*.cu"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
REGISTERS = 65536  # of a multiprocessor
NVCC = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
OPTIONS = ("-std=c++17", "-O3", "-lineinfo", "--expt-relaxed-constexpr", f"-I{CSRC}")

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="no nvcc: the compiled CUDA code is not checked"),
    pytest.mark.skipif(
        not os.environ.get("T3SSFAST_CUDA_ON_HOST"), reason="checked with the tests that run the CUDA sources"
    ),
]


def compile_to_ptx(source: Path, architecture: int, target: Path) -> None:
    command = [str(NVCC), *OPTIONS, f"--gpu-architecture=compute_{architecture}", "--ptx", str(source), "-o"]
    done = subprocess.run([*command, str(target)], capture_output=True, text=True, check=False)
    if "Unsupported gpu architecture" in done.stderr:
        pytest.skip(f"this nvcc does not know compute_{architecture}")
    assert done.returncode == 0, done.stderr


def launch_bounds(ptx: str) -> dict[str, tuple[int, int]]:
    """Return the threads per block and the blocks per multiprocessor of each kernel."""
    bounds = {}
    for name, attributes in re.findall(r"\.entry (\w+)\(.*?\)\n(.*?)\{", ptx, re.DOTALL):
        threads = re.search(r"\.maxntid (\d+)", attributes)
        blocks = re.search(r"\.minnctapersm (\d+)", attributes)
        assert threads, f"{name} has no launch bounds"
        bounds[name] = int(threads[1]), int(blocks[1]) if blocks else 1
    return bounds


def problems(source: Path, architecture: int, folder: Path) -> list[str]:
    """Compile a file for one architecture; return its kernels that spill or need too many registers."""
    ptx = folder / f"{source.stem}.ptx"
    compile_to_ptx(source, architecture, ptx)
    bounds = launch_bounds(ptx.read_text())
    command = [str(Path(str(NVCC)).with_name("ptxas")), "-v", f"-arch=sm_{architecture}", str(ptx), "-o"]
    done = subprocess.run([*command, str(ptx) + ".cubin"], capture_output=True, text=True, check=True)
    spills = re.findall(r"Function properties for (\w+)\n.*?(\d+) bytes spill stores, (\d+)", done.stderr)
    used = dict(re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", done.stderr, re.DOTALL))
    assert set(used) == set(bounds), source.name
    found = [f"{kernel} spills" for kernel, stores, loads in spills if int(stores) + int(loads)]
    for kernel, (threads, blocks) in bounds.items():
        if int(used[kernel]) * threads * blocks > REGISTERS:
            found.append(f"{kernel} uses {used[kernel]} registers")
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_spills_and_registers_within_the_launch_bounds(architecture: int, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda source: problems(source, architecture, tmp_path), SOURCES)
        assert [problem for found in results for problem in found] == []


@pytest.mark.parametrize("name", ["window_statistics", "unfold", "probability_levels"])
@pytest.mark.parametrize("architecture", [75, 90])
def test_sums_are_not_fused_with_products(name: str, architecture: int, tmp_path: Path) -> None:
    """`mul.f64` without a rounding mode may be fused with the sum that reads it; `mul.rn.f64` is not."""
    width = 32 if name == "probability_levels" else 64
    compile_to_ptx(CSRC / "cuda" / f"{name}.cu", architecture, tmp_path / "code.ptx")
    kernels = (tmp_path / "code.ptx").read_text().split(".entry ")[1:]
    assert kernels
    for kernel in kernels:
        assert f"fma.rn.f{width}" not in kernel
        products = set(re.findall(rf"\bmul\.f{width}\s+(%fd?\d+)", kernel))
        sums = re.findall(rf"\b(?:add|sub)\.f{width}\s+%fd?\d+, (%fd?\d+), (%fd?\d+)", kernel)
        fused = [pair for pair in sums if products & set(pair)]
        assert fused == [], kernel.split("(")[0]
