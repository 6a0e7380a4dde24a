"""The rules of the architecture: who may import whom, and what is public."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "t3ssfast"
CSRC = ROOT / "csrc"

# From low to high, as in docs/dev/architecture.md: a file imports from its own package and lower ones.
LEVELS = [
    "errors",
    "tomogram",
    "candidates",
    "io",
    "runtime",
    "kernels",
    "models",
    "evaluation",
    "detection",
    "averaging",
    "simulation",
    "training",
    "plotting",
    "cluster",
    "curation",
    "reporting",
    "napari_plugin",
    "cli",
]
FILES = {
    ".".join(["t3ssfast", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(name: str) -> set[str]:
    """Files of t3ssfast that a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            modules = [
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in FILES else str(node.module)
                for alias in node.names
                if alias.name != "_core"
            ]
        else:
            continue
        found |= {module for module in modules if module.split(".")[0] == "t3ssfast"}
    return found


def level_of(name: str) -> int:
    return LEVELS.index(name.split(".")[1])


def test_the_package_is_found():
    assert len(FILES) > 50
    assert {name.split(".")[1] for name in FILES if name != "t3ssfast"} == set(LEVELS)


@pytest.mark.parametrize("name", [name for name in FILES if name != "t3ssfast"])
def test_imports_run_downward(name):
    for other in imports_of(name):
        assert other in FILES, f"{name} imports {other}, which is no file of the package"
        assert level_of(other) <= level_of(name), f"{name} imports {other} upwards"


def test_no_cycles_between_files():
    graph = {name: imports_of(name) for name in FILES if name != "t3ssfast"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(error.args[1])}")


def test_the_documented_order_is_the_tested_order():
    text = (ROOT / "docs" / "dev" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```layers\n(.*?)```", text, re.S)
    assert block is not None
    assert [line.split()[0] for line in block[1].splitlines()] == LEVELS


def test_the_documented_files_exist():
    text = (ROOT / "docs" / "dev" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:csrc|python|tests|bench|docs)/[\w./]+)`", text)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_one_file_imports_the_extension():
    importers = [
        name for name, path in FILES.items() if re.search(r"import _core\b", path.read_text(encoding="utf-8"))
    ]
    assert importers == ["t3ssfast.kernels._native.extension"]


def test_the_native_boundary_is_crossed_by_its_package():
    for name in FILES:
        if not name.startswith("t3ssfast.kernels._native"):
            inside = [other for other in imports_of(name) if other.startswith("t3ssfast.kernels._native.")]
            assert not inside, f"{name} reaches into kernels._native: {inside}"


def test_no_module_is_called_utils():
    assert not [name for name in FILES if "util" in name or "helper" in name]


def test_stub_lists_every_public_name_once():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    names = [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    import t3ssfast

    assert sorted(names) == sorted(t3ssfast.__all__)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("half", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_halves_never_include_each_other(half, other):
    for path in sorted((CSRC / half).rglob("*")):
        if path.is_file():
            included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.M)
            assert not [name for name in included if name.split("/")[0] == other], path


def test_the_core_includes_nothing_above_it():
    for path in sorted((CSRC / "core").glob("*.h")):
        included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.M)
        assert not [name for name in included if name.split("/")[0] in ("cpu", "cuda", "bindings")], path


def test_modules_say_what_is_public():
    for name, path in FILES.items():
        if not name.startswith("t3ssfast.cli") and path.name != "__init__.py":
            assert "__all__" in path.read_text(encoding="utf-8"), f"{name} has no __all__"
