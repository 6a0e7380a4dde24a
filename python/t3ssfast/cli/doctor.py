"""`t3ssfast doctor`: what is installed, what is missing, and what that costs; or what a file is missing."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from t3ssfast.cli.checks import FAILED, NOTE, OK, Check, show_table
from t3ssfast.cli.preflight import Options, preflight

# Distribution, the module it is imported as, and what is lost without it. One without a module is only looked
# for: importing OpenVINO would report over the network.
CORE = [
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
    (
        "openvino",
        "",
        "membranes are segmented more slowly on a CPU; pip install 't3ssfast[openvino]'",
    ),
]
SMALL_MEMORY_BYTES = 4 << 30


def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tomograms to look at before a run; none: this machine.",
            show_default=False,
            # Told like all else that is wrong with a file.
            readable=False,
        ),
    ] = None,
    segmenter: Annotated[
        Path | None, typer.Option(help="TorchScript U-Net instead of the bundled one.", metavar="FILE")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="TorchScript LeNet instead of the bundled one.", metavar="FILE")
    ] = None,
    membrane: Annotated[
        list[Path] | None,
        typer.Option(help="Membrane mask of the tomogram; once for each tomogram.", metavar="FILE"),
    ] = None,
    tomograms: Annotated[
        Path | None,
        typer.Option(help="RELION tomograms.star that should know the tomograms.", metavar="FILE"),
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Voxel size in Angstrom, instead of the headers'.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help='Protein is "dark", "light" or "auto".', show_default="auto")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1".')] = "auto",
    memory_budget: Annotated[float | None, typer.Option(help="Memory to use, GiB.", show_default="2")] = None,
    trust_model: Annotated[
        bool,
        typer.Option("--trust-model", help="Load the model files unchecked; they can then run any code."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what is installed, what is missing and what that costs; or whether tomograms are fit for a run.

    Exit code 1 if detection cannot run, or would fail on one of the files.

    \b
    Example:
      t3ssfast doctor
      t3ssfast doctor TS_01.mrc TS_02.mrc --tomograms tomograms.star
    """
    if files:
        options = _options(
            segmenter, classifier, tomograms, voxel_size, contrast, device, memory_budget, trust_model
        )
        report = _files(files, membrane, options)
    else:
        report = {"t3ssfast doctor": [*_machine(), *_packages(), *_torch(), *_native(), *_models()]}
    failed = any(check.status == FAILED for checks in report.values() for check in checks)
    if as_json:
        lines = {name: [asdict(check) for check in checks] for name, checks in report.items()}
        typer.echo(
            json.dumps(
                {"ok": not failed, "files": lines}
                if files
                else {"ok": not failed, "checks": lines["t3ssfast doctor"]}
            )
        )
    else:
        for name, checks in report.items():
            show_table(name, checks)
    if failed:
        raise typer.Exit(1)


def _options(
    segmenter: Path | None,
    classifier: Path | None,
    tomograms: Path | None,
    voxel_size: float | None,
    contrast: str | None,
    device: str,
    memory_budget: float | None,
    trust_model: bool,
) -> Options:
    from t3ssfast.detection.config import DetectConfig

    given: dict[str, Any] = {
        "contrast": contrast,
        "memory_budget_bytes": None if memory_budget is None else int(memory_budget * 2**30),
    }
    config = DetectConfig(**{name: value for name, value in given.items() if value is not None})
    return Options(
        segmenter=segmenter,
        classifier=classifier,
        membrane=None,
        tomograms=tomograms,
        voxel_size=voxel_size,
        config=config,
        device=device,
        trust_model=trust_model,
    )


def _files(files: list[Path], membrane: list[Path] | None, options: Options) -> dict[str, list[Check]]:
    """What is found out about each of the files."""
    from t3ssfast.errors import InputError
    from t3ssfast.io import display_path

    masks: list[Path | None] = [*membrane] if membrane else [None] * len(files)
    if len(masks) != len(files):
        raise InputError(
            f"There are {len(masks)} membrane masks for {len(files)} tomograms; give one for each."
        )
    return {
        display_path(path): preflight(path, replace(options, membrane=mask))
        for path, mask in zip(files, masks, strict=True)
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _machine() -> Iterator[Check]:
    yield Check("t3ssfast", OK, _version("t3ssfast") or "run from its source")
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    note = "" if supported else "tested with 3.10 to 3.13"
    yield Check("Python", OK if supported else NOTE, platform.python_version(), note)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    note = f"OMP_NUM_THREADS={threads} is set" if threads else ""
    yield Check("processor cores", OK, f"{cores}", note)
    total = _memory()
    if total is not None:
        small = total < SMALL_MEMORY_BYTES
        note = "lower DetectConfig.memory_budget_bytes for large tomograms" if small else ""
        yield Check("memory", NOTE if small else OK, f"{total / 2**30:.1f} GiB", note)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _packages() -> Iterator[Check]:
    for packages, missing, instead in ((CORE, FAILED, "install t3ssfast again"), (EXTRAS, NOTE, "")):
        for distribution, module, cost in packages:
            try:
                if module:
                    import_module(module)
                elif _version(distribution) is None:
                    raise ModuleNotFoundError(distribution)
            except ImportError as error:
                reason = "missing" if isinstance(error, ModuleNotFoundError) else f"broken: {error}"
                note = f"{cost}; {instead}" if instead else cost
                yield Check(distribution, missing, reason, note)
            else:
                yield Check(distribution, OK, _version(distribution) or "found")


def _torch() -> Iterator[Check]:
    try:
        torch: Any = import_module("torch")
    except (ImportError, OSError) as error:
        yield Check("torch", FAILED, f"cannot be imported: {error}", "no detection; install t3ssfast again")
        return
    yield Check("torch", OK, torch.__version__, f"{torch.get_num_threads()} threads")
    if torch.version.cuda is None:
        note = "this torch is for the CPU only; detection runs there, many times slower than on a GPU"
        yield Check("GPU", NOTE, "none", note)
    elif not torch.cuda.is_available():
        note = "no CUDA device or driver was found; detection runs on the CPU, many times slower"
        yield Check("GPU", NOTE, "none", note)
    else:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Check(f"GPU cuda:{index}", OK, properties.name, memory)


def _native() -> Iterator[Check]:
    try:
        information: dict[str, Any] = import_module("t3ssfast.kernels._native").build_info()
    except (ImportError, OSError, AttributeError) as error:  # missing, broken, or of another version
        yield Check("native kernels", FAILED, f"cannot be used: {error}", "build t3ssfast again")
        return
    for key, value in information.items():
        yield Check(f"build: {key}", OK, str(value))


def _models() -> Iterator[Check]:
    try:
        from t3ssfast.io import file_sha256
    except ImportError as error:
        yield Check("bundled models", FAILED, f"cannot be looked at: {error}", "install t3ssfast again")
        return
    try:
        folder = resources.files("t3ssfast") / "weights"
        expected: dict[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Check(
            "bundled models", FAILED, f"no list of them ({error})", "give --segmenter and --classifier"
        )
        return
    for name in ("segmenter.pt", "classifier.pt", "verifier.pt"):
        cost = f"install t3ssfast again, or give --{name.removesuffix('.pt')}"
        with resources.as_file(folder / name) as path:
            if not path.is_file() or name not in expected:
                yield Check(f"model {name}", FAILED, "missing", cost)
                continue
            actual = file_sha256(path)
        if actual == expected[name]:
            yield Check(f"model {name}", OK, f"SHA-256 {actual[:16]}...")
        else:
            yield Check(f"model {name}", FAILED, f"SHA-256 {actual[:16]}... is not the released one", cost)
