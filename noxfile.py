"""Sessions for development: `nox -l` lists them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
CONSTRAINTS = ("-c", "constraints.txt")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# What runs native code of this package; the rest of the suite would only be slow here.
SANITIZED = [
    "tests/kernels/test_unfold.py",
    "tests/kernels/test_window_statistics.py",
    "tests/kernels/test_order_statistics.py",
    "tests/kernels/test_score_windows.py",
    "tests/kernels/test_native.py",
    "tests/detection/test_preselect.py",
    "tests/kernels/test_tensor_core.py",
    "tests/kernels/test_plan.py",
    "tests/reliability/test_layouts.py",
    "tests/reliability/test_small_images.py",
    "tests/reliability/test_threads.py",
    "tests/reliability/test_same_bytes.py",
    # What a sanitizer says as it ends the process must not be caught with the output of the test.
    "--capture=no",
    "--timeout=1800",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite, as the README runs it."""
    session.install(*CONSTRAINTS, ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """The long form of every test."""
    session.install(*CONSTRAINTS, ".[test]")
    session.run("pytest", "--soak", "--timeout=3600", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install(*CONSTRAINTS, ".[dev]")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark family against its peers; pass a file to run one."""
    session.install(*CONSTRAINTS, ".[bench]")
    session.run(
        "pytest", "--benchmark-only", *(session.posargs or ["bench"]), env={"OMP_WAIT_POLICY": "passive"}
    )


def build_in_tree(session: nox.Session, folder: str, *options: str) -> Path:
    """Configure and build the extension in `folder`; returns where a copy of the package lies."""
    session.install(*CONSTRAINTS, ".[test]", "pybind11", "cmake", "ninja")
    session.run("cmake", "-S", ".", "-B", folder, "-G", "Ninja", *options, external=True)
    session.run("cmake", "--build", folder, external=True)
    package = Path(folder) / "python"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree("python", package, ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    session.run("cmake", "--install", folder, "--prefix", str(package), external=True)
    return package.resolve()


@nox.session
def asan(session: nox.Session) -> None:
    """Every test that runs the kernels, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    package = build_in_tree(session, "build-asan", "-DT3SSFAST_CUDA=OFF", "-DT3SSFAST_SANITIZE=ON")
    preload = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    session.run(
        "pytest",
        *(session.posargs or SANITIZED),
        "-p",
        "no:cacheprovider",
        env={
            "PYTHONPATH": str(package),
            "LD_PRELOAD": ":".join(preload),
            # CPython and PyTorch keep memory until exit; leaks are not what this session looks for.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
    )


@nox.session
def cuda_compile(session: nox.Session) -> None:
    """Compile the CUDA half for every architecture and print registers and spills; needs nvcc, not a GPU."""
    session.install(*CONSTRAINTS, "pybind11", "cmake", "ninja")
    session.run(
        "cmake",
        *(
            "-S",
            ".",
            "-B",
            "build-cuda",
            "-G",
            "Ninja",
            "-DT3SSFAST_CUDA=ON",
            "-DCMAKE_CUDA_FLAGS=-Xptxas -v",
        ),
        env={"PATH": os.pathsep.join([os.environ["PATH"], "/usr/local/cuda/bin"])},
        external=True,
    )
    session.run("cmake", "--build", "build-cuda", "--clean-first", external=True)
