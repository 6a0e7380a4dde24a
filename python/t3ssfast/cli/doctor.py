"""`t3ssfast doctor`: check the installation, or check tomograms before a run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from t3ssfast.cli import options
from t3ssfast.cli.checks import FAILED, NOTE, OK, Check, print_table
from t3ssfast.cli.tomogram_lists import find_tomograms, mask_of_each

# Distribution, module to import, and what does not work without it. OpenVINO is not imported, because its
# telemetry would report that over the network.
REQUIRED = [
    ("numpy", "numpy", "nothing works"),
    ("scipy", "scipy", "nothing works"),
    ("mrcfile", "mrcfile", "no tomogram can be read"),
    ("pandas", "pandas", "no tables of candidates"),
    ("starfile", "starfile", "no RELION files"),
    ("dynamotable", "dynamotable", "no Dynamo tables"),
    ("imodmodel", "imodmodel", "no IMOD models"),
    ("connected-components-3d", "cc3d", "membranes cannot be cleaned"),
    ("matplotlib", "matplotlib", "no plots"),
]
EXTRAS = [
    ("zarr", "zarr", "OME-Zarr cannot be read; pip install 't3ssfast[zarr]'"),
    ("tifffile", "tifffile", "TIFF cannot be read; pip install 't3ssfast[formats]'"),
    ("h5py", "h5py", "HDF5 cannot be read; pip install 't3ssfast[formats]'"),
    ("emfile", "emfile", "EM files cannot be read; pip install 't3ssfast[formats]'"),
    ("openvino", "", "segmentation on a CPU is slower; pip install 't3ssfast[openvino]'"),
    ("submitit", "", "no jobs are submitted to Slurm; pip install 't3ssfast[slurm]'"),
    ("distributed", "", "no clusters of dask are used; pip install 't3ssfast[dask]'"),
]
REINSTALL = "install t3ssfast again"
# With less memory than this, a smaller budget than the default 2 GiB is advised.
SMALL_MEMORY_BYTES = 4 << 30


def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tomograms to check; none: the installation is checked.", show_default=False, readable=False
        ),
    ] = None,
    segmenter: options.SegmenterFile = None,
    classifier: options.ClassifierFile = None,
    membrane: options.Membranes = None,
    tomograms: options.RelionTomograms = None,
    voxel_size: options.VoxelSize = None,
    contrast: options.AutoContrast = None,
    device: options.Device = "auto",
    memory_budget: options.MemoryBudget = None,
    trust_model: options.TrustModel = False,
    window: options.Window = None,
    classifier_output: options.ClassifierOutput = "auto",
    target_class: options.TargetClass = None,
    segmenter_output: options.SegmenterOutput = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Check the installation, or check tomograms before a run.

    With tomograms, the header, values, memory, models and membrane mask are checked as a detection would use
    them, and a few slices are searched to estimate the time. With --tomograms, that file must list each
    tomogram.

    The exit code is 1 if detection cannot run, or would fail on one of the tomograms.

    \b
    Examples:
      t3ssfast doctor
      t3ssfast doctor TS_01.mrc TS_02.mrc --tomograms tomograms.star
    """
    if files:
        # Not imported above: without tomograms, the report names missing packages, which these need.
        from t3ssfast.cli.preflight import check_tomogram
        from t3ssfast.io import display_path

        check = partial(
            check_tomogram,
            segmenter=segmenter,
            classifier=classifier,
            tomograms=tomograms,
            voxel_size=voxel_size,
            config=options.detect_config(contrast=contrast, memory_budget=memory_budget),
            device=device,
            trust_model=trust_model,
            readings=options.model_readings(window, classifier_output, target_class, segmenter_output),
        )
        files, _ = find_tomograms(files)
        masks = mask_of_each(files, membrane, "membrane")
        report = {display_path(path): check(path, mask) for path, mask in zip(files, masks, strict=True)}
    else:
        report = {
            "t3ssfast doctor": [*_machine(), *_packages(), *_torch(), *_native(), *_models(), *_formats()]
        }
    ok = not any(check.status == FAILED for checks in report.values() for check in checks)
    if as_json:
        lines = {name: [asdict(check) for check in checks] for name, checks in report.items()}
        content = {"files": lines} if files else {"checks": lines["t3ssfast doctor"]}
        typer.echo(json.dumps({"ok": ok, **content}))
    else:
        for name, checks in report.items():
            print_table(name, checks)
    if not ok:
        raise typer.Exit(1)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _machine() -> Iterator[Check]:
    yield Check("t3ssfast", OK, _version("t3ssfast") or "run from the source tree")
    supported = (3, 11) <= sys.version_info[:2] <= (3, 14)
    note = "" if supported else "made for 3.11 to 3.14"
    yield Check("Python", OK if supported else NOTE, platform.python_version(), note)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Check("processor cores", OK, f"{cores}", f"OMP_NUM_THREADS={threads} is set" if threads else "")
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    small = total < SMALL_MEMORY_BYTES
    note = "use a smaller --memory-budget for large tomograms" if small else ""
    yield Check("memory", NOTE if small else OK, f"{total / 2**30:.1f} GiB", note)


