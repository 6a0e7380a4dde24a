"""Which nvcc builds the CUDA kernels, for which architectures, and why not; scripts play the compilers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FIND_CUDA = Path(__file__).resolve().parents[2] / "cmake" / "find_cuda.cmake"
CMAKE = shutil.which("cmake")

pytestmark = pytest.mark.skipif(CMAKE is None, reason="no cmake: its rules are not checked")


def find_cuda(folder: Path, nvcc: str | None) -> dict[str, str]:
    """Run the rules with an nvcc that is a shell script; return what they decide."""
    compiler = folder / "nvcc"
    if nvcc is not None:
        compiler.write_text(f"#!/bin/sh\n{nvcc}\n")
        compiler.chmod(0o755)
    script = folder / "decide.cmake"
    script.write_text(
        f"""include("{FIND_CUDA}")
t3ssfast_find_cuda("{folder}/try")
if(T3SSFAST_NVCC_VERSION)
  t3ssfast_cuda_architectures(${{T3SSFAST_NVCC_VERSION}} architectures)
  t3ssfast_cuda_options(${{T3SSFAST_NVCC_VERSION}} options)
endif()
foreach(name T3SSFAST_NVCC_VERSION T3SSFAST_CUDA_PROBLEM architectures options)
  message("${{name}}=${{${{name}}}}")
endforeach()
"""
    )
    done = subprocess.run(
        [str(CMAKE), f"-DCMAKE_CUDA_COMPILER={compiler}", "-P", str(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stderr.splitlines() if "=" in line)


def script(version: str, refuses: str = "nothing", message: str = "") -> str:
    """Return an nvcc of a version that refuses command lines with some words."""
    return f"""case "$*" in
  *--version*) echo "Cuda compilation tools, release {version}, V{version}.1";;
  {refuses}) echo "{message}" >&2; exit 1;;
esac"""


def test_ubuntu_24_04(tmp_path: Path) -> None:
    """Its nvcc 12.0 knows neither compute capability 10.0 nor --compress-mode."""
    nvcc = script("12.0", "*compute_100*|*compute_120*|*compress-mode*", "nvcc fatal   : Unsupported")
    found = find_cuda(tmp_path, nvcc)
    assert found["T3SSFAST_CUDA_PROBLEM"] == ""
    assert found["architectures"] == "75-real;80-real;86-real;89-real;90"


def test_newest(tmp_path: Path) -> None:
    found = find_cuda(tmp_path, script("13.0"))
    assert found["T3SSFAST_CUDA_PROBLEM"] == ""
    assert found["architectures"] == "75-real;80-real;86-real;89-real;90-real;100-real;120"
    assert "--compress-mode=size" in found["options"]


@pytest.mark.parametrize(
    ("nvcc", "problem"),
    [
        (script("11.5"), "nvcc 11.5 is older than 12.0"),
        (
            script("12.0", "*-c*", "host_config.h:132:2: error: unsupported GNU version!"),
            "nvcc 12.0 cannot compile a kernel: host_config.h:132:2: error: unsupported GNU version!",
        ),
        ("exit 1", "does not run"),
        (None, "does not run"),
    ],
    ids=["old", "newer C++ compiler", "broken", "absent"],
)
def test_reason_where_the_kernels_cannot_be_built(tmp_path: Path, nvcc: str | None, problem: str) -> None:
    assert problem in find_cuda(tmp_path, nvcc)["T3SSFAST_CUDA_PROBLEM"]
