"""`t3ssfast doctor`: what is installed, what is missing, and what that costs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

OK, NOTE, FAILED = "ok", "note", "FAILED"

# Distribution, the module it is imported as, and what is lost without it. One without a module is only looked
# for: importing OpenVINO would report over the network.
CORE = [
    ("numpy", "numpy", "nothing works"),
    ("scipy", "scipy", "nothing works"),
    ("mrcfile", "mrcfile", "no tomogram can be read"),
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


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: str
    value: str
    note: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what is installed, what is missing and what that costs; exit code 1 if detection cannot run.

    \b
    Example:
      t3ssfast doctor
    """
    checks = [*_machine(), *_packages(), *_torch(), *_native(), *_models()]
    failed = any(check.status == FAILED for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    else:
        _print(checks)
    if failed:
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="t3ssfast doctor")
    for column in ("what", "state", "found", "note"):
        table.add_column(column, overflow="fold")
    styles = {OK: "green", NOTE: "yellow", FAILED: "bold red"}
    for check in checks:
        state = f"[{styles[check.status]}]{check.status}[/]"
        table.add_row(escape(check.name), state, escape(check.value), escape(check.note))
    Console().print(table)


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
        information: dict[str, Any] = import_module("t3ssfast._native").build_info()
    except (ImportError, OSError) as error:
        yield Check("native kernels", FAILED, f"cannot be imported: {error}", "build t3ssfast again")
        return
    for key, value in information.items():
        yield Check(f"build: {key}", OK, str(value))


def _models() -> Iterator[Check]:
    from t3ssfast.io import file_sha256

    try:
        folder = resources.files("t3ssfast") / "weights"
        expected: dict[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Check(
            "bundled models", FAILED, f"no list of them ({error})", "give --segmenter and --classifier"
        )
        return
    for name in ("segmenter.pt", "classifier.pt"):
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