def _packages() -> Iterator[Check]:
    for distribution, module, consequence in [*REQUIRED, *EXTRAS]:
        required = (distribution, module, consequence) in REQUIRED
        try:
            if module:
                import_module(module)
            elif _version(distribution) is None:
                raise ModuleNotFoundError(distribution)
        except ImportError as error:
            value = "missing" if isinstance(error, ModuleNotFoundError) else f"broken: {error}"
            note = f"{consequence}; {REINSTALL}" if required else consequence
            yield Check(distribution, FAILED if required else NOTE, value, note)
        else:
            yield Check(distribution, OK, _version(distribution) or "found")


def _torch() -> Iterator[Check]:
    try:
        torch: Any = import_module("torch")
    except (ImportError, OSError) as error:
        yield Check("torch", FAILED, f"cannot be imported: {error}", f"no detection; {REINSTALL}")
        return
    from t3ssfast.runtime.threads import default_threads

    yield Check("torch", OK, torch.__version__, f"{default_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = f"{device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Check(f"GPU cuda:{index}", OK, device.name, memory)
    else:
        found = "PyTorch was built without CUDA" if torch.version.cuda is None else "no CUDA device or driver"
        note = f"{found}; detection runs on the CPU, many times slower than on a GPU"
        yield Check("GPU", NOTE, "none", note)


def _native() -> Iterator[Check]:
    try:
        build: dict[str, Any] = import_module("t3ssfast.kernels._native").build_info()
    except (ImportError, OSError, AttributeError) as error:  # missing, broken, or of another version
        yield Check("native kernels", FAILED, f"cannot be used: {error}", "build t3ssfast again")
        return
    for key, value in build.items():
        yield Check(f"build: {key}", OK, str(value))
    if not build["cuda_devices"] and _gpu_in_pytorch():
        note = "detection runs on the CPU, many times slower than on the GPU that PyTorch finds"
        yield Check("CUDA kernels", NOTE, f"cannot be used: {build['cuda_problem']}", note)


def _gpu_in_pytorch() -> bool:
    try:
        torch: Any = import_module("torch")
    except (ImportError, OSError):
        return False
    return bool(torch.cuda.is_available())


def _models() -> Iterator[Check]:
    try:
        from t3ssfast.io import file_sha256
        from t3ssfast.models.bundled import BUNDLED_SHA256

        weights = resources.files("t3ssfast") / "weights"
    except (ImportError, OSError) as error:
        note = f"{REINSTALL}, or give --segmenter and --classifier"
        yield Check("bundled models", FAILED, f"cannot be checked: {error}", note)
        return
    for kind in ("segmenter", "classifier", "verifier"):
        name = f"{kind}.safetensors"
        with resources.as_file(weights / name) as path:
            checksum = file_sha256(path) if path.is_file() else None
        value = "missing" if checksum is None else f"SHA-256 {checksum[:16]}..."
        if checksum is not None and checksum == BUNDLED_SHA256[kind]:
            yield Check(f"model {name}", OK, value)
        else:
            value += "" if checksum is None else " differs from the released file"
            yield Check(f"model {name}", FAILED, value, f"{REINSTALL}, or give --{kind}")


def _formats() -> Iterator[Check]:
    """Say which model files this Python and PyTorch can read and write."""
    try:
        from t3ssfast.models.saving import torchscript_problem
    except (ImportError, OSError, AttributeError) as error:
        yield Check("model files", FAILED, f"cannot be used: {error}", REINSTALL)
        return
    yield Check("model files .safetensors", OK, "read and written")
    problem = torchscript_problem()
    if problem is not None:
        note = f"{problem}; train and convert write .safetensors alone, and --trust-model cannot read .pt"
        yield Check("model files .pt (TorchScript)", NOTE, "read, not written", note)
    elif sys.version_info >= (3, 14):
        note = "PyTorch does not support TorchScript with Python 3.14 and newer; prefer .safetensors"
        yield Check("model files .pt (TorchScript)", NOTE, "read and written", note)
    else:
        yield Check("model files .pt (TorchScript)", OK, "read and written")
    yield Check("model files .pt2 (torch.export)", OK, "read with --trust-model alone")
